"""Why a connection failed, in words for people: the system's words, without numbers and class names."""

from __future__ import annotations

import os
import re
import socket

_NUMBER = re.compile(r"\[Errno (\d+)\]")
_ASYNCIO_TEXT = "Connect call failed"
"""The text that asyncio puts before the address, if it leaves out the system's words."""
_MOST_CHARACTERS = 200


def in_words(error: BaseException) -> str:
    """Return in a few words why a connection failed. If an error of the system is the cause, its words are used."""
    found = _of_system(error)
    if isinstance(found, ConnectionRefusedError):
        return "connection refused"
    if isinstance(found, socket.gaierror):
        return "its name is not known"
    if found is None:
        return _shown(str(error)) or type(error).__name__
    text = found.strerror or str(found)
    # When several addresses fail, asyncio makes one error that holds the numbers of all of them.
    numbers = [found.errno or 0] if text.startswith(_ASYNCIO_TEXT) else [int(each) for each in _NUMBER.findall(text)]
    words = dict.fromkeys(_shown(os.strerror(number)) for number in numbers)
    return ", ".join(words) or _shown(text) or type(found).__name__


def _of_system(error: BaseException) -> OSError | None:
    """Return the error of the system that caused this error, if there is one."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


def _shown(text: str) -> str:
    """Return a text's first line as a part of a sentence."""
    line = text.split("\n")[0][:_MOST_CHARACTERS].rstrip(".")
    return line[:1].lower() + line[1:] if line[1:2].islower() else line
