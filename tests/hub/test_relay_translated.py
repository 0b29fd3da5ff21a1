"""An answer that is translated on its way: Ollama's lines become events, played by a translator of a few lines."""

from __future__ import annotations

import json

import pytest

from hive import errors
from hive.dialects.error_shapes import ERRORS
from hive.dialects.tasks import CHAT, Dialect
from hive.fleet.kinds import EngineKind
from hive.hub.answer import Answer
from hive.hub.relay import Relay, RelayLimits, Result
from hive.wire.responses import ResponseHead

from .client_wire import ClientWire

LIMITS = RelayLimits(held_answer_bytes=400, held_line_bytes=50)


class Events:
    """Translates lines of /api/generate: their text two by two, nothing for a line without, an end of its own."""

    def __init__(self) -> None:
        self.held = ""
        self.needs_whole_units = True

    def content_type(self, engines: bytes) -> bytes:
        return b"text/event-stream" if engines == b"application/x-ndjson" else engines

    def units(self, units: bytes) -> bytes:
        events = b""
        for line in units.splitlines():
            self.held += json.loads(line).get("response", "")
            if len(self.held) >= 2:
                events, self.held = events + b"data: %b\n\n" % self.held.encode(), ""
        return events

    def end(self) -> bytes:
        return (b"data: %b\n\n" % self.held.encode() if self.held else b"") + b"data: [DONE]\n\n"

    def whole(self, body: bytes) -> bytes:
        return b'{"text":%b}' % json.dumps(json.loads(body)["response"]).encode()


class Scene:
    """One attempt on an Ollama for a client that reads OpenAI's dialect."""

    def __init__(self, content_type: bytes = b"application/x-ndjson") -> None:
        self.wire = ClientWire()
        answer = Answer(self.wire.stream(), ERRORS[Dialect.OPENAI])
        kind = EngineKind.OLLAMA
        self.answer = answer
        self.relay = Relay(answer, lambda: 0.0, Dialect.OLLAMA, CHAT, kind, LIMITS, Events())
        self.relay.on_head(ResponseHead(200, [(b"content-type", content_type)], content_type, None, True))

    def say(self, *texts: str, done: bool = False) -> None:
        lines = [json.dumps({"response": text, "done": False}) + "\n" for text in texts]
        if done:
            lines.append('{"response":"","done":true}\n')
        for line in lines:
            self.relay.on_body(line.encode())


def test_units_become_fewer_units_and_an_end() -> None:
    scene = Scene()
    scene.say("a")
    assert scene.wire.sent == b"", "it has no meaning yet"
    assert not scene.answer.has_begun
    scene.say("b", "c", "d", "e", done=True)
    scene.relay.on_complete()
    assert scene.wire.body == b"data: ab\n\ndata: cd\n\ndata: e\n\ndata: [DONE]\n\n"
    assert b"Content-Type: text/event-stream\r\n" in scene.wire.sent
    assert scene.relay.finished.value is Result.DELIVERED


def test_several_units_in_one_piece_are_translated_together() -> None:
    scene = Scene()
    scene.relay.on_body(b'{"response":"ab"}\n{"response":"cd"}\n{"response":"","done":true}\n')
    scene.relay.on_complete()
    assert scene.wire.body == b"data: ab\n\ndata: cd\n\ndata: [DONE]\n\n"


def test_an_answer_without_any_text_is_its_end_alone() -> None:
    scene = Scene()
    scene.say(done=True)
    assert scene.wire.sent == b""
    scene.relay.on_complete()
    assert scene.wire.body == b"data: [DONE]\n\n"
    assert scene.wire.is_answered


def test_what_breaks_off_before_anything_was_said_can_move_elsewhere() -> None:
    scene = Scene()
    scene.say("a")
    scene.relay.on_failure(errors.NODE_BROKE_OFF, "it broke")
    assert (scene.relay.finished.value, scene.wire.sent) == (Result.FAILED, b"")


def test_what_breaks_off_later_ends_in_the_clients_dialect() -> None:
    scene = Scene()
    scene.say("ab")
    scene.relay.on_failure(errors.NODE_BROKE_OFF, "it broke")
    assert scene.relay.fault is not None
    scene.answer.tell(scene.relay.fault)
    first, second = scene.wire.body.split(b"\n\n")[:2]
    assert first == b"data: ab"
    assert json.loads(second.removeprefix(b"data: "))["error"]["message"] == "it broke"


def test_an_answer_in_one_piece_is_translated_whole() -> None:
    scene = Scene(b"application/json")
    scene.relay.on_body(b'{"response":"a b",')
    scene.relay.on_body(b'"done":true}')
    scene.relay.on_complete()
    assert scene.wire.body == b'{"text":"a b"}'
    assert b"Content-Length: 14\r\n" in scene.wire.sent


def test_a_line_that_is_longer_than_others_are_held_is_seen_whole() -> None:
    scene = Scene()
    line = b'{"response":"%b","done":true}\n' % (b"x" * 100)
    scene.relay.on_body(line[:90])
    scene.relay.on_body(line[90:])
    scene.relay.on_complete()
    assert scene.wire.body == b"data: %b\n\ndata: [DONE]\n\n" % (b"x" * 100)


@pytest.mark.parametrize("content_type", [b"application/x-ndjson", b"application/json"])
def test_what_is_too_long_to_be_seen_whole_fails(content_type: bytes) -> None:
    scene = Scene(content_type)
    scene.relay.on_body(b'{"response":"' + b"x" * 400)
    assert scene.relay.fault is not None
    assert scene.relay.fault.kind is errors.NODE_GARBLED
    assert scene.wire.sent == b""
