"""Carries out a decision: it waits for a slot, keeps the pace, and lets faults strike at the right place."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from hive.sim.faults import FaultKind, InjectedFault, Plan
from hive.sim.ledger import Ledger
from hive.sim.machine import Job, QueueFull
from hive.sim.ollama_voice import OllamaVoice
from hive.sim.options import SimOptions
from hive.sim.sender import Cut, Sender
from hive.sim.surfaces import JSON, JSON_UTF8, SimReply, error_reply
from hive.sim.turns import LoadFailed, SimTurns
from hive.sim.voices import EVENT_STREAM, NDJSON, Clock, Timings, Voice, encode
from hive.sim.work import Lines, Settlement, Work

BUSY = "server busy, please try again.  maximum pending requests exceeded"
"""Ollama's text has two spaces, as in server/sched.go."""
LOAD_FAILED = "llama runner process has terminated: "
RUNNER_ERROR = "an error was encountered while running the model: unexpected EOF"
BREATHER = 32
"""A stream without a pace lets other tasks run after this many frames."""

_STREAM_FAULTS = (
    FaultKind.FREEZE_STREAM,
    FaultKind.MALFORMED,
    FaultKind.DROP,
    FaultKind.RESET,
    FaultKind.CUT_LINE,
    FaultKind.BAD_CHUNK,
    FaultKind.ERROR_LINE,
    FaultKind.NO_END,
)


@dataclass(frozen=True, slots=True)
class Script:
    """A stream that will be sent: its frames in order, their number, its end, and its error."""

    content_type: str
    headers: tuple[tuple[str, str], ...]
    frames: Iterator[bytes]
    count: int
    interval: float
    closing: Callable[[], bytes]
    error: Callable[[str], bytes]


