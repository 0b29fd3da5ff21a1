"""What an operator reads of an error of the database: the fact, and no value."""

from __future__ import annotations

import errno
import sqlite3

import pytest
from sqlalchemy.exc import OperationalError

from hive.store.store_error import error_fact


@pytest.mark.parametrize(
    ("error", "fact"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/secret/path"), "No space left on device"),
        (OSError("odd"), "OSError"),
        (OperationalError("INSERT", {"digest": "secret"}, sqlite3.OperationalError("disk full")), "disk full"),
        (ValueError("secret"), "ValueError"),
    ],
    ids=["system", "system without words", "database", "other"],
)
def test_the_fact_is_said_without_statement_path_or_value(error: Exception, fact: str) -> None:
    assert error_fact(error) == fact
