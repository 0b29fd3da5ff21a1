"""The simulated engine in a thread of its own."""

from __future__ import annotations

import socket
import threading

import pytest

from hive.testing import OptionError, run_in_thread


def test_until_raises_after_its_timeout() -> None:
    with run_in_thread() as engine, pytest.raises(TimeoutError):
        engine.until(lambda state: state.running > 0, timeout=0.01)


def test_errors_reach_the_caller() -> None:
    with run_in_thread() as engine, pytest.raises(OptionError):
        engine.set_fault("nonsense")


def test_a_taken_port_is_an_error_and_the_thread_ends() -> None:
    before = threading.active_count()
    with run_in_thread() as engine, pytest.raises(OSError, match="in use"), run_in_thread(port=engine.port):
        pass
    assert threading.active_count() == before


def test_a_block_that_fails_ends_the_engine() -> None:
    with pytest.raises(ZeroDivisionError), run_in_thread() as engine:
        _ = 1 // 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", engine.port))
