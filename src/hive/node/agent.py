"""The agent: it joins the hub, joins again whenever the hub is lost, and leaves in good order."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import platform
import random
import secrets
import signal
import time
from collections.abc import Callable, Mapping
from enum import IntEnum

from hive import __version__
from hive.fleet.kinds import EngineKind
from hive.net.outbox import Outbox
from hive.net.trust import make_tls
from hive.node.agent_options import NodeOptions
from hive.node.data_sockets import STEADY_SECONDS
from hive.node.dialing import Dialer, DialError
from hive.node.local_engines import Engines
from hive.node.machine_watch import Gpus, MachineWatch, find_gpus
from hive.node.proxies import find_proxy
from hive.node.session import Session
from hive.wire.link_dial import NoAnswer, Refused, ends_agent, redial_seconds
from hive.wire.link_messages import Hello, ReportedEngine, Welcome, one_line
from hive.wire.link_rules import PATH, CloseCode

DRAIN_SECONDS = 30.0
REPEAT_SECONDS = 600.0
"""Seconds after which the same warning is logged again."""

_log = logging.getLogger(__name__)


class ExitCode(IntEnum):
    """The exit codes of the program; 2 is a wrong use."""

    STOPPED = 0
    CUT_OFF = 1
    KEY_REFUSED = 3
    NO_COMMON_VERSION = 4


class AgentError(Exception):
    """A problem that only a person can solve. The message says what it is."""

    def __init__(self, sentence: str, code: ExitCode) -> None:
        super().__init__(sentence)
        self.code = code


class AgentVoice:
    """Logs a warning in one line. The same warning is logged again only after a while."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._said: tuple[str, float] | None = None

    def say(self, sentence: str) -> None:
        """Log the sentence, unless it was the last one and is not old yet."""
        now = self._now()
        if self._said is None or self._said[0] != sentence or now - self._said[1] >= REPEAT_SECONDS:
            self._said = (sentence, now)
            _log.warning("%s", sentence)

    def note_recovery(self) -> None:
        """Note that the problem is over, so that the next warning is logged."""
        self._said = None


