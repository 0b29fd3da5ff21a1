"""One try on one engine: how long it may be silent, what silence is excused, and what an answer teaches.

Nodes are played by hand, so an engine gives a sign of life when a test says so; and what is silent for ten minutes is
judged as if they had passed, without the wait.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from hive.app import HubServer
from hive.fleet.engines import SUSPECT_AFTER, Engine, Health
from hive.fleet.health import STALL
from hive.fleet.pace import Pace
from hive.hub.attempt import Attempt
from hive.hub.exchange import Exchange
from hive.scheduling.silence import COLD_TIMES, COLD_TOKEN, ENOUGH_MEASURED, OVERDUE
from hive.testing.hub import ThreadedHub, run_hub
from hive.testing.scripted import Call, Script, run_scripted
from hive.wire.link_messages import Accepted, Ended, EngineBeat, Heartbeat, MachineState

from ..joining import DataWire, RawNode, joined
from ..raw import GENERATE, STREAM, Answer, Wire, ask, request

OK = b'{"response":"whole","done":true}'
TOKEN = b'{"response":"a","done":false}\n'
DONE = b'{"response":"","done":true}\n'
TOOLS = {"tools": [{"type": "function", "function": {"name": "f"}}]}
LONG = b'{"response":"%b","done":false}\n' % (b"x" * 60_000)
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}


def whole(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def chunk(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(body), body)


BEGUN = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(TOKEN)
ENDED = chunk(DONE) + b"0\r\n\r\n"
HELD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadedHub]:
    """A hub that dials no node, and looks at its deadlines more often than usual."""
    monkeypatch.setattr("hive.hub.ticker.TICK", 0.05)
    with run_hub({}, link="dialed") as hub:
        yield hub


@dataclass
class Scene:
    """One request under way on the node `desk`, and perhaps another node, to which nothing was sent so far."""

    hub: ThreadedHub
    wire: Wire
    data: DataWire
    exchange: str
    """The id under which the request came."""
    node: RawNode
    other: DataWire | None = None

    def say(self, data: bytes) -> None:
        """Send bytes of the answer, and wait until the hub has them."""
        before = self.look(lambda attempt: attempt.last_byte_at)
        self.data.say(data)
        self.hub.until(lambda server: running(server).last_byte_at > before)

    def look(self, question: Callable[[Attempt], object]) -> object:
        """Ask the attempt under way."""
        return self.hub.call(lambda server: question(running(server)))

    def silent(self, seconds: float, *, heard: bool = True, health: Health | None = None) -> bool:
        """Judge the attempt as if it had been silent for so long; return whether it is still under way.

        `heard`: does its engine give signs of life meanwhile? `health`: its state, else what it is.
        """

        def act(server: HubServer) -> bool:
            exchange, attempt = only(server), running(server)
            engine, relay = attempt.engine, attempt.relay
            now, before = attempt.last_byte_at + seconds + 1e-6, engine.health  # a sum may be rounded down
            engine.signs.last_sign = now if heard else now - SUSPECT_AFTER
            engine.health = health or before
            exchange.check_deadlines(now)
            engine.health = before
            assert relay is not None
            return not relay.finished.is_kept

        return self.hub.call(act)

    def moved(self) -> Answer:
        """Let the other node answer; return what the client gets."""
        assert self.other is not None
        self.other.answer(self.other.request()[0], whole(OK))
        return self.wire.answer()


def only(server: HubServer) -> Exchange:
    (exchange,) = server.hub.register.running
    return exchange


def running(server: HubServer) -> Attempt:
    attempt = only(server).attempt
    assert attempt is not None
    return attempt


def engine_of(server: HubServer, node: str) -> Engine:
    (engine,) = [each for each in server.hub.fleet.engines if each.node == node]
    return engine


@contextmanager
def scene(
    hub: ThreadedHub, body: object = None, *, path: str = "/api/chat", has_other: bool = False
) -> Iterator[Scene]:
    """A request that the node `desk` has taken; `has_other`: another one has the model too."""
    with ExitStack() as stack:
        node = stack.enter_context(joined(hub))
        data = node.data()
        wire = stack.enter_context(Wire(hub.port))
        wire.send(request(path, body or CHAT))
        exchange = data.request()[0]
        data.say(Accepted(exchange))
        made = Scene(hub, wire, data, exchange, node)
        if has_other:
            made.other = stack.enter_context(joined(hub, "other")).data()
        yield made


# --- how long an answer may be silent ---


@pytest.mark.parametrize("more", [{}, TOOLS, {"stream": False}], ids=["stream", "tools", "whole"])
@pytest.mark.parametrize("has_other", [False, True])
def test_before_its_first_byte_an_engine_that_gives_signs_has_ten_minutes(
    has_other: bool, more: dict[str, object], hub: ThreadedHub
) -> None:
    with scene(hub, CHAT | more, has_other=has_other) as one:
        assert one.silent(599.9)
        assert not one.silent(600)
        if has_other:
            answer = one.moved()
            assert (answer.header("X-Hive-Node"), answer.header("X-Hive-Attempts")) == ("other", "2")
        else:
            answer = one.wire.answer()
            assert (answer.status, answer.json()["error"]) == (504, "node 'desk': it has sent nothing for 600 s")


@pytest.mark.parametrize(("more", "limit"), [({}, 60.0), (TOOLS, 600.0)], ids=["plain", "tools"])
def test_a_begun_stream_may_be_silent_for_a_minute_and_with_tools_for_ten(
    more: dict[str, object], limit: float, hub: ThreadedHub
) -> None:
    with scene(hub, CHAT | more, has_other=True) as one:
        one.say(BEGUN)
        assert one.silent(limit - 0.1)
        assert not one.silent(limit)
        answer = one.wire.answer()
        assert (answer.status, answer.is_whole) == (200, True)
        first, last = answer.ndjson()
        assert first == json.loads(TOKEN)
        assert last == {"error": f"node 'desk': it fell silent for {limit:.0f} s inside its answer"}


@pytest.mark.parametrize("more", [{}, TOOLS], ids=["plain", "tools"])
def test_a_begun_stream_on_an_engine_without_a_sign_has_ten_seconds(more: dict[str, object], hub: ThreadedHub) -> None:
    with scene(hub, CHAT | more, has_other=True) as one:
        one.say(BEGUN)
        assert one.silent(9.9, heard=False)
        assert not one.silent(10, heard=False)
        assert b"fell silent for 10 s" in one.wire.answer().body


def test_each_byte_starts_the_clock_anew(hub: ThreadedHub) -> None:
    with scene(hub) as one:
        one.say(BEGUN)
        assert one.silent(59)
        one.say(chunk(TOKEN))
        assert one.silent(59)
        one.data.say(ENDED)
        assert one.wire.answer().is_whole


@pytest.mark.parametrize(("more", "limit"), [({}, 7.0), (TOOLS, 17.0)], ids=["plain", "tools"])
def test_the_settings_say_how_long(more: dict[str, object], limit: float) -> None:
    settings = {"first_byte_timeout": 70, "stream_gap_timeout": 7, "tools_gap_timeout": 17}
    with run_hub({}, link="dialed", **settings) as hub, scene(hub, CHAT | more) as one:
        assert one.silent(69.9)
        one.say(BEGUN)
        assert one.silent(limit - 0.1)
        assert not one.silent(limit)


# --- an engine that gives no sign of life ---


def test_what_a_suspect_has_not_answered_moves_elsewhere_at_once(hub: ThreadedHub) -> None:
    with scene(hub, has_other=True) as one:
        one.node.control.say(Heartbeat(1, MachineState(), {"ollama": EngineBeat(True, stopped=True)}))
        answer = one.moved()
        assert (answer.status, answer.body) == (200, OK)
        assert (answer.header("X-Hive-Node"), answer.header("X-Hive-Attempts")) == ("other", "2")


def test_silence_for_five_seconds_is_what_makes_a_suspect(hub: ThreadedHub) -> None:
    with scene(hub, has_other=True) as one:
        assert one.silent(0.01)
        assert not one.silent(0.01, heard=False)
        assert one.moved().status == 200


def test_without_another_engine_it_waits_for_thirty_seconds_and_ends_honestly(hub: ThreadedHub) -> None:
    with scene(hub) as one:
        assert one.silent(29.9, heard=False)
        assert not one.silent(30, heard=False)
        answer = one.wire.answer()
        assert (answer.status, answer.json()["error"]) == (504, "node 'desk': it has sent nothing for 30 s")
        assert answer.header("X-Hive-Attempts") == "1"


def test_an_engine_that_comes_meanwhile_gets_it(hub: ThreadedHub) -> None:
    with scene(hub) as one:
        assert one.silent(20, heard=False)
        with joined(hub, "other") as other:
            one.other = other.data()
            assert not one.silent(20, heard=False)
            assert one.moved().header("X-Hive-Node") == "other"


def test_an_engine_that_wakes_up_in_time_is_believed(hub: ThreadedHub) -> None:
    with scene(hub) as one:
        assert one.silent(29, heard=False)
        assert one.silent(31)
        one.data.say(whole(OK))
        assert one.wire.answer().body == OK


def test_an_answer_that_is_held_and_stops_can_still_move(hub: ThreadedHub) -> None:
    """The client has had no byte of it."""
    with scene(hub, CHAT | {"stream": False}, has_other=True) as one:
        one.say(HELD)
        assert one.silent(9.9, heard=False)
        assert not one.silent(10, heard=False)
        answer = one.moved()
        assert (answer.body, answer.header("X-Hive-Attempts")) == (OK, "2")


def test_after_two_other_nodes_the_client_hears_why(hub: ThreadedHub) -> None:
    with scene(hub) as one, ExitStack() as nodes:
        for place, name in enumerate(("second", "third")):
            data = nodes.enter_context(joined(hub, name)).data()
            assert not one.silent(0.01, heard=False)
            data.say(Accepted(data.request()[0]))
            assert one.look(lambda attempt: attempt.engine.node) == name, place
        nodes.enter_context(joined(hub, "fourth")).data()
        assert one.silent(29.9, heard=False), "a fourth is none of two"
        assert not one.silent(30, heard=False)
        answer = one.wire.answer()
        assert (answer.status, answer.header("X-Hive-Attempts")) == (504, "3")


# --- a first byte that is overdue ---


def teach(seconds_a_token: float, count: int = ENOUGH_MEASURED) -> Callable[[HubServer], None]:
    """Let the pace of the node `desk` be known."""

    def act(server: HubServer) -> None:
        pace = engine_of(server, "desk").learned.paces["tiny:latest"] = Pace()
        for _ in range(count):
            pace.prompt.add(1, seconds_a_token)

    return act


def expected(server: HubServer) -> float:
    """Return the seconds after which the first byte is expected."""
    attempt = running(server)
    ticket = attempt.lease.ticket
    return server.hub.queue.estimates.first_byte(attempt.engine, ticket.model, ticket.size, 1)


def test_on_a_doubtful_engine_an_overdue_first_byte_moves_elsewhere_after_ten_seconds(hub: ThreadedHub) -> None:
    with scene(hub, has_other=True) as one:
        hub.call(teach(0.001))
        assert hub.call(expected) * OVERDUE < 5
        assert one.silent(9.9, health=Health.DOUBTFUL)
        assert not one.silent(10, health=Health.DOUBTFUL)
        assert one.moved().header("X-Hive-Node") == "other"


def test_it_is_overdue_at_ten_times_what_was_expected(hub: ThreadedHub) -> None:
    with scene(hub, has_other=True) as one:
        hub.call(teach(0.2))
        seconds = hub.call(expected)
        assert seconds * OVERDUE > 60
        assert one.silent(seconds * OVERDUE - 0.1, health=Health.DOUBTFUL)
        assert not one.silent(seconds * OVERDUE + 0.1, health=Health.DOUBTFUL)
        assert one.moved().header("X-Hive-Node") == "other"


@pytest.mark.parametrize("health", [Health.READY, Health.PROBATION])
def test_an_engine_that_is_well_has_its_ten_minutes_all_the_same(health: Health, hub: ThreadedHub) -> None:
    with scene(hub, has_other=True) as one:
        hub.call(teach(0.001))
        assert one.silent(599.9, health=health)


@pytest.mark.parametrize("more", [TOOLS, {"stream": False}], ids=["tools", "whole"])
def test_nothing_is_overdue_whose_first_byte_may_be_its_last(more: dict[str, object], hub: ThreadedHub) -> None:
    """With tools, some engines hold everything back until the call is whole."""
    with scene(hub, CHAT | more, has_other=True) as one:
        hub.call(teach(0.001))
        assert one.silent(599.9, health=Health.DOUBTFUL)
        assert one.look(lambda attempt: attempt.is_excused(attempt.last_byte_at + 599))


def test_nothing_is_overdue_of_which_too_little_was_measured(hub: ThreadedHub) -> None:
    with scene(hub, has_other=True) as one:
        assert one.silent(599.9, health=Health.DOUBTFUL)
        hub.call(teach(0.001, ENOUGH_MEASURED - 1))
        assert one.silent(599.9, health=Health.DOUBTFUL)


def test_a_long_prompt_may_be_one_that_the_engine_remembers_nothing_of(hub: ThreadedHub) -> None:
    """What was measured were prompts that it remembered but for their last words."""
    long = {**CHAT, "messages": [{"role": "user", "content": "x" * 8_000}]}
    with scene(hub, long, has_other=True) as one:
        hub.call(teach(0.000_01))
        size = hub.call(lambda server: running(server).lease.ticket.size)
        assert size > 2_000
        assert one.silent(size * COLD_TOKEN - 0.1, health=Health.DOUBTFUL)
        hub.call(lambda server: engine_of(server, "desk").learned.paces["tiny:latest"].note_slowest(0.05))
        assert one.silent(size * COLD_TIMES * 0.05 - 0.1, health=Health.DOUBTFUL)
        assert not one.silent(size * COLD_TIMES * 0.05 + 0.1, health=Health.DOUBTFUL)
        assert one.moved().header("X-Hive-Node") == "other"


def test_nothing_is_overdue_that_may_be_loading(hub: ThreadedHub) -> None:
    with scene(hub, has_other=True) as one:
        hub.call(teach(0.001))
        hub.call(lambda server: server.hub.fleet.learn_loaded(engine_of(server, "desk"), ()))
        assert one.silent(599.9, health=Health.DOUBTFUL)


def test_without_another_engine_it_may_be_overdue_for_ten_minutes(hub: ThreadedHub) -> None:
    with scene(hub) as one:
        hub.call(teach(0.001))
        assert one.silent(599.9, health=Health.DOUBTFUL)
        assert not one.silent(600, health=Health.DOUBTFUL)


# --- what it shows of its engine's health ---


def is_excused(seconds: float) -> Callable[[Attempt], bool]:
    return lambda attempt: attempt.is_excused(attempt.last_byte_at + seconds)


def test_what_may_be_silent_and_what_not(hub: ThreadedHub) -> None:
    with scene(hub) as one:
        assert one.look(is_excused(599)), "it may still be read"
        assert one.look(lambda attempt: (attempt.is_running, attempt.has_answered)) == (True, False)
        hub.call(teach(0.001))
        assert one.look(is_excused(4.9)), "nobody is doubted sooner"
        assert not one.look(is_excused(5.1)), "by all that was measured it should have begun"
        one.say(BEGUN)
        assert not one.look(is_excused(0)), "a begun stream is to flow"
        assert one.look(lambda attempt: (attempt.is_running, attempt.has_answered)) == (True, True)
        one.say(chunk(DONE))
        assert one.look(is_excused(0)), "its end mark has come: nothing more is due"
        one.data.say(b"0\r\n\r\n")
        assert one.wire.answer().body == TOKEN + DONE


def test_a_stream_whose_end_mark_has_come_is_whole_a_second_later(hub: ThreadedHub) -> None:
    with scene(hub) as one:
        one.say(BEGUN + chunk(DONE))
        assert one.silent(0.9)
        assert not one.silent(1.0, heard=False)
        answer = one.wire.answer()
        assert (answer.is_whole, answer.body) == (True, TOKEN + DONE)


def test_a_client_that_reads_slowly_is_never_taken_for_a_silent_engine(hub: ThreadedHub) -> None:
    count = 200
    with joined(hub) as node, Wire(hub.port, receive_buffer=4096) as wire:
        data = node.data()
        wire.send(request("/api/chat", CHAT))
        exchange = data.request()[0]

        def send() -> None:
            data.say(Accepted(exchange), BEGUN)
            for _ in range(count):
                data.say(chunk(LONG))
            data.say(ENDED, Ended(exchange))

        sending = threading.Thread(target=send)
        sending.start()
        hub.until(lambda server: running(server)._answer.client.is_paused)
        one = Scene(hub, wire, data, exchange, node)
        for heard in (True, False):
            assert one.silent(86_400, heard=heard)
            assert one.look(is_excused(86_400))
        assert one.silent(0)
        answer = wire.answer()
        sending.join(5)
        assert (answer.is_whole, answer.body) == (True, TOKEN + LONG * count + DONE)


def test_what_was_paused_has_all_its_time_again_when_the_client_reads_on() -> None:
    def script(call: Call) -> None:
        call.begin()
        for _ in range(200):
            call.chunk(LONG)
        call.wait_for_departure()

    with (
        run_scripted(script) as engine,
        run_hub({"a": engine.url}, link="dialed") as hub,
        Wire(hub.port, receive_buffer=4096) as wire,
    ):
        wire.send(request("/api/chat", CHAT))
        hub.until(lambda server: running(server)._answer.client.is_paused)

        def read_on(server: HubServer) -> float:
            """Let the pause have lasted for a day, then end it; return how long the engine is believed to be silent."""
            attempt, now = running(server), server.hub.now()
            assert attempt.relay is not None
            attempt.relay.last_byte_at = now - 86_400
            attempt._answer.client.resume()
            only(server).check_deadlines(now)
            assert attempt.is_running
            return now - attempt.last_byte_at

        assert hub.call(read_on) < 1


def test_a_doubtful_engine_gets_work_only_when_no_other_engine_can_do_it(hub: ThreadedHub) -> None:
    with scene(hub, has_other=True) as one, ExitStack() as wires:
        one.say(BEGUN)

        def age(server: HubServer) -> None:
            relay = running(server).relay
            assert relay is not None
            relay.last_byte_at -= 6

        hub.call(age)
        hub.until(lambda server: engine_of(server, "desk").health is Health.DOUBTFUL)
        spare = one.node.data()
        assert one.other is not None
        for _ in range(4):
            second = wires.enter_context(Wire(hub.port))
            second.send(request(body=GENERATE))
            one.other.answer(one.other.request()[0], whole(OK))
            assert second.answer().header("X-Hive-Node") == "other"
        hub.call(lambda server: server.hub.node_cases.drain("other", True))
        third = wires.enter_context(Wire(hub.port))
        third.send(request(body=GENERATE))
        spare.answer(spare.request()[0], whole(OK))
        assert third.answer().header("X-Hive-Node") == "desk"


# --- the hub itself stood still ---


def sleep(server: HubServer, seconds: float) -> None:
    """Let the hub have slept: all that it remembers is older, and it knows nothing of the time between."""
    hub = server.hub
    attempt = running(server)
    assert attempt.relay is not None
    attempt.relay.last_byte_at -= seconds
    attempt.engine.signs.last_sign -= seconds
    hub.health._monitor._swept_at -= seconds  # type: ignore[operator]
    hub.ticker.last -= seconds


@pytest.mark.parametrize("begun", [True, False])
def test_the_time_that_the_hub_slept_is_no_silence_of_an_engine(begun: bool, hub: ThreadedHub) -> None:
    with scene(hub) as one:
        if begun:
            one.say(BEGUN)
        hub.call(lambda server: sleep(server, STALL + 10_000))
        tick = hub.call(lambda server: server.hub.ticker.last)
        hub.until(lambda server: server.hub.ticker.last > tick)
        assert hub.call(lambda server: engine_of(server, "desk").health) is Health.READY
        assert one.look(lambda attempt: attempt.is_running)
        assert one.look(lambda attempt: abs(attempt.last_byte_at - attempt._hub.now())) < 60  # type: ignore[operator]
        one.data.say(ENDED if begun else whole(OK))
        assert one.wire.answer().status == 200


def test_the_same_silence_while_the_hub_was_awake_is_the_engines(hub: ThreadedHub) -> None:
    with scene(hub) as one:
        one.say(BEGUN)

        def age(server: HubServer) -> None:
            relay = running(server).relay
            assert relay is not None
            relay.last_byte_at -= STALL + 10_000

        hub.call(age)
        assert b"it fell silent for 10" in one.wire.answer().body


def test_forgiving_makes_nothing_newer_than_now(hub: ThreadedHub) -> None:
    with scene(hub) as one:
        one.look(lambda attempt: attempt.forgive(1_000))
        now = hub.call(lambda server: server.hub.now())
        assert 0 <= now - one.look(lambda attempt: attempt.last_byte_at) < 60  # type: ignore[operator]


# --- what it teaches ---


def learned(*scripts: Script, body: object, path: str = "/api/chat", times: int = 1) -> Pace | None:
    """Return what is known of an engine's pace after it has answered; its model was in memory."""
    with run_scripted(*scripts) as engine, run_hub({"a": engine.url}, slots=1) as hub:
        hub.until(lambda server: bool(engine_of(server, "a").known.loaded))
        for _ in range(times):
            answer = ask(hub.port, request(path, body))
            assert (answer.status, answer.is_whole) == (200, True)
        return hub.call(lambda server: engine_of(server, "a").learned.paces.get("tiny:latest"))


