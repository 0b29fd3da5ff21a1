"""`hive node`: a wrong argument is reported in one sentence with exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Run

HUB = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def plain_node_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the developer's own settings of a node out of the tests."""
    for name in ("HIVE_KEY", "HIVE_KEY_FILE", "HIVE_ENGINE", "HIVE_SLOTS", "HIVE_LABEL", "HIVE_CA_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "--hub: the hub's URL is needed, here or in HIVE_HUB"),
        (("--hub", HUB), "--key-file: a worker key is needed, here, in HIVE_KEY or by --key"),
        (("--hub", "ftp://x", "--key", "k"), "--hub: expected http://HOST[:PORT] or https://HOST[:PORT]"),
        (("--hub", HUB, "--key", "k", "--slots", "x"), "--slots: expected an integer from 1 to 4096, got 'x'"),
        (("--hub", HUB, "--key", "k", "--engine", "x:y"), "--engine: expected a URL such as"),
        (("--hub", HUB, "--key", "k", "--ca-file", "/no/such"), "--ca-file: /no/such cannot be read"),
        (("--hub", HUB, "--key-file", "/no/such"), "--key-file: /no/such cannot be read"),
        (("--hub", HUB, "--nonsense"), "No such option: --nonsense"),
    ],
)
def test_a_wrong_use_is_one_sentence(arguments: tuple[str, ...], sentence: str, run: Run) -> None:
    outcome = run("node", *arguments)
    assert outcome.code == 2
    assert outcome.err.startswith(f"hive: {sentence}")
    assert outcome.err.count("\n") == 1


def test_a_proxy_of_another_kind_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks5://p:1")
    monkeypatch.delenv("https_proxy", raising=False)
    outcome = run("node", "--hub", "https://hub.example", "--key", "k")
    assert outcome.code == 2
    assert "HTTPS_PROXY: expected a URL such as http://proxy.example:3128" in outcome.err


def test_no_secret_is_shown(run: Run, tmp_path: Path) -> None:
    outcome = run("node", "--hub", "http://u:canary@x", "--key", "hk canary", "--engine", "ftp://canary@x")
    assert outcome.code == 2
    assert "canary" not in outcome.err
