"""The bytes of an answer: how its end is marked, and where each fault strikes."""

from __future__ import annotations

import asyncio
import re

import pytest

from hive.sim.faults import InjectedFault, Plan, make_fault
from hive.sim.ledger import SeenRequest
from hive.sim.sender import Cut, Sender
from hive.sim.surfaces import JSON, SimReply
from hive.sim.wire import SimRequest
from hive.testing import SimOptions, run_in_thread

from .desks import make_request

REPLY = SimReply(200, b'{"a":1}', JSON)


class Outlet:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    async def drain(self) -> None:
        """Everything is taken at once."""


class Sent:
    """One answer, with these faults planned."""

    def __init__(
        self, *faults: InjectedFault, request: SimRequest | None = None, counts_up_to: int | None = None
    ) -> None:
        self.outlet = Outlet()
        self.held: list[InjectedFault] = []
        self.seen = SeenRequest(1, "GET", "/", "", (), 0, "", None)
        plan: Plan = {fault.kind: fault for fault in faults}
        self.sender = Sender(
            self.outlet,
            request or make_request("/"),
            plan,
            self.seen,
            frozen=lambda: None,
            hold=self._hold,
            headers=(("X-Engine", "yes"),),
            counts_up_to=counts_up_to,
        )

    async def _hold(self, fault: InjectedFault) -> None:
        self.held.append(fault)

    @property
    def head(self) -> dict[str, str]:
        """Return the fields of the head, names in lower case, without the date."""
        lines = self.data.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines) if name != "Date"}

    @property
    def body(self) -> bytes:
        return self.data.partition(b"\r\n\r\n")[2]

    @property
    def data(self) -> bytes:
        return b"".join(self.outlet.writes)

    def reply(self, reply: SimReply = REPLY) -> None:
        asyncio.run(self.sender.reply(reply))

    def stream(self, *pieces: bytes) -> None:
        async def run() -> None:
            await self.sender.begin("text/event-stream")
            for piece in pieces:
                await self.sender.piece(piece)
            await self.sender.end()

        asyncio.run(run())


def test_an_answer_over_two_kilobytes_is_chunked_as_in_go(client_of: type) -> None:
    with run_in_thread(SimOptions(models=tuple(f"m{n}" for n in range(9)))) as engine:
        assert client_of(engine).ask("/api/tags").header("transfer-encoding") == "chunked"
        assert client_of(engine).ask("/api/version").header("content-length") == "20"


def test_a_whole_answer_is_counted_and_leaves_in_one_write() -> None:
    sent = Sent()
    sent.reply()
    assert sent.head == {"content-type": "application/json", "x-engine": "yes", "content-length": "7"}
    assert (sent.body, len(sent.outlet.writes), sent.seen.status) == (b'{"a":1}', 1, 200)
    assert re.search(rb"\r\nDate: \w{3}, ", sent.data)


def test_an_answer_longer_than_the_server_counts_is_chunked() -> None:
    sent = Sent(counts_up_to=6)
    sent.reply()
    assert sent.body == b'7\r\n{"a":1}\r\n0\r\n\r\n'


def test_a_head_alone_tells_the_length_of_the_body_that_it_leaves_out() -> None:
    sent = Sent(request=make_request("/", method="HEAD"))
    sent.reply()
    assert (sent.body, sent.head["content-length"]) == (b"", "7")


def test_no_content_has_no_length() -> None:
    sent = Sent()
    sent.reply(SimReply(204, content_type=""))
    assert "content-length" not in sent.head


def test_a_stream_is_chunked_and_its_head_leaves_with_the_first_piece() -> None:
    sent = Sent()
    sent.stream(b"one", b"", b"two")
    assert sent.body == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
    assert sent.outlet.writes[0].endswith(b"3\r\none\r\n")


def test_a_stream_without_a_piece_has_its_head_and_its_end() -> None:
    sent = Sent()
    sent.stream()
    assert sent.body == b"0\r\n\r\n"


def test_a_client_of_http_1_0_gets_a_stream_that_ends_with_the_connection() -> None:
    sent = Sent(request=SimRequest("GET", "/", (), is_http_1_0=True))
    sent.stream(b"one", b"two")
    assert (sent.body, sent.sender.must_close, sent.head["connection"]) == (b"onetwo", True, "close")


@pytest.mark.parametrize(("kind", "is_reset"), [("drop", False), ("reset", True), ("cut-line", False)])
def test_a_cut_ends_a_whole_answer_in_the_middle(kind: str, is_reset: bool) -> None:
    sent = Sent(make_fault(kind))
    with pytest.raises(Cut) as raised:
        sent.reply()
    assert (sent.body, raised.value.is_reset) == (b'{"a', is_reset)


def test_faults_of_a_stream_spare_an_answer_that_is_an_error_already() -> None:
    sent = Sent(make_fault("malformed"), make_fault("drop"))
    sent.reply(SimReply(404, b"whole", JSON))
    assert sent.body == b"whole"


def test_a_malformed_answer_is_half_of_it_with_the_length_of_the_half() -> None:
    sent = Sent(make_fault("malformed"))
    sent.reply()
    assert (sent.body, sent.head["content-length"]) == (b'{"a', "3")


def test_a_lying_length_is_off_by_as_much_as_it_says() -> None:
    sent = Sent(make_fault("lying-length", 5))
    sent.stream(b"one", b"two")
    assert (sent.body, sent.head["content-length"]) == (b"onetwo", "11")


def test_a_bad_chunk_ends_the_connection() -> None:
    sent = Sent(make_fault("bad-chunk"))
    with pytest.raises(Cut):
        sent.reply()
    assert sent.body.startswith(b"zz\r\n")


def test_extra_bytes_follow_the_end() -> None:
    sent = Sent(make_fault("extra-bytes", "more"))
    sent.reply()
    assert sent.body == b'{"a":1}more'


def test_early_hints_come_before_the_head() -> None:
    sent = Sent(make_fault("early-hints", 103))
    sent.reply()
    assert sent.data.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: ")
    assert b"\r\n\r\nHTTP/1.1 200 OK\r\n" in sent.data


def test_a_head_before_silence_leaves_alone_and_then_the_fault_holds() -> None:
    fault = make_fault("head-then-silence")
    sent = Sent(fault)
    sent.reply()
    assert sent.held == [fault]
    assert sent.outlet.writes[0].endswith(b"\r\n\r\n")


def test_a_trickle_is_a_write_for_each_byte() -> None:
    sent = Sent(make_fault("trickle", 0))
    sent.reply()
    assert all(len(write) == 1 for write in sent.outlet.writes)
    assert sent.body == b'{"a":1}'
