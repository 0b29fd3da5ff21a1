"""A further surface on a further listener: it is a value, and nothing else knows of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import pytest

from hive.auth.keys import Right
from hive.config import LocalAccess
from hive.dialects import tasks
from hive.dialects.error_shapes import DialectErrors, ErrorShapes
from hive.dialects.routes import Answered, Methods, Route, RouteTable
from hive.dialects.tasks import Dialect
from hive.errors import NOT_FOUND, Fault
from hive.hub.plan import Plan
from hive.hub.records import Outcome
from hive.net.stream import ClientStream
from hive.surfaces.surface import Find, Redirect, Surface
from hive.testing import ThreadedEngine
from hive.testing.hub import ThreadedHub, run_hub
from hive.wire.requests import RequestHead

from ..raw import GENERATE, ask, get, request


class ToyErrors:
    """The error shapes of the toy: a line of text."""

    def whole(self, fault: Fault, request_id: str) -> tuple[str, bytes]:
        return "text/toy", f"toy: {fault.kind.code}".encode()

    def in_stream(self, fault: Fault, request_id: str, last_units: bytes) -> bytes:
        return f"toy: {fault.kind.code}\n".encode()


def hello(stream: ClientStream, plan: Plan) -> None:
    if stream.head.query:
        raise ZeroDivisionError("a mistake in the toy")
    stream.send(200, plan.fields, f"hello {plan.principal.name}".encode())


def answer_unknown(head: RequestHead, methods: Methods, find: Find) -> Redirect:
    if head.path == "/old":
        return Redirect(301, "/hello")
    raise Fault(NOT_FOUND, "the toy has no such thing")


def toy_key(head: RequestHead) -> list[bytes]:
    return [head.fields[b"x-toy-key"]] if b"x-toy-key" in head.fields else []


ERRORS: Mapping[Dialect, ErrorShapes] = {Dialect.HIVE: ToyErrors(), Dialect.OLLAMA: DialectErrors(Dialect.OPENAI)}
TOY = Surface(
    "toy",
    RouteTable(
        [
            Route("toy_hello", "GET", "/hello", Dialect.HIVE, Answered.SURFACE, Right.INFER),
            Route("toy_talk", "POST", "/api/generate", Dialect.OLLAMA, Answered.ENGINE, task=tasks.COMPLETE),
        ]
    ),
    hello,
    lambda _: Dialect.HIVE,
    answer_unknown,
    errors=ERRORS,
    credentials=toy_key,
)


@pytest.fixture(scope="module")
def hub(shared_engine: ThreadedEngine) -> Iterator[ThreadedHub]:
    with run_hub({"a": shared_engine.url}, local_access=LocalAccess.OFF) as hub:
        yield hub


@pytest.fixture(scope="module")
def port(hub: ThreadedHub) -> int:
    return hub.run(lambda server: server.listen("127.0.0.1", 0, [TOY]))


@pytest.fixture(scope="module")
def key(hub: ThreadedHub) -> str:
    return hub.create_key("alice")


def test_the_surface_answers_on_its_own_listener_and_nowhere_else(hub: ThreadedHub, port: int, key: str) -> None:
    shown = f"X-Toy-Key: {key}\r\nAuthorization: Bearer {key}\r\n"
    assert ask(port, get("/hello", shown)).body == b"hello alice"
    assert ask(hub.port, get("/hello", shown)).status == 404
    assert ask(port, get("/api/tags", shown)).body == b"toy: not_found"


def test_it_has_its_own_way_of_showing_a_key(port: int, key: str) -> None:
    assert ask(port, get("/hello", f"Authorization: Bearer {key}\r\n")).status == 401
    assert ask(port, get("/hello", f"X-Toy-Key: {key}\r\n")).status == 200


def test_its_errors_have_its_own_shape(port: int) -> None:
    refused = ask(port, get("/hello"))
    assert (refused.status, refused.header("Content-Type"), refused.body) == (401, "text/toy", b"toy: unauthenticated")
    assert ask(port, b"nonsense\r\n\r\n").body == b"toy: bad_request"


def test_it_answers_what_it_does_not_own(port: int) -> None:
    moved = ask(port, get("/old"))
    assert (moved.status, moved.header("Location")) == (301, "/hello")


def test_an_exchange_of_it_reaches_an_engine_and_tells_errors_in_its_shape(port: int, key: str) -> None:
    shown = f"X-Toy-Key: {key}\r\n"
    assert ask(port, request(body=GENERATE, head=shown)).status == 200
    missing = ask(port, request(body={"model": "none", "prompt": "a"}, head=shown))
    assert (missing.status, re.findall(rb'"type":"(\w+)"', missing.body)) == (404, [b"not_found_error"])


def test_its_requests_are_in_the_log_by_the_names_of_its_routes(hub: ThreadedHub, port: int, key: str) -> None:
    ask(port, request(body=GENERATE, head=f"X-Toy-Key: {key}\r\n"))
    names = hub.call(lambda server: [record.operation for record, _ in server.hub.register.history])
    assert "toy_talk" in names


def test_a_mistake_of_a_surface_is_answered_and_counted(hub: ThreadedHub, port: int, key: str) -> None:
    answer = ask(port, get("/hello?x", f"X-Toy-Key: {key}\r\n"))
    assert (answer.status, answer.body) == (500, b"toy: internal")
    tallies = hub.call(lambda server: server.hub.register.records.tallies.exchanges)
    assert ("toy_hello", "", Outcome.HUB_ERROR) in tallies


def test_a_further_listener_that_others_can_reach_gives_nothing_without_a_key() -> None:
    with run_hub({}) as hub:
        wide = hub.run(lambda server: server.listen("0.0.0.0", 0, [TOY]))
        near = hub.run(lambda server: server.listen("127.0.0.1", 0, [TOY]))
        assert ask(wide, get("/hello")).status == 401
        assert ask(near, get("/hello")).status == 200
