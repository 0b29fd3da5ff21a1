"""What engines list, read as it is; what the hub lists of the whole fleet, in Ollama's and OpenAI's form."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hive.fleet.engines import Engine, Fleet, Health
from hive.fleet.kinds import EngineKind
from hive.fleet.known import EngineReport
from hive.fleet.listings import Catalog, UnreadableListing, read_ps, read_tags, read_v1_models

# Entries of Ollama 0.33.0-rc2 and of llama-server b11434, from the transcripts.
TAGS_ENTRY = (
    '{"name":"tiny-think:latest","model":"tiny-think:latest","modified_at":"2026-11-20T20:55:56.736282187Z",'
    '"size":1210057,"digest":"bac3e5611733ab14d3926c6356adebfa56b9faa16e2c2a00d9c1283904f65b14","details":{'
    '"parent_model":"","format":"gguf","family":"llama","families":["llama"],"parameter_size":"589K",'
    '"quantization_level":"F16","context_length":4096,"embedding_length":128},"capabilities":["completion","tools"]}'
)
PS_ENTRY = (
    '{"name":"tiny-babble:latest","model":"tiny-babble:latest","size":4791990,"digest":"e6b62b658d49","details":{},'
    '"expires_at":"2026-11-20T21:00:57.24162896Z","size_vram":0,"context_length":2048}'
)
LLAMA_CPP = (
    b'{"models":[{"name":"tiny-babble","model":"tiny-babble","modified_at":"","size":"","digest":"","type":"model"}],'
    b'"object":"list","data":[{"id":"tiny-babble","aliases":["tiny-babble"],"tags":[],"object":"model",'
    b'"created":1795192145,"owned_by":"llamacpp","meta":{"n_ctx":2048,"n_params":218048}}]}'
)
VLLM = (
    b'{"object":"list","data":[{"id":"Qwen/Qwen2.5-7B","object":"model","created":1700000000,"owned_by":"vllm",'
    b'"root":"Qwen/Qwen2.5-7B","parent":null,"max_model_len":32768,"permission":[]}]}'
)


def listing(*entries: str, key: str = "models") -> bytes:
    return f'{{"{key}":[{",".join(entries)}]}}'.encode()


def tags_entry(name: str, modified_at: str = "2026-11-20T20:00:00Z", **more: object) -> str:
    return json.dumps({"name": name, "model": name, "modified_at": modified_at, "size": 1, "digest": "d" * 64, **more})


def ps_entry(name: str, expires_at: str) -> str:
    return json.dumps({"name": name, "model": name, "expires_at": expires_at, "size": 1})


def fleet_of(*reports: tuple[bytes, bytes]) -> tuple[Fleet, list[Engine], Catalog]:
    """A fleet of Ollamas, each with its answers to /api/tags and /api/ps."""
    engines = [Engine(f"n{number}", f"http://n{number}", health=Health.READY) for number in range(len(reports))]
    fleet = Fleet(engines)
    for engine, (tags, ps) in zip(engines, reports, strict=True):
        fleet.learn(engine, EngineReport(EngineKind.OLLAMA, "0.33.0", read_tags(tags), read_ps(ps)))
    return fleet, engines, Catalog(fleet)


def names(answer: bytes, key: str = "models", field: str = "name") -> list[str]:
    return [entry[field] for entry in json.loads(answer)[key]]


def test_the_models_of_an_ollama_are_read() -> None:
    (model,) = read_tags(listing(TAGS_ENTRY))
    assert (model.key, model.id, model.size_bytes) == ("tiny-think:latest", "tiny-think:latest", 1210057)
    assert model.digest == "bac3e5611733ab14d3926c6356adebfa56b9faa16e2c2a00d9c1283904f65b14"
    assert (model.modified_at, model.tags.decode()) == ("2026-11-20T20:55:56.736282187Z", TAGS_ENTRY)
    (loaded,) = read_ps(listing(PS_ENTRY))
    assert (loaded.key, loaded.expires_at) == ("tiny-babble:latest", "2026-11-20T21:00:57.24162896Z")
    assert loaded.ps.decode() == PS_ENTRY


def test_an_ollama_s_model_looks_in_v1_as_ollama_shows_it() -> None:
    """37-v1-models.txt: `owned_by` is the namespace, `created` the time of change."""
    models = read_tags(listing(TAGS_ENTRY, tags_entry("hf.co/bob/m:q4", "2026-11-20T22:55:56.5+02:00")))
    assert [json.loads(model.listed) for model in models] == [
        {"id": "tiny-think:latest", "object": "model", "created": 1795208156, "owned_by": "library"},
        {"id": "hf.co/bob/m:q4", "object": "model", "created": 1795208156, "owned_by": "bob"},
    ]


@pytest.mark.parametrize(("body", "kind"), [(LLAMA_CPP, EngineKind.LLAMA_CPP), (VLLM, EngineKind.VLLM)])
def test_a_model_of_another_engine_is_listed_in_ollama_s_form(body: bytes, kind: EngineKind) -> None:
    (model,), (loaded,) = read_v1_models(body, kind)
    listed = json.loads(body)["data"][0]
    tags, ps = json.loads(model.tags), json.loads(loaded.ps)
    assert (model.id, model.key) == (listed["id"], listed["id"].lower() + ":latest")
    assert json.loads(model.listed) == listed
    assert tags["name"] == tags["model"] == model.id
    assert re.fullmatch("[0-9a-f]{64}", tags["digest"])
    assert tags.keys() == json.loads(TAGS_ENTRY).keys() - {"capabilities"}
    assert {"name", "model", "size", "digest", "details", "expires_at", "size_vram"} <= ps.keys()
    assert loaded.key == model.key


def test_digests_that_are_made_up_tell_models_apart_and_stay() -> None:
    def digest(kind: EngineKind, name: str) -> str:
        return read_v1_models(listing(json.dumps({"id": name}), key="data"), kind)[0][0].digest

    assert digest(EngineKind.VLLM, "m") == digest(EngineKind.VLLM, "m")
    assert len({digest(kind, name) for kind in (EngineKind.VLLM, EngineKind.LLAMA_CPP) for name in "mn"}) == 4


@pytest.mark.parametrize("body", [b'{"models":null}', b'{"models":[]}', b"{}"])
def test_an_empty_list_is_a_list(body: bytes) -> None:
    assert read_tags(body) == ()
    assert read_ps(body) == ()


def test_openai_s_null_is_an_empty_list() -> None:
    for body in (b'{"object":"list","data":null}', b'{"data":[]}'):
        assert read_v1_models(body, EngineKind.OPENAI) == ((), ())


UNREADABLE = [
    b"",
    b"nonsense",
    b"[]",
    b"null",
    b'{"models":5}',
    b'{"models":{}}',
    b'{"models":[',
    b"<html></html>",
    b"\xff",
]


@pytest.mark.parametrize("body", [*UNREADABLE, b'{"models":' + b"[" * 100_000])
def test_an_answer_that_is_no_list_is_unreadable(body: bytes) -> None:
    with pytest.raises(UnreadableListing):
        read_tags(body)
    with pytest.raises(UnreadableListing):
        read_ps(body)
    with pytest.raises(UnreadableListing):
        read_v1_models(body.replace(b"models", b"data"), EngineKind.OPENAI)


ODD = [
    "5",
    "null",
    "[]",
    "{}",
    '{"name":""}',
    '{"name":5}',
    '{"name":"a\\nb"}',
    '{"name":"' + "x" * 5000 + '"}',
]


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_entry_costs_no_other_its_place(odd: str) -> None:
    assert [model.key for model in read_tags(listing(odd, TAGS_ENTRY, odd))] == ["tiny-think:latest"]
    assert [loaded.key for loaded in read_ps(listing(odd, PS_ENTRY))] == ["tiny-babble:latest"]
    v1 = listing(odd.replace("name", "id"), '{"id":"m"}', key="data")
    assert [model.key for model in read_v1_models(v1, EngineKind.VLLM)[0]] == ["m:latest"]


@given(st.binary(max_size=50), st.integers(0, 400), st.integers(0, 10))
@example(b"\x80", 20, 0)
@settings(deadline=None, max_examples=200)
def test_damaged_lists_are_read_or_unreadable(more: bytes, place: int, count: int) -> None:
    tags = listing(TAGS_ENTRY)
    for body, read in (
        (tags, read_tags),
        (listing(PS_ENTRY), read_ps),
        (VLLM, lambda b: read_v1_models(b, EngineKind.VLLM)),
    ):
        damaged = body[:place] + more + body[place + count :]
        try:
            found = len(read(damaged))
        except UnreadableListing:
            found = 0
        assert found <= 2


def test_an_empty_fleet_lists_no_model() -> None:
    catalog = Catalog(Fleet())
    assert (catalog.tags(), catalog.ps()) == (b'{"models":[]}', b'{"models":[]}')
    assert json.loads(catalog.v1_models()) == {"object": "list", "data": []}
    assert catalog.v1_model("m") is None


def test_entries_come_through_as_the_engine_wrote_them() -> None:
    newer = TAGS_ENTRY[:-1] + ',"field_of_tomorrow":{"a":[1, 2.50]}}'
    _, _, catalog = fleet_of((listing(newer), listing(PS_ENTRY)))
    assert catalog.tags().decode() == '{"models":[' + newer + "]}"
    assert catalog.ps().decode() == '{"models":[' + PS_ENTRY + "]}"


def test_a_list_has_one_entry_a_model_the_newest_first() -> None:
    a, b = tags_entry("a:latest", "2026-04-01T00:00:00Z"), tags_entry("b:latest", "2026-03-01T00:00:00Z")
    c, d = tags_entry("c:latest", "2026-02-01T00:00:00Z"), tags_entry("D:latest", "2026-01-01T00:00:00Z")
    _, _, catalog = fleet_of((listing(c, a), listing()), (listing(a, d, b), listing()))
    assert names(catalog.tags()) == ["a:latest", "b:latest", "c:latest", "D:latest"]
    assert names(catalog.v1_models(), "data", "id") == ["a:latest", "b:latest", "c:latest", "D:latest"]


def test_of_a_model_on_several_engines_the_newest_engine_s_entry_is_shown() -> None:
    """It says more of it: 0.33.0 knows context lengths and capabilities."""
    engines = [Engine(version, f"http://{version}", health=Health.READY) for version in ("0.9.3", "0.33.0", "0.24.0")]
    fleet = Fleet(engines)
    for engine in engines:
        tags = read_tags(listing(tags_entry("m:latest", by=engine.node)))
        fleet.learn(engine, EngineReport(EngineKind.OLLAMA, engine.node, tags, ()))
    (entry,) = json.loads(Catalog(fleet).tags())["models"]
    assert entry["by"] == "0.33.0"


def test_the_newest_model_is_first_in_any_time_zone() -> None:
    """Ollama writes local time with its offset, and nodes stand in different places."""
    east = tags_entry("east:latest", "2026-11-20T23:00:00.5+09:00")
    west = tags_entry("west:latest", "2026-11-20T08:00:00.5-07:00")
    _, _, catalog = fleet_of((listing(east), listing()), (listing(west), listing()))
    assert names(catalog.tags()) == ["west:latest", "east:latest"]


def test_loaded_models_are_listed_once_the_longest_expiry_first() -> None:
    short, long = ps_entry("a:latest", "2026-11-20T21:00:00Z"), ps_entry("b:latest", "2318-11-21T00:00:00Z")
    longer = ps_entry("a:latest", "2026-11-20T22:00:00Z")
    _, _, catalog = fleet_of((listing(), listing(short, long)), (listing(), listing(longer)))
    assert names(catalog.ps()) == ["b:latest", "a:latest"]
    assert names(catalog.ps(), field="expires_at") == ["2318-11-21T00:00:00Z", "2026-11-20T22:00:00Z"]


def test_models_of_a_down_engine_are_not_listed_and_those_of_a_suspect_one_are() -> None:
    fleet, engines, catalog = fleet_of((listing(tags_entry("a:1")), listing()), (listing(tags_entry("b:1")), listing()))
    fleet.set_health(engines[0], Health.DOWN)
    fleet.set_health(engines[1], Health.SUSPECT)
    assert names(catalog.tags()) == ["b:1"]
    fleet.set_health(engines[0], Health.READY)
    assert names(catalog.tags()) == ["a:1", "b:1"] or names(catalog.tags()) == ["b:1", "a:1"]


@pytest.mark.parametrize("asked", ["tiny-think", "Tiny-Think:Latest", "library/tiny-think", "tiny-think:latest"])
def test_a_model_is_found_by_any_of_its_names_and_its_entry_echoes_the_asked_name(asked: str) -> None:
    _, _, catalog = fleet_of((listing(TAGS_ENTRY), listing()))
    found = catalog.v1_model(asked)
    assert found is not None
    assert json.loads(found) == {"id": asked, "object": "model", "created": 1795208156, "owned_by": "library"}
    assert catalog.v1_model("tiny-think:other") is None


def test_a_listing_follows_what_engines_report() -> None:
    fleet, engines, catalog = fleet_of((listing(tags_entry("a:1")), listing()))
    before = catalog.tags()
    assert catalog.tags() is before
    fleet.learn(engines[0], EngineReport(EngineKind.OLLAMA, "0.33.0", read_tags(listing(tags_entry("b:1"))), ()))
    assert names(catalog.tags()) == ["b:1"]
    assert catalog.v1_model("a:1") is None


def test_a_model_that_an_ollama_passes_on_is_remote() -> None:
    body = b'{"models":[{"name":"big:cloud","remote_host":"https://ollama.com","remote_model":"big"},{"name":"m"}]}'
    assert [model.is_remote for model in read_tags(body)] == [True, False]
