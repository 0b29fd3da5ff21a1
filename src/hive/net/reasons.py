"""Why a connection failed, in words for people: the system's own, without its numbers and its classes."""

from __future__ import annotations

import os
import re
import socket

_NUMBER = re.compile(r"\[Errno (\d+)\]")
_UNTOLD = "Connect call failed"
"""What asyncio says in place of the system's words, beside the address."""
_MOST_CHARACTERS = 200


def in_words(error: BaseException) -> str:
    """Return why a connection failed, in a few words; of an error with one of the system behind it, what that says."""
    found = _of_system(error)
    if isinstance(found, ConnectionRefusedError):
        return "connection refused"
    if isinstance(found, socket.gaierror):
        return "its name is not known"
    if found is None:
        return _shown(str(error)) or type(error).__name__
    text = found.strerror or str(found)
    # Of several addresses that failed asyncio makes one error that names the numbers of all.
    numbers = [found.errno or 0] if text.startswith(_UNTOLD) else [int(each) for each in _NUMBER.findall(text)]
    words = dict.fromkeys(_shown(os.strerror(number)) for number in numbers)
    return ", ".join(words) or _shown(text) or type(found).__name__


def _of_system(error: BaseException) -> OSError | None:
    """Return the error of the system behind an error, if there is one."""
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
