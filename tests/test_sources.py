"""How flags, environment and hive.toml become settings, and what is said about a wrong one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hive.config import OPTIONS, LocalAccess, NodeSettings, Secret, Settings, SettingsError
from hive.sources import _Origin, _read, load_settings


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(
    toml: str = "", environ: Mapping[str, str] | None = None, flags: Mapping[str, object] | None = None
) -> Settings:
    if toml:
        Path("hive.toml").write_text(toml)
    return load_settings(flags, environ=environ or {})


def sentence(
    toml: str = "", environ: Mapping[str, str] | None = None, flags: Mapping[str, object] | None = None
) -> str:
    with pytest.raises(SettingsError) as caught:
        load(toml, environ, flags)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_a_source_the_defaults_hold() -> None:
    assert load() == Settings()


def test_a_flag_wins_over_the_environment_which_wins_over_the_file() -> None:
    toml = "port = 1\nqueue_limit = 1\nslots = 1"
    environ = {"HIVE_PORT": "2", "HIVE_QUEUE_LIMIT": "2"}
    settings = load(toml, environ, {"port": "3", "host": None})
    assert (settings.port, settings.queue_limit, settings.slots) == (3, 2, 1)


def test_every_kind_of_option_is_read_from_texts() -> None:
    settings = load(
        environ={
            "HIVE_OPEN": "true",
            "HIVE_LOCAL_ACCESS": "manage",
            "HIVE_HEAD_TIMEOUT": "1.5",
            "HIVE_TRUSTED_PROXIES": "10.0.0.1, fd00::/8",
            "HIVE_ORIGINS": "https://*.example.org,app://*",
            "HIVE_DATA_DIR": "here",
            "HIVE_NODE": "a=http://a:11434, b=https://b/",
            "HIVE_SLOTS": "",
        }
    )
    assert settings.open is True
    assert settings.local_access is LocalAccess.MANAGE
    assert settings.head_timeout == 1.5
    assert [str(network) for network in settings.trusted_networks] == ["10.0.0.1/32", "fd00::/8"]
    assert settings.origins == ("https://*.example.org", "app://*")
    assert settings.data_dir == Path("here")
    assert settings.nodes == (
        NodeSettings(name="a", url="http://a:11434"),
        NodeSettings(name="b", url="https://b"),
    )
    assert settings.slots is None


def test_a_switch_and_a_repeated_flag_are_read() -> None:
    settings = load(environ={"HIVE_OPEN": "true"}, flags={"open": False, "nodes": ["a=http://a", "b=http://b"]})
    assert settings.open is False
    assert [node.name for node in settings.nodes] == ["a", "b"]


def test_nodes_come_from_tables_in_the_file(directory: Path) -> None:
    (directory / "key").write_text("engine-key\n")
    settings = load(
        """
        [[nodes]]
        name = "a"
        url = "http://10.0.0.5:11434"
        slots = 3
        api_key_file = "key"
        [[nodes]]
        name = "b"
        url = "https://b.example.org"
        api_key = "other-key"
        """
    )
    assert settings.nodes[0].slots == 3
    assert settings.nodes[0].api_key == Secret("engine-key")
    assert settings.nodes[1].api_key == Secret("other-key")


def test_paths_in_the_file_are_relative_to_the_file(directory: Path) -> None:
    (directory / "etc").mkdir()
    (directory / "etc" / "hub.toml").write_text('data_dir = "data"\nadmin_key_file = "key"')
    (directory / "etc" / "key").write_text("  secret\n")
    settings = load_settings(environ={"HIVE_CONFIG": "etc/hub.toml"})
    assert settings.data_dir == Path("etc/data")
    assert settings.admin_key == Secret("secret")


def test_a_key_from_a_higher_source_replaces_a_key_file_from_a_lower_one() -> None:
    settings = load('admin_key_file = "missing"', {"HIVE_ADMIN_KEY": "secret"})
    assert settings.admin_key == Secret("secret")
    assert settings.admin_key_file is None


def test_what_kubernetes_injects_is_ignored() -> None:
    environ = {"HIVE_PORT": "tcp://10.0.0.1:4483", "HIVE_SERVICE_HOST": "10.0.0.1", "HIVE_PORT_4483_TCP": "x"}
    assert load(environ=environ) == Settings()


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("queue_limit = 'many'", "queue_limit: expected an integer, got 'many' (in hive.toml)"),
        ("queue_limit = 0", "queue_limit: expected an integer from 1 to 1000000, got 0 (in hive.toml)"),
        ("queue_limit = '5'", "queue_limit: expected an integer, got '5' (in hive.toml)"),
        ("prot = 1", "hive.toml: unknown option 'prot' (did you mean 'port'?)"),
        ("xyzzy = 1", "hive.toml: unknown option 'xyzzy'"),
        ("open = 'no'", "open: expected true or false, got 'no' (in hive.toml)"),
        ("local_access = 'all'", "local_access: expected off or infer or manage, got 'all' (in hive.toml)"),
        (
            "head_timeout = 0",
            "head_timeout: expected a number of seconds above 0, at most 86400, got 0 (in hive.toml)",
        ),
        (
            "drain_timeout = inf",
            "drain_timeout: expected a number of seconds from 0 to 86400, got inf (in hive.toml)",
        ),
        ("origins = 'https://a'", "origins: expected a list of texts, got 'https://a' (in hive.toml)"),
        (
            "origins = ['a.org']",
            "origins: expected an origin such as https://chat.example.org or '*', got 'a.org' (in hive.toml)",
        ),
        (
            "trusted_proxies = ['10.0.0.1/8']",
            "trusted_proxies: expected an address or a network such as 10.0.0.0/8, got '10.0.0.1/8' (in hive.toml)",
        ),
        ("data_dir = ''", "data_dir: expected a text, got '' (in hive.toml)"),
        ("nodes = 'a=http://a'", "nodes: expected [[nodes]] tables, each with name and url (in hive.toml)"),
        ("[[nodes]]\nname = 'a'", "nodes: node 'a' has no url (in hive.toml)"),
        (
            "[[nodes]]\nname = 'a'\nurl = 'http://a'\nslot = 1",
            "node 'a' in hive.toml: unknown option 'slot' (did you mean 'slots'?)",
        ),
        (
            "[[nodes]]\nname = 'a'\nurl = 'http://a'\nslots = 'two'",
            "node 'a': slots: expected an integer, got 'two' (in hive.toml)",
        ),
    ],
)
def test_a_wrong_option_in_the_file_is_one_sentence_that_names_it(toml: str, said: str) -> None:
    assert sentence(toml) == said


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ("http://a", "nodes: expected NAME=URL, but there is no '=' (from --node)"),
        ("=http://a", "node '': expected a name of 1 to 63 letters"),
        ("a/b=http://a", "node 'a/b': expected a name of 1 to 63 letters"),
        ("a=ftp://a", "node 'a': url: expected http:// or https://, got 'ftp://a'"),
        ("a=10.0.0.5:11434", "node 'a': url: expected http:// or https://, got '10.0.0.5:11434'"),
        ("a=http://", "node 'a': url: expected a URL such as http://10.0.0.5:11434, got 'http://'"),
        (
            "a=http://a:99999",
            "node 'a': url: expected a URL such as http://10.0.0.5:11434, got 'http://a:99999'",
        ),
        ("a=http://a/v1", "node 'a': url: expected nothing after host and port, got 'http://a/v1'"),
        ("a=http://a?k=v", "node 'a': url: expected nothing after host and port"),
        ("a=http://a\tb", "node 'a': url: expected a URL such as http://10.0.0.5:11434 (from --node)"),
    ],
)
def test_a_wrong_node_is_one_sentence_that_names_it(node: str, said: str) -> None:
    assert sentence(flags={"nodes": [node]}).startswith(said)


def test_two_nodes_of_one_name_are_refused() -> None:
    said = sentence(environ={"HIVE_NODE": "a=http://a,A=http://b"})
    assert said == "node 'A': the name is given twice (from HIVE_NODE)"


def test_credentials_in_a_url_are_refused_and_not_shown() -> None:
    said = sentence(flags={"nodes": ["a=http://user:hunter2@a"]})
    assert said == "node 'a': url: holds credentials; use api_key or api_key_file (from --node)"


@pytest.mark.parametrize(
    ("toml", "environ"),
    [
        ("admin_key = 12345678", {}),
        ("admin_key = '12345678 '", {}),
        ("", {"HIVE_ADMIN_KEY": "12345678\u00e9"}),
        ("admin_key = '12345678'\nadmin_key_file = 'k'", {}),
        ("[[nodes]]\nname = 'a'\nurl = 'http://a'\napi_key = 12345678", {}),
        ("[[nodes]]\nname = 'a'\nurl = 'http://a'\napi_key = '12345678'\napi_key_file = 'k'", {}),
    ],
)
def test_a_wrong_secret_is_named_but_never_shown(toml: str, environ: Mapping[str, str]) -> None:
    said = sentence(toml, environ)
    assert "12345678" not in said
    assert "_key" in said


def test_a_secret_file_must_hold_something(directory: Path) -> None:
    (directory / "empty").write_text("\n")
    assert sentence(environ={"HIVE_ADMIN_KEY_FILE": "empty"}) == "admin_key_file: empty is empty"
    said = sentence(environ={"HIVE_ADMIN_KEY_FILE": "missing"})
    assert said == "admin_key_file: missing cannot be read (No such file or directory)"


def test_a_wrong_flag_and_a_wrong_variable_say_where_they_stood() -> None:
    said = sentence(environ={"HIVE_QUEUE_LIMIT": "many"})
    assert said == "queue_limit: expected an integer, got 'many' (from HIVE_QUEUE_LIMIT)"
    assert sentence(flags={"queue_limit": "many"}).endswith("(from --queue-limit)")


def test_a_bad_value_is_refused_even_where_a_higher_source_would_win() -> None:
    assert sentence("port = 'x'", flags={"port": "1"}).startswith("port: expected an integer")


def test_a_file_that_cannot_be_read_is_one_sentence(directory: Path) -> None:
    with pytest.raises(SettingsError, match=r"^missing\.toml: cannot be read \(No such file or directory\)$"):
        load_settings(config=Path("missing.toml"), environ={})
    assert sentence("port = = 1").startswith("hive.toml: is not TOML (")
    (directory / "hive.toml").write_bytes(b"host = '\xff'")
    assert sentence() == "hive.toml: is not UTF-8"


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "url", "slots"]), inner),
    max_leaves=5,
)


@given(name=st.sampled_from(sorted(set(OPTIONS) - {"admin_key_file"})), value=ANYTHING, text=st.text(max_size=20))
def test_whatever_a_source_holds_gives_settings_or_one_sentence(name: str, value: object, text: str) -> None:
    for environ, flags in (({OPTIONS[name].variable: text}, {}), ({}, {name: value})):
        try:
            load_settings(flags, environ=environ)
        except SettingsError as error:
            assert "\n" not in str(error)  # noqa: PT017 - settings are as good an end
            assert name in str(error) or "node" in str(error)  # noqa: PT017
    try:
        _read(name, value, _Origin("in hive.toml", is_typed=True))
    except SettingsError as error:
        assert "\n" not in str(error)  # noqa: PT017