@dataclass(frozen=True, slots=True)
class Performer:
    """Answers the requests of one engine."""

    options: SimOptions
    turns: SimTurns
    ledger: Ledger
    clock: Clock
    hold: Callable[[InjectedFault], Awaitable[None]]

    async def work(self, work: Work, path: str, sender: Sender, plan: Plan, load_failure: InjectedFault | None) -> None:
        """Do the work and answer. Errors of the scheduler are answers too."""
        job = Job(work.model, work.num_ctx, work.keep_alive, load_failure is not None)
        asked = self.clock()
        try:
            async with self.turns.slot(job):
                await self._perform(work, path, sender, plan, asked)
                self.ledger.finished += 1
        except QueueFull:
            await sender.reply(error_reply(self.options.kind, path, 503, BUSY))
        except LoadFailed:
            text = LOAD_FAILED + (load_failure.text if load_failure else "")
            await sender.reply(error_reply(self.options.kind, path, 500, text))

    async def lines(self, lines: Lines, sender: Sender, plan: Plan) -> None:
        """Send the lines of a pull or of a similar task as a stream."""
        *frames, closing = lines.frames
        script = Script(NDJSON, (), iter(frames), len(frames), 0.0, lambda: closing, _error_line)
        await self._stream(script, sender, plan)

    async def _perform(self, work: Work, path: str, sender: Sender, plan: Plan, asked: int) -> None:
        granted = self.clock()
        slower = plan[FaultKind.SLOW].number if FaultKind.SLOW in plan else 1.0
        task = work.task
        if isinstance(task, Settlement):
            await _pause(0.0 if task.is_instant else self.options.ttft * slower)
            await sender.reply(task.reply(self._timings(asked, granted, self.clock())))
            return
        await _pause(self.options.ttft * slower)
        began = self.clock()
        interval = self.options.token_interval * slower
        voice = task.voice
        if task.is_stream:
            script = self._script(voice, interval, lambda: voice.closing(self._timings(asked, granted, began)))
            await _pause(interval * voice.speech.tokens if voice.speech.call else 0.0)
            await self._stream(script, sender, plan)
            return
        await _pause(interval * voice.speech.tokens)
        self.ledger.tokens += voice.speech.tokens
        await sender.reply(self._whole(voice, path, plan, self._timings(asked, granted, began)))

    def _timings(self, asked: int, granted: int, began: int) -> Timings:
        """Return the times that an engine reports. As with a real one, only the total includes the wait for a slot."""
        now = self.clock()
        load = max(1, min(granted - asked, int(self.options.load_time * 1e9)))
        return Timings(now - asked, load, began - granted, now - began)

    def _script(self, voice: Voice, interval: float, closing: Callable[[], bytes]) -> Script:
        count = 1 if voice.speech.call else voice.speech.tokens
        return Script(voice.content_type, voice.headers, _frames(voice), count, interval, closing, voice.error)

    def _whole(self, voice: Voice, path: str, plan: Plan, timings: Timings) -> SimReply:
        if FaultKind.ERROR_LINE in plan:
            return error_reply(self.options.kind, path, 500, RUNNER_ERROR)
        if isinstance(voice, OllamaVoice):
            body = voice.unfinished() if FaultKind.NO_END in plan else voice.whole(timings)
            return SimReply(200, body, JSON_UTF8)
        return SimReply(200, voice.whole(timings), JSON)

    async def _stream(self, script: Script, sender: Sender, plan: Plan) -> None:
        strikes = _strikes(plan, script.count)
        start = asyncio.get_running_loop().time()
        await sender.begin(script.content_type, script.headers)
        for index, frame in enumerate(script.frames):
            for kind in strikes.get(index, ()):
                if await self._strike(kind, frame, script, sender, plan):
                    return
            await self._keep_pace(start, index, script.interval)
            await sender.piece(frame)
            self.ledger.tokens += 1
        last = script.closing()
        for kind in strikes.get(script.count, ()):
            if await self._strike(kind, last, script, sender, plan):
                return
        await sender.piece(last)
        await sender.end()

    async def _keep_pace(self, start: float, index: int, interval: float) -> None:
        if interval:
            await _pause(start + index * interval - asyncio.get_running_loop().time())
        elif index % BREATHER == BREATHER - 1:
            await asyncio.sleep(0)

    async def _strike(self, kind: FaultKind, frame: bytes, script: Script, sender: Sender, plan: Plan) -> bool:
        """Let one fault happen before this frame. Return True when the stream is over."""
        match kind:
            case FaultKind.FREEZE_STREAM:
                await sender.flush()
                await self.hold(plan[kind])
                return False
            case FaultKind.MALFORMED:
                data = b'data: {"choices":[{"delta":,,\n\n' if script.content_type == EVENT_STREAM else b'{"model":,,\n'
                await sender.piece(data)
                return False
            case FaultKind.DROP | FaultKind.RESET:
                raise Cut(is_reset=kind is FaultKind.RESET)
            case FaultKind.CUT_LINE:
                await sender.piece(frame[: len(frame) // 2])
                raise Cut
            case FaultKind.BAD_CHUNK:
                await sender.bad_chunk()
            case FaultKind.ERROR_LINE:
                await sender.piece(script.error(RUNNER_ERROR))
        await sender.end()
        return True


def _frames(voice: Voice) -> Iterator[bytes]:
    """Yield one frame for each token, when its time has come. The opening is part of the first frame."""
    opening = voice.opening()
    speech = voice.speech
    if speech.call:
        yield opening + voice.call(speech.call)
        return
    for word in speech.thoughts:
        yield opening + voice.thought(word)
        opening = b""
    for word in speech.words:
        yield opening + voice.token(word)
        opening = b""


def _strikes(plan: Plan, count: int) -> dict[int, list[FaultKind]]:
    """Return which faults strike before which frame. A position beyond the end means: before the end mark."""
    strikes: dict[int, list[FaultKind]] = {}
    for kind in _STREAM_FAULTS:
        if kind in plan:
            strikes.setdefault(int(min(plan[kind].number, count)), []).append(kind)
    return strikes


async def _pause(seconds: float) -> None:
    if seconds > 0:
        await asyncio.sleep(seconds)


def _error_line(text: str) -> bytes:
    return encode({"error": text}) + b"\n"