class Agent:
    """One node. Call `run`. Call `stop` once to leave in order, twice to leave at once."""

    def __init__(
        self,
        options: NodeOptions,
        environ: Mapping[str, str] | None = None,
        gpus: Callable[[], Gpus] = find_gpus,
    ) -> None:
        """Prepare the agent. Raises `SettingsError`."""
        tls = make_tls(options.ca_file)
        proxy = find_proxy(options.hub, os.environ if environ is None else environ)
        agent = f"hive-node/{__version__}"
        self._dialer = Dialer(options.hub, options.key.value, agent, proxy, tls)
        self._labels = dict(options.labels)
        self._instance = secrets.token_hex(16)
        self._machine = MachineWatch(time.monotonic, gpus)
        self._engines = Engines(options, Outbox(), tls, self._machine)
        self._voice = AgentVoice(time.monotonic)
        self._session: Session | None = None
        self._stopping = asyncio.Event()
        self._hurrying = asyncio.Event()

    def stop(self) -> None:
        """Let running exchanges finish, then end. The second call ends at once."""
        if self._stopping.is_set():
            self._hurrying.set()
        self._stopping.set()

    async def run(self) -> ExitCode:
        """Serve until stopped. Raises `AgentError`."""
        works = (self._engines.run(), self._machine.run(), self._stay_joined())
        tasks = [asyncio.create_task(each) for each in (*works, self._until_stopped())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()  # only the last task ends without an exception
            return await self._leave()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _until_stopped(self) -> None:
        await self._stopping.wait()

    async def _leave(self) -> ExitCode:
        if self._session is None:
            return ExitCode.STOPPED
        _log.info("stopping: %d exchanges run", self._session.sockets.running)
        leaving = asyncio.create_task(self._session.leave(DRAIN_SECONDS))
        hurrying = asyncio.create_task(self._hurrying.wait())
        try:
            await asyncio.wait([leaving, hurrying], return_when=asyncio.FIRST_COMPLETED)
            return ExitCode.STOPPED if leaving.done() else ExitCode.CUT_OFF
        finally:
            leaving.cancel()
            hurrying.cancel()
            await asyncio.gather(leaving, hurrying, return_exceptions=True)

    async def _stay_joined(self) -> None:
        await self._engines.first_look()
        attempt = 0
        while True:
            began = time.monotonic()
            self._session = Session(self._dialer, self._engines, self._machine, self._greet)
            why, retry_after = await self._join(self._session)
            self._session = None
            attempt = 1 if time.monotonic() - began > STEADY_SECONDS else attempt + 1
            delay = redial_seconds(attempt, why, random.random())  # noqa: S311 - no secret
            await asyncio.sleep(max(delay, retry_after))

    async def _join(self, session: Session) -> tuple[int, float]:
        """Run a session. Return why it ended, and for how many seconds the hub wants no dial. Raises `AgentError`."""
        hub = self._dialer.hub
        try:
            closed = await session.run(self._hello)
        except Refused as refused:
            if ends_agent(refused.status, is_of_hub=refused.is_of_hub):
                raise AgentError(_final(refused.status, str(refused)), _exit_code(refused.status)) from None
            self._voice.say(f"{hub} {_refusal(hub, refused)}; trying again")
            return refused.status, min(refused.retry_after or 0.0, 60.0)
        except DialError as error:
            self._voice.say(f"no way to the hub {hub}: {error}; trying again")
            return 0, 0.0
        except Exception:
            _log.exception("joining %s; trying again", hub)
            return 0, 0.0
        reason = one_line(closed.reason, 200)
        if ends_agent(closed.code, is_of_hub=not closed.is_ours):
            raise AgentError(_final(closed.code, reason), _exit_code(closed.code))
        self._voice.say(_ending(hub, closed.code, reason))
        return closed.code, 0.0

    def _hello(self) -> Hello:
        return Hello(
            instance=self._instance,
            agent=f"hive {__version__}",
            platform=one_line(f"{platform.system()} {platform.release()} {platform.machine()}", 128),
            labels=self._labels,
            engines=self._engines.report(),
            machine=self._machine.machine,
        )

    def _greet(self, welcome: Welcome) -> None:
        self._voice.note_recovery()
        engines = ", ".join(map(_described, self._engines.report())) or "none yet"
        _log.info("joined %s as %s (engines: %s)", self._dialer.hub, welcome.node, engines)


def _described(engine: ReportedEngine) -> str:
    return f"{engine.kind if engine.kind != EngineKind.UNKNOWN else 'nothing known yet'} at {engine.address}"


def _exit_code(why: int) -> ExitCode:
    return ExitCode.NO_COMMON_VERSION if why == 426 else ExitCode.KEY_REFUSED


def _final(why: int, reason: str) -> str:
    if why == 426:
        return f"the hub and this agent speak no common version: {reason}"
    if why == CloseCode.KEY_REVOKED:
        return f"the hub has ended this node's session: {reason or 'its key was revoked'}"
    return f"the hub refuses the key: {reason}"


def _refusal(hub: str, refused: Refused) -> str:
    """Return how the hub, or another server in its place, refused this node."""
    if isinstance(refused, NoAnswer):
        hint = "; if the hub has a certificate, use https://" if hub.startswith("http:") else ""
        return f"closed the connection without an answer{hint}"
    if refused.status == 404 and not refused.is_of_hub:
        return f"is no Hive hub, or has another path: it has no {PATH}"
    if not refused.status:
        return f"does not answer as a hub does: {refused}"
    return f"does not let this node in ({refused.status}): {refused}"


def _ending(hub: str, code: int, reason: str) -> str:
    if code == CloseCode.NAME_TAKEN:
        return f"{hub} does not let this node in: {reason or 'its name is taken'}; trying again"
    return f"the link to {hub} ended: {reason or 'without a reason'} ({code}); dialing again"


def run_agent(options: NodeOptions) -> int:
    """Run an agent until SIGTERM or SIGINT. Return the exit code. Raises `SettingsError` or `AgentError`."""
    try:
        import uvloop
    except ImportError:
        factory = asyncio.new_event_loop
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(_run(options))


async def _run(options: NodeOptions) -> int:
    agent = Agent(options)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, agent.stop)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(agent.stop))
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)  # an exchange leaves no cycles for the collector
    return await agent.run()
