"""The scenarios of a run. They take turns in short rounds, so that noise of the machine affects all alike."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import reconnect
from native import SETTLE, STREAM_SECONDS, Lab, Load, Outcome, run_load, running_engine
from processes import Memory
from proxies import BEFORE_JOINED, JOINED, NODE, STARTS, STARTS_BEFORE, Target
from results import DIRECT, Footprint, Results, Sample, Scenario

STREAMS = 1000
NODE_STREAMS = 300
"""A real node shares its core with the engine and the load, so 1,000 streams would be too many."""
RAMP = 0.5
CONNECTIONS = 64
ENGINES = 3
BODY_BYTES = 100_000
WARM_UP_SECONDS = 0.2

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """How many rounds there are, and how many seconds each lasts. Streams last as long as they need."""

    rounds: int
    stream_rounds: int
    seconds: float


FULL = Plan(rounds=6, stream_rounds=5, seconds=1.3)
QUICK = Plan(rounds=1, stream_rounds=1, seconds=0.6)


def run(lab: Lab, proxies: Sequence[str], plan: Plan, say: Say) -> Results:
    """Start engines and proxies, measure every scenario, stop them all."""
    results, loads = Results(), _loads(lab.directory, plan)
    starts = {**STARTS, **STARTS_BEFORE}
    with ExitStack() as stack:
        engines = [stack.enter_context(running_engine(lab, f"engine-{n}")) for n in range(ENGINES)]
        targets = [stack.enter_context(starts[proxy](lab, proxy, engines[:1])) for proxy in proxies]
        say("memory idle and with 1,000 streams")
        for target in targets:
            _measure_memory(lab, target, loads[Scenario.CHUNKS], results)
        direct = Target(DIRECT, engines[0], "none", None)
        dialing = [target for target in targets if target.name not in (JOINED, NODE, BEFORE_JOINED)]
        for scenario, asked in (
            (Scenario.CHUNKS, targets),
            (Scenario.BODIES, dialing),
            (Scenario.LATENCY, [direct, *targets]),
        ):
            say(scenario)
            _measure_rounds(lab, scenario, asked, loads[scenario], plan, results)
        say("requests, one node and three")
        for proxy in [target.name for target in dialing]:
            target = stack.enter_context(starts[proxy](lab, f"{proxy}-{ENGINES}", engines))
            targets.append(replace(target, name=proxy, engines=ENGINES))
        _measure_rounds(lab, Scenario.REQUESTS, targets, loads[Scenario.REQUESTS], plan, results)
        if NODE in proxies:
            say(f"{reconnect.NODES} joined nodes and a restart of their hub")
            _measure_reconnect(lab, engines[0], loads[Scenario.CHUNKS].body, results)
    return results


def _measure_reconnect(lab: Lab, engine: int, body: Path, results: Results) -> None:
    measured = reconnect.measure(lab, engine, body)
    results.reconnects.append(measured)
    if measured.joined < measured.nodes:
        results.troubles.append(f"after a restart the hub calls {measured.joined} of {measured.nodes} nodes ready")


def _loads(directory: Path, plan: Plan) -> dict[Scenario, Load]:
    small = [{"role": "user", "content": "Why is the sky blue?"}]
    request = _write(directory / "request.json", {"messages": small, "stream": False})
    stream = _write(directory / "stream.json", {"messages": small, "stream": True})
    large = _write(directory / "agent.json", {"messages": _agent_messages(), "stream": False})
    return {
        Scenario.REQUESTS: Load(CONNECTIONS, request, seconds=plan.seconds),
        Scenario.CHUNKS: Load(STREAMS, stream, each=1, ramp=RAMP, is_streamed=True),
        Scenario.BODIES: Load(CONNECTIONS, large, seconds=plan.seconds),
        Scenario.LATENCY: Load(1, request, seconds=plan.seconds),
    }


def _write(path: Path, body: dict[str, object]) -> Path:
    path.write_text(json.dumps({"model": "m:latest", **body}, separators=(",", ":")))
    return path


def _agent_messages() -> list[dict[str, object]]:
    """Return the history of a coding agent: prose, tool calls, source code with quotes and line ends."""
    listing = 'def f(path: str) -> "str":\n\treturn open(path, "r").read()  # C:\\temp\n' * 30
    call = {"function": {"name": "read_file", "arguments": {"path": "src/main.py", "role": "model"}}}
    turn: list[dict[str, object]] = [
        {"role": "user", "content": "Now look at the next file and tell me what it does. " * 10},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_name": "read_file", "content": listing},
        {"role": "assistant", "content": "It reads a file and returns what is in it. " * 10},
    ]
    turns = BODY_BYTES // len(json.dumps(turn, separators=(",", ":")))
    return [{"role": "system", "content": "You are a careful engineer."}, *(turn * turns)]


def _measure_rounds(
    lab: Lab, scenario: Scenario, targets: Sequence[Target], load: Load, plan: Plan, results: Results
) -> None:
    if not load.is_streamed:
        for target in targets:
            _ask(lab, target, replace(load, seconds=WARM_UP_SECONDS), scenario, 0, results)
    for number in range(1, (plan.stream_rounds if load.is_streamed else plan.rounds) + 1):
        for target in targets:
            cpu_seconds, outcome = _ask(lab, target, load, scenario, number, results)
            if units := outcome.lines if load.is_streamed else outcome.requests:
                cpu_us = cpu_seconds * 1e6 / units
                results.samples.append(Sample(scenario, target.name, target.engines, number, cpu_us, outcome))


def _ask(
    lab: Lab, target: Target, load: Load, scenario: Scenario, number: int, results: Results
) -> tuple[float, Outcome]:
    """Run one load through a target. Return its CPU seconds and its outcome, and note lost answers."""
    if load.is_streamed and target.name == NODE:
        load = replace(load, connections=NODE_STREAMS)
    readings: list[float] = []
    process = target.process
    read = (lambda: readings.append(process.cpu_seconds())) if process else (lambda: readings.append(0.0))
    outcome = run_load(lab, load, target.port, target.key, read)
    results.troubles.extend(_troubles(target, load, scenario, number, outcome))
    return readings[1] - readings[0], outcome


def _troubles(target: Target, load: Load, scenario: Scenario, number: int, outcome: Outcome) -> Iterator[str]:
    expected = load.connections * load.each
    if outcome.broken or outcome.failed or outcome.requests < expected:
        yield (
            f"{target.name}, {target.engines} node(s), {scenario}, round {number}: {outcome.broken} broken,"
            f" {outcome.failed} refused, {outcome.requests} whole; the first: {outcome.first_failure}"
        )
    elif load.each and outcome.peak < load.connections:
        yield f"{target.name}, {scenario}, round {number}: only {outcome.peak} streams at the same time"


def _measure_memory(lab: Lab, target: Target, load: Load, results: Results) -> None:
    """Read a proxy's memory when it is idle and in the middle of its first streams, which also warm it up."""
    process = target.process
    assert process is not None
    idle = process.memory()
    seen: list[Memory] = []
    middle = threading.Timer(SETTLE + (RAMP + STREAM_SECONDS) / 2, lambda: seen.append(process.memory()))
    middle.start()
    _ask(lab, target, load, Scenario.CHUNKS, 0, results)
    middle.join()
    results.footprints.append(
        Footprint(target.name, idle, seen[0], NODE_STREAMS if target.name == NODE else load.connections)
    )
