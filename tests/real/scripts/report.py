"""Runs a script's checks and prints what each returned, or how it failed, as one JSON document."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable

URL = os.environ["HIVE_TEST_URL"]
HELLO = [{"role": "user", "content": "hello there"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "w",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"type": "string"}},
            "required": ["city"],
        },
    },
}


def report(*checks: Callable[[], object]) -> None:
    """Run the checks in order and print their results by name."""
    results: dict[str, object] = {}
    for check in checks:
        try:
            results[check.__name__] = check()
        except Exception as error:  # the test that started this script judges it
            results[check.__name__] = f"{type(error).__name__}: {error}"
    json.dump(results, sys.stdout)
