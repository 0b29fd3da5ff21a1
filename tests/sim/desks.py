"""An engine's desk without sockets or clock, and what its routes decide."""

from __future__ import annotations

import json

from hive.sim.catalogue import Catalogue
from hive.sim.desk import SimDesk
from hive.sim.machine import SimMachine
from hive.sim.options import SimKind, SimOptions, ToolCall
from hive.sim.route_table import decide
from hive.sim.surfaces import SimReply
from hive.sim.voices import Speech, Timings
from hive.sim.wire import SimRequest
from hive.sim.words import Vocabulary, make_word
from hive.sim.work import Decision, Lines, Settlement, Utterance, Work

NOW_NS = 1_767_225_600_000_000_000
"""2026-01-01 00:00:00 UTC."""
TIMINGS = Timings(total=40, load=10, prompt=20, eval=30)
CALL = ToolCall("weather", {"city": "Köln"})
WORDS = Speech(7, [make_word(" one"), make_word(' "two"')], reason="length")
THOUGHT = Speech(7, [make_word(" one")], [make_word(" hm")])
CALLING = Speech(7, [make_word(" one")], call=CALL)


def clock() -> int:
    """Return the time of these tests, in nanoseconds since 1970."""
    return NOW_NS


def make_desk(*models: str, kind: SimKind = SimKind.OLLAMA, **options: object) -> SimDesk:
    """Return the desk of an engine with these models, the first one the newest."""
    chosen = SimOptions(models=models or ("tiny",), kind=kind, **options)  # type: ignore[arg-type]
    catalogue = Catalogue()
    for place, name in enumerate(chosen.models):
        catalogue.add(name, 1_767_225_600 - place)
    machine = SimMachine(chosen.slots, chosen.max_loaded, chosen.max_queue, chosen.load_time, chosen.keep_alive)
    return SimDesk(chosen, catalogue, machine, Vocabulary(chosen.seed), clock)


def make_request(path: str, body: object = None, method: str = "", **headers: str) -> SimRequest:
    """Return a request as the engine reads it."""
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return SimRequest(method or ("GET" if body is None else "POST"), path, fields, body=bytearray(data))


def decided(desk: SimDesk, path: str, body: object = None, method: str = "", **headers: str) -> Decision:
    """Return what the engine decides to do about a request."""
    return decide(desk, make_request(path, body, method, **headers))


def reply(desk: SimDesk, path: str, body: object = None, method: str = "", **headers: str) -> SimReply:
    """Return the answer to a request that needs no model, or the answer of one that works in an instant."""
    decision = decided(desk, path, body, method, **headers)
    if isinstance(decision, Work):
        assert isinstance(decision.task, Settlement)
        return decision.task.reply(TIMINGS)
    assert isinstance(decision, SimReply)
    return decision


def shown(desk: SimDesk, path: str, body: object = None, method: str = "") -> dict[str, object]:
    """Return the JSON of an answer that is no error."""
    answer = reply(desk, path, body, method)
    assert answer.status == 200, answer
    decoded: dict[str, object] = json.loads(answer.body)
    return decoded


def refused(desk: SimDesk, path: str, body: object = None, method: str = "") -> tuple[int, object]:
    """Return the status and the words of an error."""
    answer = reply(desk, path, body, method)
    error = json.loads(answer.body)["error"]
    return answer.status, error["message"] if isinstance(error, dict) else error


def spoken(desk: SimDesk, path: str, body: object) -> Utterance:
    """Return the speech that a request is answered with."""
    decision = decided(desk, path, body)
    assert isinstance(decision, Work), decision
    assert isinstance(decision.task, Utterance)
    return decision.task


def lines(desk: SimDesk, path: str, body: object) -> list[dict[str, object]]:
    """Return the lines of a pull or the like."""
    decision = decided(desk, path, body)
    assert isinstance(decision, Lines), decision
    return [json.loads(line) for line in decision.frames]


def events(data: bytes) -> list[tuple[str, dict[str, object]]]:
    """Return the events of a stream: names, "" for none, and JSON; `[DONE]` is left out."""
    found = []
    for block in data.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        if fields and fields["data"] != "[DONE]":
            found.append((fields.get("event", ""), json.loads(fields["data"])))
    return found
