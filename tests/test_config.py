"""What the settings hold by themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from hive.config import OPTIONS, LocalAccess, NodeSettings, Secret, Settings, changed_options, is_loopback


def test_settings_built_directly_hold_the_defaults_and_read_no_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HIVE_PORT", "9")
    settings = Settings()
    assert (settings.host, settings.port, settings.nodes, settings.slots) == ("127.0.0.1", 4483, (), None)
    assert (settings.head_timeout, settings.max_head_bytes, settings.max_body_bytes) == (
        10,
        32768,
        64_000_000,
    )


def test_the_data_directory_is_by_default_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert Settings().data_dir == tmp_path / "hive"
    monkeypatch.setenv("XDG_DATA_HOME", "relative/is/ignored")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert Settings().data_dir == Path("/home/somebody/.local/share/hive")


@pytest.mark.parametrize(
    ("settings", "access"),
    [
        (Settings(), LocalAccess.INFER),
        (Settings(host="::1"), LocalAccess.INFER),
        (Settings(host="localhost"), LocalAccess.INFER),
        (Settings(host="0.0.0.0"), LocalAccess.OFF),
        (Settings(host="hub.example.org"), LocalAccess.OFF),
        (Settings(trusted_proxies=("127.0.0.1",)), LocalAccess.OFF),
        (Settings(host="0.0.0.0", local_access=LocalAccess.MANAGE), LocalAccess.MANAGE),
        (Settings(local_access=LocalAccess.OFF), LocalAccess.OFF),
    ],
)
def test_local_access_is_off_by_itself_where_others_could_look_local(settings: Settings, access: LocalAccess) -> None:
    assert settings.local_access_at(settings.host) is access


def test_a_listener_on_every_address_is_not_loopback() -> None:
    assert is_loopback("127.8.8.8")
    assert not is_loopback("")
    assert not is_loopback("::")


def test_no_secret_is_in_a_repr() -> None:
    node = NodeSettings(name="a", url="http://a", api_key=Secret("engine-secret"))
    shown = repr(Settings(admin_key=Secret("hub-secret"), nodes=(node,)))
    assert "hub-secret" not in shown
    assert "engine-secret" not in shown


def test_the_options_that_differ_from_their_defaults_are_told_without_secrets(tmp_path: Path) -> None:
    node = NodeSettings(name="a", url="http://10.0.0.5:11434", api_key=Secret("hush"))
    settings = Settings(
        port=0, data_dir=tmp_path, nodes=(node,), open=True, local_access=LocalAccess.OFF, origins=("x://y", "*"),
        admin_key=Secret("hush"), queue_limit=7, drain_timeout=30,
    )  # fmt: skip
    assert changed_options(Settings()) == {}
    assert changed_options(settings) == {
        "port": "0",
        "data_dir": str(tmp_path),
        "nodes": "a=http://10.0.0.5:11434",
        "open": "true",
        "local_access": "off",
        "origins": "x://y, *",
        "admin_key": "(secret)",
        "queue_limit": "7",
    }


def test_every_option_has_help() -> None:
    assert [name for name, option in OPTIONS.items() if not option.help] == []
