"""What `hive node` is told, and the sentence that says what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hive.config import Secret, SettingsError
from hive.node.agent_options import EngineAddress, Given, read_engine, read_options

HUB = "https://hub.example"
NEEDED = {"HIVE_HUB": HUB, "HIVE_KEY": "hk_environment"}


def test_flags_win_over_the_environment(tmp_path: Path) -> None:
    given = Given("hub:4483", "hk_flag", None, ("http://127.0.0.1:1",), "3", ("a=1",), tmp_path)
    environ = NEEDED | {"HIVE_ENGINE": "http://x:2", "HIVE_SLOTS": "9", "HIVE_LABEL": "b=2", "HIVE_CA_FILE": "/no"}
    options = read_options(given, environ)
    assert (options.hub, options.key) == ("http://hub:4483", Secret("hk_flag"))
    assert options.engines == (EngineAddress("127.0.0.1", 1),)
    assert (options.slots, options.labels, options.ca_file) == (3, {"a": "1"}, tmp_path)


def test_the_environment_says_the_rest() -> None:
    environ = NEEDED | {
        "HIVE_ENGINE": "a:1, http://b:2",
        "HIVE_SLOTS": "9",
        "HIVE_LABEL": "b=2,c=",
        "HIVE_CA_FILE": "/no",
    }
    options = read_options(Given(), environ)
    assert (options.hub, options.key) == (HUB, Secret("hk_environment"))
    assert options.engines == (EngineAddress("a", 1), EngineAddress("b", 2))
    assert (options.slots, options.labels, options.ca_file) == (9, {"b": "2", "c": ""}, Path("/no"))


def test_a_key_may_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("hk_file\n")
    assert read_options(Given(key_file=file), NEEDED).key == Secret("hk_file")
    assert read_options(Given(), {"HIVE_HUB": HUB, "HIVE_KEY_FILE": str(file)}).key == Secret("hk_file")


WRONG = {
    "no hub": (Given(key="hk_x"), {}, "--hub: the hub's URL is needed, here or in HIVE_HUB"),
    "no key": (Given(hub=HUB), {}, "--key-file: a worker key is needed"),
    "two keys": (Given(HUB, "hk_x", Path("y")), {}, "--key and --key-file: only one of them can be given"),
    "a hub of another kind": (Given("ftp://hub", "k"), {}, "--hub: expected http://HOST[:PORT]"),
    "a hub with a user": (Given("http://u:secret@hub", "k"), {}, "--hub: a URL without user"),
    "a hub that is no URL": (Given("http://[::1", "k"), {}, "--hub: "),
    "a key with a space": (Given(HUB, "hk secret"), {}, "--key: a key is printable ASCII"),
    "a key file that is not there": (Given(HUB, None, Path("/no/such")), {}, "--key-file: /no/such cannot be read"),
    "slots": (Given(HUB, "k", slots="many"), {}, "--slots: expected an integer from 1 to 4096, got 'many'"),
    "no slots": (Given(HUB, "k", slots="0"), {}, "--slots: expected an integer from 1 to 4096, got '0'"),
    "a label without value": (Given(HUB, "k", labels=("a",)), {}, "--label: expected NAME=VALUE"),
    "a label with a bell": (Given(HUB, "k", labels=("a=\a",)), {}, "--label: expected NAME=VALUE"),
    "a long label": (Given(HUB, "k", labels=("a=" + "b" * 200,)), {}, "--label: expected NAME=VALUE"),
    "an engine": (Given(HUB, "k", engines=("ftp://u:secret@x",)), {}, "--engine: expected a URL such as"),
    "an engine's port": (Given(HUB, "k", engines=("http://x:99999",)), {}, "--engine: expected a URL such as"),
    "an engine's query": (Given(HUB, "k", engines=("http://x/?a",)), {}, "--engine: expected a URL such as"),
    "an engine's path": (
        Given(HUB, "k", engines=("http://sk-secret@x:1/v1",)),
        {},
        "--engine: only scheme, host and port: expected nothing after them, got 'x:1/v1'",
    ),
    "a web socket": (Given("ws://hub", "k"), {}, "--hub: expected http://HOST[:PORT] or https://HOST[:PORT]"),
    "the clients' variable": (
        Given(HUB),
        {"HIVE_API_KEY": "hk_secret"},
        "--key-file: a worker key is needed, here, in HIVE_KEY or by --key (HIVE_API_KEY is for the client commands",
    ),
    "engines": (Given(HUB, "k", engines=tuple(f"x:{i}" for i in range(1, 67))), {}, "--engine: 66 engines, 64 at most"),
}


@pytest.mark.parametrize(("given", "environ", "sentence"), WRONG.values(), ids=list(WRONG))
def test_what_is_wrong_is_named_and_no_secret_shown(given: Given, environ: dict[str, str], sentence: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_options(given, environ)
    assert str(caught.value).startswith(sentence)
    assert "secret" not in str(caught.value)


ENGINES = {
    "127.0.0.1:11434": EngineAddress("127.0.0.1", 11434),
    "http://[::1]:8080/": EngineAddress("::1", 8080),
    "https://engine.example/": EngineAddress("engine.example", 443, True),
    "http://sk-1@h:1": EngineAddress("h", 1, credential=b"Authorization: Bearer sk-1\r\n"),
    "http://u:p%40@h:1": EngineAddress("h", 1, credential=b"Authorization: Basic dTpwQA==\r\n"),
}


@pytest.mark.parametrize(("text", "address"), ENGINES.items())
def test_an_engine_is_a_url_with_or_without_credentials(text: str, address: EngineAddress) -> None:
    assert read_engine(text) == address
    assert "sk-1" not in address.url + repr(address)


def test_one_credential_may_serve_all_engines_that_have_none() -> None:
    environ = NEEDED | {"HIVE_ENGINE_KEY": "sk-all", "HIVE_ENGINE": "http://a:1,http://own@b:2"}
    options = read_options(Given(), environ)
    assert [each.credential for each in options.engines] == [
        b"Authorization: Bearer sk-all\r\n",
        b"Authorization: Bearer own\r\n",
    ]
    assert options.engine_credential == b"Authorization: Bearer sk-all\r\n"