def stream(*pieces: bytes, kind: str = "application/x-ndjson") -> Script:
    """A script that sends these pieces apart."""

    def script(call: Call) -> None:
        call.begin(kind)
        for piece in pieces:
            call.chunk(piece)
            time.sleep(0.02)  # so that they arrive apart
        call.chunk(b"")

    return script


MEASURED = (
    b'"total_duration":4000000000,"prompt_eval_count":150,"prompt_eval_duration":1000000000,"eval_count":10,'
    b'"eval_duration":2000000000}'
)
TIMINGS = b'"timings":{"prompt_n":150,"prompt_ms":1000.0,"predicted_n":10,"predicted_ms":2000.0}}'


def test_what_an_ollama_measured_itself_is_learned() -> None:
    for script in (
        stream(TOKEN, b'{"done":true,' + MEASURED + b"\n"),
        lambda call: call.answer(b'{"response":"a","done":true,' + MEASURED),
    ):
        pace = learned(script, body=CHAT)
        assert pace is not None
        assert pace.prompt.seconds[1] == pytest.approx(1 / 200)
        assert pace.decode.seconds[1] == pytest.approx(0.2)


EVENT = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
TOLD = b'data: {"choices":[],%b\n\n' % TIMINGS
END = b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    "pieces",
    [[TOLD + END], [TOLD, END], [TOLD, END[:9], END[9:]], [EVENT, TOLD, END], [EVENT, TOLD[:9], TOLD[9:], END]],
)
def test_the_measures_of_a_llama_cpp_are_learned_though_its_end_mark_comes_apart(pieces: list[bytes]) -> None:
    script = stream(*pieces, kind="text/event-stream")
    pace = learned(script, body=CHAT | {"stream": True}, path="/v1/chat/completions")
    assert pace is not None
    assert (pace.prompt.count, pace.decode.count) == (1, 1)
    assert pace.decode.seconds[1] == pytest.approx(0.2)


