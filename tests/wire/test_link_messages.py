"""The messages of a link as JSON, and which ones are refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hive.wire.link_messages import (
    FIRST,
    FROM_HUB,
    FROM_HUB_DATA,
    FROM_NODE,
    FROM_NODE_DATA,
    NOTHING,
    Accepted,
    Beat,
    Bye,
    Cancel,
    Draining,
    EndCode,
    Ended,
    EndError,
    EngineBeat,
    Gpu,
    Heartbeat,
    Hello,
    JoinData,
    Links,
    MachineState,
    Message,
    MessageDecoder,
    Open,
    Refresh,
    Report,
    ReportedEngine,
    Welcome,
    encode,
    json_object,
    one_line,
)
from hive.wire.link_rules import MAX_LINKS, LinkError

DECODERS: list[MessageDecoder[Any]] = [FIRST, FROM_NODE, FROM_HUB, FROM_NODE_DATA, FROM_HUB_DATA]
INSTANCE = "0123456789abcdef"
SESSION = "s" * 43
MACHINE = MachineState(0.5, 64, 32, 1000, (Gpu("RTX 4090", 24, 12, 0.25),))
MACHINE_TEXT = (
    '{"cpu":0.5,"memory_total_bytes":64,"memory_used_bytes":32,"disk_free_bytes":1000,"gpus":[{"name":"RTX 4090",'
    '"memory_total_bytes":24,"memory_used_bytes":12,"utilization":0.25}]}'
)
OLLAMA = ReportedEngine(
    "ollama", "ollama", "0.33.0", "http://127.0.0.1:11434", tags=json_object(b'{"models": [ ], "new":1}')
)
OLLAMA_TEXT = (
    '{"id":"ollama","kind":"ollama","version":"0.33.0","address":"http://127.0.0.1:11434","slots":null,'
    '"is_alive":true,"is_silent":false,"error":"","tags":{"models": [ ], "new":1},"ps":null,"v1_models":null}'
)
HEARTBEAT = Heartbeat(7, MACHINE, {"ollama": EngineBeat(True, 1.5), "vllm": EngineBeat(False, None, True)})
MESSAGES: list[tuple[MessageDecoder[Any], Message, str]] = [
    (
        FIRST,
        Hello(INSTANCE, "hive 0.1.0", "Linux x86_64", {"room": "lab é"}, (OLLAMA,), MACHINE),
        f'{{"type":"hello","instance":"{INSTANCE}","agent":"hive 0.1.0","platform":"Linux x86_64",'
        f'"labels":{{"room":"lab é"}},"engines":[{OLLAMA_TEXT}],"machine":{MACHINE_TEXT}}}',
    ),
    (FIRST, JoinData(SESSION), f'{{"type":"data","session":"{SESSION}"}}'),
    (FROM_NODE, Report((OLLAMA,)), f'{{"type":"report","engines":[{OLLAMA_TEXT}]}}'),
    (
        FROM_NODE,
        HEARTBEAT,
        f'{{"type":"heartbeat","seq":7,"machine":{MACHINE_TEXT},"engines":{{"ollama":{{"alive":true,"idle_s":1.5,'
        '"stopped":false},"vllm":{"alive":false,"idle_s":null,"stopped":true}}}',
    ),
    (FROM_NODE, Draining(), '{"type":"draining"}'),
    (
        FROM_HUB,
        Welcome("desk", SESSION, 2.0, 15.0, 8),
        f'{{"type":"welcome","node":"desk","session":"{SESSION}","heartbeat_s":2.0,"ping_s":15.0,"links":8}}',
    ),
    (FROM_HUB, Links(12), '{"type":"links","want":12}'),
    (FROM_HUB, Beat(7), '{"type":"beat","seq":7}'),
    (FROM_HUB, Refresh("ollama"), '{"type":"refresh","engine":"ollama"}'),
    (FROM_HUB, Bye("the hub stops"), '{"type":"bye","reason":"the hub stops"}'),
    (FROM_HUB_DATA, Open("r-1_A", "ollama"), '{"type":"open","id":"r-1_A","engine":"ollama"}'),
    (FROM_HUB_DATA, Cancel("r1"), '{"type":"cancel","id":"r1"}'),
    (FROM_NODE_DATA, Accepted("r1"), '{"type":"accepted","id":"r1"}'),
    (FROM_NODE_DATA, Ended("r1"), '{"type":"ended","id":"r1","error":null}'),
    (
        FROM_NODE_DATA,
        Ended("r1", EndError(EndCode.ENGINE_UNKNOWN, "no engine 'a'")),
        '{"type":"ended","id":"r1","error":{"code":"engine_unknown","message":"no engine \'a\'"}}',
    ),
]
IDS = [f"{type(message).__name__}{number}" for number, (_, message, _) in enumerate(MESSAGES)]


@pytest.mark.parametrize(("decoder", "message", "text"), MESSAGES, ids=IDS)
def test_each_message_has_this_json(decoder: MessageDecoder[Any], message: Message, text: str) -> None:
    assert encode(message).decode() == text
    read = decoder.decode(text)
    assert (type(read), encode(read)) == (type(message), text.encode())


@pytest.mark.parametrize(("decoder", "text"), [(d, text) for d, _, text in MESSAGES], ids=IDS)
def test_fields_of_a_newer_version_are_ignored(decoder: MessageDecoder[Any], text: str) -> None:
    newer = text[:-1] + ',"new":{"a":[1,null]}}'
    assert encode(decoder.decode(newer)) == text.encode()


@pytest.mark.parametrize("decoder", DECODERS)
def test_types_of_a_newer_version_are_ignored(decoder: MessageDecoder[Any]) -> None:
    assert decoder.decode('{"type":"new","id":7}') is None


def test_a_message_of_the_other_side_is_not_ignored_as_newer() -> None:
    for decoder, _, text in MESSAGES:
        for other in DECODERS:
            if other is not decoder:
                with pytest.raises(LinkError, match="type"):
                    other.decode(text)


def test_an_engines_answer_arrives_byte_for_byte() -> None:
    report = FROM_NODE.decode(encode(Report((OLLAMA,))).decode())
    assert isinstance(report, Report)
    assert bytes(report.engines[0].tags) == b'{"models": [ ], "new":1}'
    assert bytes(report.engines[0].ps) == b"null"


def hello(**fields: object) -> str:
    return json.dumps({"type": "hello", "instance": INSTANCE, "agent": "a", **fields})


def engine(**fields: object) -> str:
    return json.dumps({"type": "report", "engines": [{"id": "a", "kind": "ollama", **fields}]})


def heartbeat(**fields: object) -> str:
    return json.dumps({"type": "heartbeat", "seq": 1, **fields})


def welcome(**fields: object) -> str:
    return json.dumps(
        {"type": "welcome", "node": "a", "session": SESSION, "heartbeat_s": 2, "ping_s": 15, "links": 5, **fields}
    )


DEEP = "[" * 100_000 + "]" * 100_000
REFUSED: dict[str, tuple[MessageDecoder[Any], str, str]] = {
    "nothing": (FIRST, "", "truncated"),
    "not JSON": (FIRST, "hello", "malformed"),
    "an array": (FIRST, "[]", "object"),
    "no type": (FROM_NODE, "{}", "type"),
    "type is a number": (FROM_NODE, '{"type":1}', "type"),
    "two messages": (FROM_NODE, '{"type":"draining"}{}', "trailing"),
    "NaN": (FROM_NODE, '{"type":"heartbeat","seq":NaN}', "malformed"),
    "half a surrogate": (FROM_HUB, '{"type":"bye","reason":"\\ud800"}', "."),
    "nested too deeply": (FROM_NODE, '{"type":"draining","new":' + DEEP + "}", "deep"),
    "listing nested too deeply": (FROM_NODE, engine().replace('"a"', '"a","tags":' + DEEP), "deep"),
    "no instance": (FIRST, '{"type":"hello","agent":"a"}', "instance"),
    "short instance": (FIRST, hello(instance="0123"), "instance"),
    "instance that is not hex": (FIRST, hello(instance="g" * 16), "instance"),
    "instance with a line feed": (FIRST, hello(instance=INSTANCE + "\n"), "instance"),
    "long agent": (FIRST, hello(agent="a" * 129), "agent"),
    "agent with an escape": (FIRST, hello(agent="\x1b[31m"), "agent"),
    "platform with a C1 control": (FIRST, hello(platform="\x9b"), "platform"),
    "65 labels": (FIRST, hello(labels={f"{n}": "" for n in range(65)}), "labels"),
    "long label": (FIRST, hello(labels={"a": "b" * 129}), "labels"),
    "long name of a label": (FIRST, hello(labels={"a" * 129: "b"}), "labels"),
    "label that is a number": (FIRST, hello(labels={"a": 1}), "labels"),
    "65 engines": (FIRST, hello(engines=[{"id": f"{n}", "kind": "a"} for n in range(65)]), "engines"),
    "the same engine twice": (FIRST, hello(engines=[{"id": "a", "kind": "a"}] * 2), "twice"),
    "the same engine twice in a report": (FROM_NODE, engine().replace("}]", '},{"id":"a","kind":"b"}]'), "twice"),
    "id in capitals": (FROM_NODE, engine(id="A"), "id"),
    "empty id": (FROM_NODE, engine(id=""), "id"),
    "long id": (FROM_NODE, engine(id="a" * 33), "id"),
    "no slots": (FROM_NODE, engine(slots=0), "slots"),
    "half a slot": (FROM_NODE, engine(slots=1.5), "slots"),
    "two lines of error": (FROM_NODE, engine(error="a\nb"), "error"),
    "listing that is an array": (FROM_NODE, engine(tags=[]), "tags"),
    "listing that is a string": (FROM_NODE, engine(v1_models="{}"), "v1_models"),
    "listing that is a word": (FROM_NODE, engine().replace('"a"', '"a","ps":nulx'), "malformed"),
    "negative bytes": (FROM_NODE, heartbeat(machine={"disk_free_bytes": -1}), "disk_free_bytes"),
    "bytes beyond 2^53": (FROM_NODE, heartbeat(machine={"memory_used_bytes": 1 << 53}), "memory_used_bytes"),
    "more than all of a CPU": (FROM_NODE, heartbeat(machine={"cpu": 1.5}), "cpu"),
    "65 GPUs": (FROM_NODE, heartbeat(machine={"gpus": [{"name": "", "memory_total_bytes": 1}] * 65}), "gpus"),
    "65 beats": (FROM_NODE, heartbeat(engines={f"{n}": {"alive": True} for n in range(65)}), "engines"),
    "beat of no engine": (FROM_NODE, heartbeat(engines={"A": {"alive": True}}), "engines"),
    "alive is a number": (FROM_NODE, heartbeat(engines={"a": {"alive": 1}}), "alive"),
    "negative seq": (FROM_HUB, '{"type":"beat","seq":-1}', "seq"),
    "guessable session": (FROM_HUB, welcome(session="1"), "session"),
    "heartbeats without pause": (FROM_HUB, welcome(heartbeat_s=0), "heartbeat_s"),
    "a ping an hour": (FROM_HUB, welcome(ping_s=3600), "ping_s"),
    "too many links": (FROM_HUB, welcome(links=MAX_LINKS + 1), "links"),
    "id with a space": (FROM_HUB_DATA, '{"type":"open","id":"a b","engine":"a"}', "id"),
    "long id of an exchange": (FROM_NODE_DATA, '{"type":"accepted","id":"%s"}' % ("a" * 65), "id"),
    "error without code": (FROM_NODE_DATA, '{"type":"ended","id":"a","error":{}}', "code"),
}


@pytest.mark.parametrize(("decoder", "text", "named"), REFUSED.values(), ids=REFUSED.keys())
def test_the_refusal_of_a_malformed_message_names_the_part(decoder: MessageDecoder[Any], text: str, named: str) -> None:
    with pytest.raises(LinkError, match=named) as caught:
        decoder.decode(text)
    assert len(str(caught.value)) <= 120


def test_optional_fields_may_be_missing() -> None:
    assert FIRST.decode(f'{{"type":"hello","instance":"{INSTANCE}","agent":""}}') == Hello(INSTANCE, "")
    assert FROM_NODE.decode('{"type":"heartbeat","seq":0}') == Heartbeat(0)
    assert FROM_NODE_DATA.decode('{"type":"ended","id":"a"}') == Ended("a")


def test_an_unknown_end_code_is_read_as_text() -> None:
    read = FROM_NODE_DATA.decode('{"type":"ended","id":"a","error":{"code":"engine_on_fire"}}')
    assert read == Ended("a", EndError("engine_on_fire"))


def test_a_listing_is_the_engines_answer_if_that_is_an_object() -> None:
    assert bytes(json_object(b'\n {"a": [1, 2.50]} ')) == b'{"a": [1, 2.50]}'
    for body in (
        b"",
        b"[]",
        b"null",
        b"{",
        b"{}x",
        b'{"a":"\xff"}',
        b'{"a":"\\ud800"}',
        b'{"a":' + DEEP.encode() + b"}",
    ):
        assert json_object(body) is NOTHING


def test_one_line_can_always_be_sent() -> None:
    assert one_line("connection\nrefused\t\x1b[0m\x85é") == "connection refused  [0m é"
    assert one_line("a" * 2000) == "a" * 1024


@given(st.text())
def test_the_text_of_one_line_is_accepted(text: str) -> None:
    sent = encode(
        Report((ReportedEngine("a", "ollama", error=one_line(text.encode(errors="replace").decode())),))
    ).decode()
    assert FROM_NODE.decode(sent) is not None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(["type", "id", "engines", "machine", "seq", "labels", "session", "error", "tags", "links"])
TYPES = st.sampled_from(["hello", "data", "report", "heartbeat", "welcome", "open", "accepted", "ended", "new"])
OBJECTS = st.builds(lambda kind, rest: {**rest, "type": kind}, TYPES, st.dictionaries(FIELDS, JSON, max_size=6))


@given(st.one_of(st.text(), OBJECTS.map(json.dumps), JSON.map(json.dumps)), st.sampled_from(DECODERS))
@settings(deadline=None, max_examples=500)
def test_nothing_but_link_errors_is_raised(text: str, decoder: MessageDecoder[Any]) -> None:
    try:
        decoder.decode(text.encode(errors="replace").decode())
    except LinkError:
        pass
