"""The page about the link agrees with the code: limits, times, codes, and examples of messages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from hive.wire import link_rules as link
from hive.wire.link_dial import ends_agent, redial_seconds
from hive.wire.link_messages import FIRST, FROM_HUB, FROM_HUB_DATA, FROM_NODE, FROM_NODE_DATA, EndCode, Message, encode
from hive.wire.link_rules import CloseCode

from .linking import BINARY, TEXT, frame
from .test_link_messages import MESSAGES

PAGE = (Path(__file__).parents[2] / "docs" / "link.md").read_text(encoding="utf-8")


def rows(head: str) -> list[list[str]]:
    """Return the rows of the table whose first column has this head, without the marks of code."""
    _, _, rest = PAGE.partition(f"\n| {head} |")
    lines = rest.split("\n\n")[0].splitlines()[2:]
    assert lines, f"no table begins with {head!r}"
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in lines]


def constants(*, are_times: bool) -> dict[str, float]:
    numbers = {name: value for name, value in vars(link).items() if isinstance(value, int | float)}
    return {name: value for name, value in numbers.items() if name.endswith("_SECONDS") == are_times}


@pytest.mark.parametrize(("head", "are_times"), [("limit", False), ("time", True)])
def test_the_page_has_the_limits_and_times_of_the_code(head: str, are_times: bool) -> None:
    assert {row[0]: float(row[1]) for row in rows(head)} == constants(are_times=are_times)


def code_rows() -> Iterator[list[str]]:
    """Yield the rows of close codes. Both tables begin with `code`; only close codes are numbers."""
    _, _, closing = PAGE.partition("\n## Closing\n")
    for line in closing.splitlines():
        cells = [cell.strip().replace("`", "") for cell in line.strip("|").split("|")]
        if cells[0].isdecimal():
            yield cells


def test_the_page_has_the_close_codes_of_the_code() -> None:
    assert {int(row[0]): row[1] for row in code_rows()} == {code.value: code.name.lower() for code in CloseCode}


def test_the_page_says_when_a_node_tries_again() -> None:
    said = {int(row[0]): row[-1] for row in [*code_rows(), *rows("status")]}
    promised = {code: then for code, then in said.items() if then.startswith("tries")}
    assert len(promised) > 12
    for code, then in promised.items():
        assert (redial_seconds(1, code, 1.0) == 60) == (then == "tries again slowly")
    assert {code for code, then in said.items() if ends_agent(code, is_of_hub=True)} == {
        code for code, then in said.items() if then == "ends, and says so"
    }


def test_the_page_has_the_end_codes_of_the_code() -> None:
    assert [row[0] for row in rows("code")] == [ending.value for ending in EndCode]


def examples() -> list[str]:
    return [found[1] for found in re.finditer(r"```json\n(.*?)```", PAGE, re.DOTALL)]


def read(text: str) -> Message:
    for decoder in (FIRST, FROM_NODE, FROM_HUB, FROM_NODE_DATA, FROM_HUB_DATA):
        try:
            message = decoder.decode(text)
        except link.LinkError:
            continue
        assert message is not None
        return message  # type: ignore[no-any-return]
    raise AssertionError(f"nobody reads {text}")


def test_the_page_has_a_valid_example_of_each_message() -> None:
    assert {type(read(text)) for text in examples()} == {type(message) for _, message, _ in MESSAGES}


def test_the_exchange_on_the_page_is_byte_for_byte_what_is_sent() -> None:
    lines = re.findall(r"^(?:hub |node) > (8[12] [0-9a-f]{2}) (.+)$", PAGE, re.MULTILINE)
    assert len(lines) == 5
    for head, shown in lines:
        payload = shown.replace("\\r\\n", "\r\n").encode()
        kind = TEXT if head.startswith("81") else BINARY
        assert bytes.fromhex(head) + payload == frame(kind, payload, mask=None)
        if kind == TEXT:
            assert encode(read(shown)) == payload
