"""`hive keys`, through a hub and on its data directory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hive.auth.keys import KEY_PREFIX

from .conftest import ADMIN_KEY, Run


def test_only_the_created_key_is_on_standard_output(run: Run, hub: str) -> None:
    made = run("keys", "create", "alice", "--role", "client")
    assert (made.code, made.err) == (0, "")
    assert made.out.startswith(KEY_PREFIX)
    assert made.out.count("\n") == 1


def test_a_listing_shows_the_first_characters_only(run: Run, hub: str) -> None:
    secret = run("keys", "create", "alice", "--role", "client", "--manage").out.strip()
    table = run("keys", "list")
    assert "alice  client, manage  " + secret[:8] + "..." in table.out
    assert secret not in table.out
    listed = json.loads(run("keys", "list", "--json").out)["keys"]
    assert [(key["name"], key["shown"]) for key in listed] == [
        ("admin", ADMIN_KEY[:6]),
        ("alice", secret[:8]),
    ]


def test_a_revoked_key_is_only_in_the_full_listing(run: Run, hub: str) -> None:
    run("keys", "create", "alice", "--role", "worker")
    revoked = run("keys", "revoke", "alice")
    assert (revoked.code, revoked.out) == (0, "key 'alice' is revoked\n")
    assert "alice" not in run("keys", "list").out
    full = run("keys", "list", "--all").out
    assert "REVOKED" in full
    assert "alice" in full


def test_a_key_file_is_used_before_the_environment(
    run: Run, hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_text(f"{ADMIN_KEY}\n")
    monkeypatch.setenv("HIVE_API_KEY", "hk_wrong")
    assert run("keys", "list", "--api-key-file", str(tmp_path / "key")).code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create", "admin", "--role", "admin"), "hive: key 'admin' exists already\n"),
        (("create", "a b", "--role", "client"), "hive: name: expected 1 to 63 letters, digits, "),
        (("create", "gpu", "--role", "worker", "--manage"), "hive: manage: is for client keys, "),
        (("revoke", "bob"), "hive: there is no live key 'bob'\n"),
        (("revoke", "a/b"), "hive: "),
        (("revoke", "admin"), "hive: key 'admin' is the last admin key: make another one first\n"),
    ],
)
def test_a_refusal_of_the_hub_is_one_sentence(run: Run, hub: str, arguments: tuple[str, ...], said: str) -> None:
    refused = run("keys", *arguments)
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.startswith(said)
    assert refused.err.count("\n") == 1


def test_the_error_for_a_missing_key_says_how_to_give_one(run: Run, hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HIVE_API_KEY")
    refused = run("keys", "list")
    assert refused.code == 1
    assert refused.err.endswith("(the key comes from HIVE_API_KEY or --api-key-file)\n")


def test_keys_are_managed_in_the_data_directory_while_no_hub_runs(run: Run, tmp_path: Path) -> None:
    at = ("--data-dir", str(tmp_path / "data"))
    secret = run("keys", "create", "boss", "--role", "admin", *at).out.strip()
    assert secret.startswith(KEY_PREFIX)
    assert run("keys", "create", "alice", "--role", "client", *at).code == 0
    assert run("keys", "revoke", "alice", *at).code == 0
    assert [key["name"] for key in json.loads(run("keys", "list", "--json", *at).out)["keys"]] == ["boss"]
    assert run("keys", "revoke", "boss", *at).err.startswith("hive: key 'boss' is the last admin key")


def test_the_data_directory_of_a_running_hub_is_refused(run: Run, hub: str, hub_dir: Path) -> None:
    refused = run("keys", "list", "--data-dir", str(hub_dir))
    assert refused.code == 1
    assert refused.err.startswith(f"hive: data directory {hub_dir}: is in use by process ")
    assert refused.err.endswith("; use --hub instead of --data-dir while the hub runs\n")


def test_a_listing_makes_no_data_directory(run: Run, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    refused = run("keys", "list", "--data-dir", str(missing))
    assert (refused.code, refused.err) == (1, f"hive: data directory {missing}: holds no hub's data\n")
    assert not missing.exists()