def test_where_nothing_is_told_the_hub_measures_the_first_byte_of_a_stream() -> None:
    pace = learned(stream(TOKEN, DONE), body=CHAT)
    assert pace is not None
    assert (pace.prompt.count, pace.decode.count) == (1, 0)


def test_an_answer_in_one_piece_has_no_first_byte() -> None:
    pace = learned(lambda call: call.answer(OK), body=CHAT | {"stream": False})
    assert pace is not None
    assert pace.prompt.count == 0


def test_the_first_byte_after_a_load_says_nothing_of_the_prompt(hub: ThreadedHub) -> None:
    with scene(hub) as one:
        one.look(lambda attempt: setattr(attempt, "_was_warm", False))
        one.say(BEGUN)
        one.data.say(ENDED)
        assert one.wire.answer().is_whole
        hub.until(lambda server: "tiny:latest" in engine_of(server, "desk").learned.paces)
        assert hub.call(lambda server: engine_of(server, "desk").learned.paces["tiny:latest"].prompt.count) == 0


@pytest.mark.parametrize("tail", [b'"x":' + b"[" * 1000 + b"]" * 1000 + b"}", b'"x":1}'])
def test_no_answer_is_harmed_by_what_it_tells_of_itself(tail: bytes) -> None:
    """What cannot be read or reckoned with is not learned, and the client has its answer."""
    said = b'{"response":"a","done":true,"total_duration":' + b"9" * 400 + b"," + tail
    with (
        run_scripted(lambda call: call.answer(said)) as engine,
        run_hub({"a": engine.url}) as hub,
        Wire(hub.port) as wire,
    ):
        for _ in range(2):
            wire.send(request(body=GENERATE))
            answer = wire.answer()
            assert (answer.status, answer.body) == (200, said)
        hub.until(lambda server: len(server.hub.register.history) == 2)
        records = hub.call(lambda server: [record for record, _ in server.hub.register.history])
        assert [(record.outcome, record.error) for record in records] == [("ok", "")] * 2


def test_the_pace_of_a_stream_is_no_pace_of_what_failed(hub: ThreadedHub) -> None:
    with scene(hub, STREAM, path="/api/generate") as one:
        one.say(BEGUN)
        assert not one.silent(60)
        assert b"fell silent" in one.wire.answer().body
        assert hub.call(lambda server: engine_of(server, "desk").learned.paces) == {}
