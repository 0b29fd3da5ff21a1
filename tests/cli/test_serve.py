"""`hive serve`: a flag for every option; a wrong value ends the start with one sentence."""

from __future__ import annotations

import pytest

from hive.config import OPTIONS

from .conftest import Run


def test_every_option_but_secrets_has_a_flag_with_its_default(run: Run) -> None:
    shown = run("serve", "--help").out
    words = set(shown.replace(",", " ").split())
    assert {option.flag for option in OPTIONS.values() if not option.is_secret} <= words
    assert "--admin-key" not in words
    assert "[default: 4483]" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("--queue-limit", "many"),
            "hive: queue_limit: expected an integer, got 'many' (from --queue-limit)\n",
        ),
        (
            ("--node", "a=ftp://b"),
            "hive: node 'a': url: expected http:// or https://, got 'ftp://b' (from --node)\n",
        ),
        (("--config", "no.toml"), "hive: no.toml: cannot be read (No such file or directory)\n"),
        (("--prot", "1"), "hive: No such option: --prot"),
    ],
)
def test_a_wrong_option_is_one_sentence_and_a_wrong_use(run: Run, arguments: tuple[str, ...], said: str) -> None:
    ended = run("serve", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(said)
    assert ended.err.count("\n") == 1


def test_a_wrong_variable_is_one_sentence(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIVE_PORT", "high")
    assert run("serve").err == "hive: port: expected an integer, got 'high' (from HIVE_PORT)\n"


def test_a_directory_in_use_ends_the_start(run: Run, hub: str, hub_dir: object) -> None:
    ended = run("serve", "--port", "0", "--data-dir", str(hub_dir))
    assert ended.code == 1
    assert f"data directory {hub_dir}: is in use by process" in ended.err
