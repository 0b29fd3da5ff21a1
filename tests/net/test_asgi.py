"""Applications behind the server protocol: whole answers and streams, slow clients, departures, failures, the end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import BackgroundTasks, FastAPI
from fastapi.responses import Response, StreamingResponse

from hive.errors import Fault
from hive.net import asgi
from hive.net.asgi import Application, AsgiBridge, Message, Receive, Scope, Send
from hive.net.outbox import Outbox
from hive.net.reception import ServerLimits
from hive.net.server import HttpServer, Listener
from hive.net.stream import ClientStream
from hive.testing.hub import ThreadedHub, run_hub
from hive.wire.requests import RequestHead

from ..raw import Wire, ask, get, request

JSON = "Content-Type: application/json\r\n"


@pytest.fixture(scope="module")
def hub() -> Iterator[ThreadedHub]:
    """A hub without nodes."""
    with run_hub({}) as hub:
        yield hub


@pytest.fixture(scope="module")
def admin(hub: ThreadedHub) -> str:
    """The header line of the admin key."""
    return f"Authorization: Bearer {hub.admin_key}\r\n"


def test_a_key_is_made_listed_and_revoked(hub: ThreadedHub) -> None:
    with httpx.Client(base_url=hub.url, headers={"Authorization": f"Bearer {hub.admin_key}"}) as client:
        made = client.post("/hive/v1/keys", json={"name": "carol", "role": "client"})
        assert made.status_code == 201
        assert made.headers["X-Hive-Request-Id"]
        secret = made.json()["key"]
        listed = client.get("/hive/v1/keys").text
        assert "carol" in listed
        assert secret not in listed
        assert client.delete("/hive/v1/keys/carol").status_code in (200, 204)
        assert client.delete("/hive/v1/keys/carol").status_code == 404


def test_the_connection_goes_on_after_it(hub: ThreadedHub, admin: str) -> None:
    with Wire(hub.port) as wire:
        for data, status in (
            (get("/hive/v1/keys", admin), 200),
            (get("/hive/v1/nowhere", admin), 404),
            (request("/hive/v1/keys", b"{", head=admin + JSON), 422),
            (get("/hive/v1/nodes", admin), 200),
        ):
            wire.send(data)
            answer = wire.answer()
            assert answer.status in (status, 400 if status == 422 else status)
            assert isinstance(answer.json(), dict)
            if status >= 400:
                error = answer.json()["error"]
                assert isinstance(error, dict)
                assert {"code", "message"} <= set(error)
        assert wire.is_open()


def test_a_chunked_body_in_pieces_arrives_whole(hub: ThreadedHub, admin: str) -> None:
    body = json.dumps({"name": "dave", "role": "client"}).encode()
    head = f"POST /hive/v1/keys HTTP/1.1\r\nHost: localhost\r\n{admin}{JSON}Transfer-Encoding: chunked\r\n\r\n"
    with Wire(hub.port) as wire:
        wire.send(head.encode())
        for byte in body:
            wire.send(b"1\r\n" + bytes([byte]) + b"\r\n")
        wire.send(b"0\r\n\r\n")
        assert wire.answer().status == 201


def test_a_query_and_an_escaped_path_arrive(hub: ThreadedHub, admin: str) -> None:
    hub.create_key("erin")
    hub.revoke_key("erin")
    assert b'"erin"' not in ask(hub.port, get("/hive/v1/keys", admin)).body
    assert ask(hub.port, request("/hive/v1/keys/er%69n", method="DELETE", head=admin)).status == 404
    assert ask(hub.port, request("/hive/v1/keys/..%2f..%2f", method="DELETE", head=admin)).status == 404


def test_without_the_right_nothing_of_it_is_reached(hub: ThreadedHub) -> None:
    client = hub.create_key("frank")
    for head, status in (("", 401), (f"Authorization: Bearer {client}\r\n", 403)):
        for path in ("/hive/v1/keys", "/hive/v1/nowhere", "/hive/v1/docs", "/hive/v1/openapi.json"):
            answer = ask(hub.port, request(path, method="GET", head=head, host="hub.example"))
            assert answer.status == status
            assert isinstance(answer.json()["error"], dict)


def test_a_head_request_has_no_body(hub: ThreadedHub, admin: str) -> None:
    with Wire(hub.port) as wire:
        wire.send(request("/hive/v1/keys", method="HEAD", head=admin))
        assert wire.answer(is_head=True).status in (200, 405)
        assert wire.is_open()


def test_a_client_that_goes_away_leaves_nothing(hub: ThreadedHub, admin: str) -> None:
    for number in range(20):
        wire = Wire(hub.port)
        wire.send(request("/hive/v1/keys", {"name": f"gone-{number}", "role": "client"}, head=admin + JSON))
        wire.reset()
    hub.until(lambda server: not server.server.connections)
    assert ask(hub.port, get("/hive/v1/keys", admin)).status == 200


def test_many_at_once_are_all_answered(hub: ThreadedHub, admin: str) -> None:
    wires = [Wire(hub.port) for _ in range(30)]
    for wire in wires:
        wire.send(get("/hive/v1/nodes", admin))
    assert [wire.answer().status for wire in wires] == [200] * 30
    for wire in wires:
        wire.sock.close()


def test_a_body_that_is_too_large_is_413(admin: str) -> None:
    with run_hub({}, max_body_bytes=2_000) as hub:
        head = f"Authorization: Bearer {hub.admin_key}\r\n{JSON}"
        assert ask(hub.port, request("/hive/v1/keys", b" " * 3_000, head=head)).status == 413


# --- applications of a test's own ---

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n"
EVENTS = [(b"content-type", b"text/event-stream")]
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


class Desk:
    """A handler that has one application answer everything; it keeps what the bridge raised."""

    def __init__(self, app: Application) -> None:
        self.app = app
        self.bridge = AsgiBridge()
        self.tasks: set[asyncio.Task[None]] = set()
        self.raised: list[Exception] = []

    def judge(self, stream: ClientStream) -> None:
        stream.takes_body = True

    def begin(self, stream: ClientStream) -> None:
        task = asyncio.get_running_loop().create_task(self._run(stream))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _run(self, stream: ClientStream) -> None:
        try:
            await self.bridge.run(self.app, stream, {}, b"X-Own: yes\r\n")
        except Exception as error:
            self.raised.append(error)
            stream.send(500, b"", b"failed")

    def refuse(self, head: RequestHead | None, request_id: str, fault: Fault) -> tuple[int, bytes, bytes]:
        return fault.kind.status, b"", b""


class Visit:
    """A client's connection to a desk."""

    def __init__(self, desk: Desk, server: HttpServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.desk = desk
        self.server = server
        self.reader = reader
        self.writer = writer

    async def until(self, mark: bytes) -> bytes:
        """Return what comes, up to the mark and with it."""
        return await asyncio.wait_for(self.reader.readuntil(mark), 10)

    async def rest(self) -> bytes:
        """Return what comes until the server closes; a reset counts too."""
        data = b""
        try:
            while piece := await asyncio.wait_for(self.reader.read(65536), 10):
                data += piece
        except ConnectionError:
            pass
        return data

    async def ended(self) -> None:
        """Wait until no application runs."""
        async with asyncio.timeout(10):
            while self.desk.tasks:
                await asyncio.wait(self.desk.tasks)


@asynccontextmanager
async def visit(app: Application, data: bytes = GET) -> AsyncIterator[Visit]:
    """A server with one application, and a client that has sent a request."""
    desk = Desk(app)
    server = HttpServer(ServerLimits(), Outbox())
    port = await server.listen(Listener("127.0.0.1", 0, desk))
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 26)
    try:
        writer.write(data)
        yield Visit(desk, server, reader, writer)
    finally:
        writer.close()
        server.close()
        for task in desk.tasks:
            task.cancel()
        await asyncio.gather(*desk.tasks, return_exceptions=True)


