"""Options that take a number or one of a few words: a valid value is read, a wrong one is refused in one sentence."""

from __future__ import annotations

import pytest

from .conftest import Run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("requests", "--state", "runing"), "--state: expected one of running, queued, ended, all, got 'runing'"),
        (("requests", "--limit", "many"), "--limit: expected a whole number from 1 to 1000, got 'many'"),
        (("requests", "--limit", "0"), "--limit: expected a whole number from 1 to 1000, got '0'"),
        (("requests", "--limit", "1001"), "--limit: expected a whole number from 1 to 1000, got '1001'"),
        (("requests", "--limit", "2.5"), "--limit: expected a whole number from 1 to 1000, got '2.5'"),
        (("demo", "--port", "65536"), "--port: expected a whole number from 0 to 65535, got '65536'"),
        (("sim", "--slots", "x"), "--slots: expected a whole number, got 'x'"),
        (("sim", "--ttft", "soon"), "--ttft: expected a number, got 'soon'"),
    ],
)
def test_a_wrong_value_is_refused_in_one_sentence_of_our_own(run: Run, arguments: tuple[str, ...], said: str) -> None:
    wrong = run(*arguments)
    assert (wrong.code, wrong.out, wrong.err) == (2, "", f"hive: {said}\n")


def test_help_shows_what_an_option_takes(run: Run) -> None:
    shown = " ".join(run("requests", "--help").out.split())
    assert "--state running|queued|ended|all " in shown
    assert "[default: all]" in shown
    assert "--limit N " in shown
    assert "[default: 20]" in shown
