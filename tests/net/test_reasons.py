"""Why a connection failed: the system's words for people, without its numbers and its classes."""

from __future__ import annotations

import errno
import socket
import ssl

import httpx
import pytest

from hive.net.reasons import in_words


def chained(outer: Exception, inner: Exception) -> Exception:
    outer.__cause__ = inner
    return outer


REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
SEVERAL = (
    "Multiple exceptions: [Errno 111] Connect call failed ('::1', 1, 0, 0), [Errno 113] Connect call failed ('a', 1)"
)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (REFUSED, "connection refused"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('127.0.0.1', 1)"), "connection refused"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "no route to host"),
        (OSError(errno.EHOSTUNREACH, "Connect call failed ('10.0.0.1', 1)"), "no route to host"),
        (OSError(SEVERAL), "connection refused, no route to host"),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), "connection reset by peer"),
        (ConnectionResetError("Connection lost"), "connection lost"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "its name is not known"),
        (ssl.SSLError(1, "[SSL: BAD] bad thing"), "[SSL: BAD] bad thing"),
        (TimeoutError(), "TimeoutError"),
        (chained(httpx.ConnectError("[Errno 111] Connection refused"), REFUSED), "connection refused"),
        (httpx.RemoteProtocolError("Server disconnected."), "server disconnected"),
        (httpx.ReadError(""), "ReadError"),
    ],
)
def test_a_failure_is_told_in_words(error: Exception, said: str) -> None:
    assert in_words(error) == said


def test_a_long_tale_is_cut() -> None:
    assert in_words(OSError("x" * 1_000 + "\nmore")) == "x" * 200