def run(app: Application, work: Callable[[Visit], Awaitable[None]], data: bytes = GET) -> None:
    async def visited() -> None:
        async with visit(app, data) as guest:
            await work(guest)

    asyncio.run(visited())


def says(*messages: Message) -> Application:
    """An application that says these messages; an exception among them is raised."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            if isinstance(message, Exception):
                raise message
            await send(message)

    return app


def start(status: int = 200, headers: object = ()) -> Message:
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(data: bytes = b"", *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def answer_of(app: Application, data: bytes = GET) -> tuple[bytes, list[Exception]]:
    """Return every byte that a request with `Connection: close` gets, without the date, and what the bridge raised."""
    closing = data.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    async with visit(app, closing) as guest:
        got = await guest.rest()
        await guest.ended()
        lines = [line for line in got.split(b"\r\n") if not line.startswith((b"Date: ", b"Connection: "))]
        return b"\r\n".join(lines), guest.desk.raised


OK = b"HTTP/1.1 200 OK\r\nX-Own: yes\r\n"
LENGTH_5 = [(b"Content-Length", b"5")]
GET_10 = b"GET / HTTP/1.0\r\n\r\n"


@pytest.mark.parametrize(
    ("messages", "data", "expected"),
    [
        ([start(), body(b"whole")], GET, OK + b"Content-Length: 5\r\n\r\nwhole"),
        ([start(), body()], GET, OK + b"Content-Length: 0\r\n\r\n"),
        ([start(headers=[(b"Content-Length", b"99")]), body(b"whole")], GET, OK + b"Content-Length: 5\r\n\r\nwhole"),
        ([start(), body(more=True), body(b"whole")], GET, OK + b"Content-Length: 5\r\n\r\nwhole"),
        ([start(), body(b"ab", more=True), body(b"c")], GET, OK + CHUNKED + b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"),
        ([start(), body(b"ab", more=True), body(more=True), body()], GET, OK + CHUNKED + b"2\r\nab\r\n0\r\n\r\n"),
        ([start(headers=LENGTH_5), body(b"ab", more=True), body(b"cde")], GET, OK + b"Content-Length: 5\r\n\r\nabcde"),
        (
            [
                start(headers=[(b"content-length", b"+5"), (b"transfer-encoding", b"gzip")]),
                body(b"a", more=True),
                body(),
            ],
            GET,
            OK + CHUNKED + b"1\r\na\r\n0\r\n\r\n",
        ),
        (
            [start(headers=[*LENGTH_5, (b"content-length", b"6")]), body(b"a", more=True), body()],
            GET,
            OK + CHUNKED + b"1\r\na\r\n0\r\n\r\n",
        ),
        ([start(), body(b"ab", more=True), body(b"c")], GET_10, OK + b"\r\nabc"),
        ([start(), body(b"whole")], HEAD, OK + b"Content-Length: 5\r\n\r\n"),
        ([start(headers=LENGTH_5), body()], HEAD, OK + b"Content-Length: 5\r\n\r\n"),
        ([start(headers=LENGTH_5), body(b"ab", more=True), body(b"cde")], HEAD, OK + b"Content-Length: 5\r\n\r\n"),
        ([start(), body(b"ab", more=True), body(b"cde")], HEAD, OK + b"\r\n"),
        ([start(204), body()], GET, b"HTTP/1.1 204 No Content\r\nX-Own: yes\r\n\r\n"),
        ([start(204), body(b"wrong")], GET, b"HTTP/1.1 204 No Content\r\nX-Own: yes\r\n\r\n"),
        ([start(304), body(b"wrong", more=True), body()], GET, b"HTTP/1.1 304 Not Modified\r\nX-Own: yes\r\n\r\n"),
        ([start(), body(b"whole"), body(b"late")], GET, OK + b"Content-Length: 5\r\n\r\nwhole"),
    ],
)
def test_an_answer_has_the_framing_that_its_pieces_ask_for(
    messages: list[Message], data: bytes, expected: bytes
) -> None:
    assert asyncio.run(answer_of(says(*messages), data)) == (expected, [])


def test_an_answer_in_one_piece_leaves_in_one_write() -> None:
    async def work(guest: Visit) -> None:
        got = await asyncio.wait_for(guest.reader.read(65536), 10)
        assert got.endswith(b"Content-Length: 5\r\n\r\nwhole")

    run(says(start(), body(b"whole")), work)


FAILURE = ZeroDivisionError("a failure")
FAILED = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 6\r\n\r\nfailed"


@pytest.mark.parametrize(
    ("messages", "data", "expected"),
    [
        ([], GET, FAILED),
        ([FAILURE], GET, FAILED),
        ([start(), FAILURE], GET, FAILED),
        ([start(), body(more=True), FAILURE], GET, FAILED),
        ([body(b"a")], GET, FAILED),
        ([start(), body(b"ab", more=True), FAILURE], GET, OK + CHUNKED + b"2\r\nab\r\n"),
        ([start(), body(b"ab", more=True)], GET, OK + CHUNKED + b"2\r\nab\r\n"),
        ([start(headers=LENGTH_5), body(b"ab", more=True), FAILURE], GET, OK + b"Content-Length: 5\r\n\r\nab"),
        ([start(headers=LENGTH_5), body(b"ab", more=True), body(b"c")], GET, OK + b"Content-Length: 5\r\n\r\nabc"),
        ([start(headers=LENGTH_5), body(b"ab", more=True), body(b"cdef")], GET, OK + b"Content-Length: 5\r\n\r\nab"),
    ],
)
def test_a_failure_is_told_before_the_first_byte_and_cuts_the_answer_after_it(
    messages: list[Message], data: bytes, expected: bytes
) -> None:
    got, raised = asyncio.run(answer_of(says(*messages), data))
    assert got == expected
    assert len(raised) == 1


def test_a_failure_resets_an_answer_that_only_the_end_of_its_connection_ends() -> None:
    async def work(guest: Visit) -> None:
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(guest.reader.read(), 10)

    run(says(start(), body(b"ab", more=True), FAILURE), work, GET_10)


def test_a_stream_leaves_as_it_comes_and_the_connection_goes_on() -> None:
    pieces: asyncio.Queue[bytes] = asyncio.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert await receive() == {"type": "http.request", "body": b"", "more_body": False}
        await send(start())
        while piece := await pieces.get():
            await send(body(piece, more=True))
        await send(body())
        assert (await receive())["type"] == "http.disconnect"

    async def work(guest: Visit) -> None:
        for _ in range(2):
            for piece in (b"one", b"two"):
                pieces.put_nowait(piece)
                await guest.until(b"3\r\n" + piece + b"\r\n")
            pieces.put_nowait(b"")
            assert await guest.until(b"0\r\n\r\n") == b"0\r\n\r\n"
            await guest.ended()
            guest.writer.write(GET)
        assert not guest.desk.raised

    run(app, work)


PIECE = b"x" * 100_000


class Source:
    """An application that sends without end, and counts; it never asks whether its client is there."""

    def __init__(self) -> None:
        self.sent = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        while True:
            await send(body(PIECE, more=True))
            self.sent += 1

    async def until_stuck(self) -> int:
        """Return how many pieces it could send before its client took no more."""
        while True:
            before = self.sent
            await asyncio.sleep(0.1)
            if before == self.sent and before:
                return before


def test_a_slow_client_stops_its_application_and_lets_it_go_on() -> None:
    source = Source()

    async def work(guest: Visit) -> None:
        guest.writer.transport.pause_reading()  # type: ignore[attr-defined]
        stuck = await source.until_stuck()
        assert stuck * len(PIECE) < 20_000_000
        (connection,) = guest.server.connections
        assert connection._transport.get_write_buffer_size() < 1_000_000  # type: ignore[union-attr]
        guest.writer.transport.resume_reading()  # type: ignore[attr-defined]
        await guest.until(b"x\r\n")
        async with asyncio.timeout(10):
            while source.sent < stuck + 100:
                await guest.reader.read(1 << 20)

    run(source, work)


@pytest.mark.parametrize("is_paused", [False, True])
def test_a_departure_ends_an_application_that_sends(is_paused: bool) -> None:
    source = Source()

    async def work(guest: Visit) -> None:
        await guest.until(b"x\r\n")
        if is_paused:
            guest.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await source.until_stuck()
        guest.writer.transport.abort()
        await guest.ended()
        assert not guest.desk.raised

    run(source, work)


def test_a_departure_is_told_to_an_application_that_waits() -> None:
    told: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(start())
        await send(body(b"a", more=True))
        told.append((await receive())["type"])
        await send(body())  # nobody hears it, and nothing breaks

    async def work(guest: Visit) -> None:
        await guest.until(b"a\r\n")
        guest.writer.close()
        await guest.ended()
        assert (told, guest.desk.raised) == (["http.disconnect"], [])

    run(app, work)


def test_an_application_that_does_not_end_after_a_departure_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "APPLICATION_FAREWELL", 0.05)
    ends: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send(start())
            await send(body(b"a", more=True))
            await asyncio.Event().wait()
        finally:
            ends.append("cancelled")

    async def work(guest: Visit) -> None:
        await guest.until(b"a\r\n")
        guest.writer.transport.abort()
        await guest.ended()
        assert (ends, guest.desk.raised) == (["cancelled"], [])

    run(app, work)


# --- FastAPI over it ---


class Site:
    """Two routes of FastAPI: a stream that a test feeds, and an answer with something to do after it."""

    def __init__(self, media_type: str = "text/event-stream") -> None:
        self.app = FastAPI()
        self.events: asyncio.Queue[str] = asyncio.Queue()
        self.closed = asyncio.Event()
        self.after = asyncio.Event()

        @self.app.get("/")
        async def stream() -> StreamingResponse:
            return StreamingResponse(self._blocks(), media_type=media_type)

        @self.app.get("/after")
        async def after(tasks: BackgroundTasks) -> Response:
            tasks.add_task(self.after.wait)
            return Response(b"whole")

    async def _blocks(self) -> AsyncIterator[str]:
        try:
            while event := await self.events.get():
                yield f"data: {event}\n\n"
        finally:
            self.closed.set()


def test_fastapi_sends_events_as_they_come_and_hears_of_the_departure() -> None:
    async def visited() -> None:
        site = Site()
        async with visit(site.app) as guest:
            site.events.put_nowait("one")
            head = await guest.until(CHUNKED)
            assert b"content-type: text/event-stream" in head
            assert await guest.until(b"\n\n\r\n") == b"b\r\ndata: one\n\n\r\n"
            site.events.put_nowait("two")
            assert await guest.until(b"\n\n\r\n") == b"b\r\ndata: two\n\n\r\n"
            guest.writer.transport.abort()
            await asyncio.wait_for(site.closed.wait(), 10)
            await guest.ended()
            assert not guest.desk.raised

    asyncio.run(visited())


def test_fastapi_ends_a_stream_that_ends() -> None:
    async def visited() -> None:
        site = Site("text/plain")
        site.events.put_nowait("one")
        site.events.put_nowait("")
        got, raised = await answer_of(site.app)
        assert got.endswith(b"b\r\ndata: one\n\n\r\n0\r\n\r\n")
        assert not raised

    asyncio.run(visited())


def test_what_an_application_does_after_its_answer_is_not_hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "APPLICATION_FAREWELL", 0.01)

    async def visited() -> None:
        site = Site()
        async with visit(site.app, GET.replace(b"/", b"/after", 1)) as guest:
            await guest.until(b"whole")
            await asyncio.sleep(0.1)
            assert guest.desk.tasks
            site.after.set()
            await guest.ended()
            assert not guest.desk.raised

    asyncio.run(visited())


def test_draining_ends_event_streams_at_once_and_cleanly() -> None:
    async def visited() -> None:
        site = Site()
        async with visit(site.app) as guest:
            site.events.put_nowait("one")
            await guest.until(b"one\n\n\r\n")
            guest.desk.bridge.end_event_streams()
            assert await guest.until(b"0\r\n\r\n") == b"0\r\n\r\n"
            await guest.ended()
            site.events.put_nowait("late")
            guest.writer.write(GET)
            assert (await guest.until(b"0\r\n\r\n")).endswith(b"data: late\n\n\r\n0\r\n\r\n")
            await guest.ended()
            assert not guest.desk.raised

    asyncio.run(visited())


def test_draining_ends_an_event_stream_whose_first_event_has_not_come() -> None:
    is_waiting = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(start(headers=EVENTS))
        is_waiting.set()
        assert (await receive())["type"] == "http.disconnect"

    async def work(guest: Visit) -> None:
        await asyncio.wait_for(is_waiting.wait(), 10)
        guest.desk.bridge.end_event_streams()
        assert (await guest.until(b"0\r\n\r\n")).endswith(CHUNKED + b"0\r\n\r\n")
        await guest.ended()
        assert not guest.desk.raised

    run(app, work)


def test_draining_lets_other_streams_come_to_their_end() -> None:
    async def visited() -> None:
        site = Site("text/plain")
        async with visit(site.app) as guest:
            site.events.put_nowait("one")
            await guest.until(b"one\n\n\r\n")
            guest.desk.bridge.end_event_streams()
            site.events.put_nowait("two")
            await guest.until(b"two\n\n\r\n")
            site.events.put_nowait("")
            await guest.until(b"0\r\n\r\n")

    asyncio.run(visited())
