"""`hive status`: the whole hub on one screen, or everything about one request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Annotated

import msgspec
import typer

from hive.cli.hub_client import DEFAULT_HUB, CaFileOption, HubClient, HubOption, JsonOption, KeyFileOption, find_hub
from hive.cli.output import length, milliseconds, plain, print_fields, print_json, print_table, size
from hive.cli.request_commands import (
    MOST,
    QUEUE,
    REQUESTS,
    EndedRequest,
    Requests,
    RunningRequest,
    ShownQueue,
    describe_queue,
    outcome,
    path_of,
)
from hive.config import PolicyName
from hive.fleet.engines import IN_SERVICE

_NODES = "/hive/v1/nodes"
_LATELY = timedelta(minutes=1)
_NAMED_ENGINES = 5
"""The number of engines that are listed by name when they are not ready."""
_IN_SERVICE = frozenset(health.value for health in IN_SERVICE)
"""The states in which an engine's slots count."""

RequestArgument = Annotated[
    str | None, typer.Argument(metavar="REQUEST", help="A request's X-Hive-Request-Id.", show_default=False)
]


class _Engine(msgspec.Struct):
    name: str
    status: str
    slots: int
    running: int
    error: str | None
    engine: str | None = None


class _Nodes(msgspec.Struct):
    nodes: list[_Engine]


class _Candidate(msgspec.Struct):
    node: str
    engine: str | None
    expected_ms: float | None
    weight: float | None


class _Decision(msgspec.Struct):
    policy: str
    reason: str
    node: str
    engine: str | None
    running: int
    candidates: list[_Candidate]
    failure: str = ""
    waited_for: str = ""


class _WaitingNode(msgspec.Struct):
    node: str
    engine: str | None
    status: str
    running: int
    slots: int
    reason: str


class _Wait(msgspec.Struct):
    reason: str
    ahead: int
    nodes: list[_WaitingNode]


class _Kind(msgspec.Struct):
    state: str


class _RunningDetail(RunningRequest):
    decisions: list[_Decision]
    waits: _Wait | None


class _EndedDetail(EndedRequest, kw_only=True):
    decisions: list[_Decision]


def status(
    request: RequestArgument = None,
    hub: HubOption = DEFAULT_HUB,
    api_key_file: KeyFileOption = None,
    ca_file: CaFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the hub on one screen, or all that is known of one request."""
    at = find_hub(hub, api_key_file, ca_file)
    if request is None:
        _show_hub(at, as_json)
    else:
        _show_request(at, request, as_json)


def _show_hub(at: HubClient, as_json: bool) -> None:
    answers = {name: at.ask("GET", path) for name, path in _PARTS.items()}
    engines = at.read(answers["nodes"], _Nodes).nodes
    waits, listed = at.read(answers["queue"], ShownQueue), at.read(answers["requests"], Requests)
    if as_json:
        print_json(msgspec.json.encode({name: msgspec.Raw(answer) for name, answer in answers.items()}))
        return
    loads = [f"{each.node} loads {each.model} since {length(each.seconds)}" for each in waits.loads]
    print_fields(
        [
            ("NODES", _describe_nodes(engines)),
            *(("", line) for line in _not_ready(engines)),
            ("SLOTS", _describe_slots(engines)),
            ("QUEUE", describe_queue(waits)),
            ("RUNNING", _count_requests([each.state for each in listed.running])),
            ("LOADS", loads[0] if loads else "none"),
            *(("", line) for line in loads[1:]),
            ("LAST MINUTE", _describe_ended(listed)),
        ]
    )


_PARTS = {"nodes": _NODES, "queue": QUEUE, "requests": f"{REQUESTS}?limit={MOST}"}


def _describe_nodes(engines: Sequence[_Engine]) -> str:
    names = {each.name for each in engines}
    what = "" if len(names) == len(engines) else f" engines on {len(names)} nodes"
    return _count(Counter(each.status for each in engines), what)


def _not_ready(engines: Iterable[_Engine]) -> list[str]:
    """Return a line for each of the first `_NAMED_ENGINES` engines that are not ready."""
    troubled = [each for each in engines if each.status != "ready"]
    lines = [
        f"{_place(each.name, each.engine)} is {each.status}{f': {each.error}' if each.error else ''}"
        for each in troubled[:_NAMED_ENGINES]
    ]
    return lines + ([f"and {len(troubled) - _NAMED_ENGINES} more"] if len(troubled) > _NAMED_ENGINES else [])


def _describe_slots(engines: Sequence[_Engine]) -> str:
    """Return how many slots of the engines in service are taken. Engines out of service may still run requests."""
    working = [each for each in engines if each.status in _IN_SERVICE]
    text = f"{sum(each.running for each in working)}/{sum(each.slots for each in working)} taken"
    elsewhere = sum(each.running for each in engines) - sum(each.running for each in working)
    return text + (f", and {elsewhere} on nodes out of service" if elsewhere else "")


def _describe_ended(listed: Requests) -> str:
    """Return how the requests of the last minute ended, or of the shorter time that the hub remembers."""
    lately = [each for each in listed.ended if listed.time - each.time <= _LATELY]
    text = _count_requests([each.outcome for each in lately], " ended")
    if len(lately) == MOST:
        text += f" (all that the hub keeps: {length((listed.time - lately[-1].time).total_seconds())})"
    return text


def _count_requests(states: Sequence[str], what: str = "") -> str:
    return _count(Counter(states), f" request{'' if len(states) == 1 else 's'}{what}")


def _count(counted: Counter[str], what: str = "") -> str:
    parts = ", ".join(f"{number} {name}" for name, number in counted.most_common())
    return f"{counted.total()}{what}" + (f": {parts}" if parts else "")


def _show_request(at: HubClient, request_id: str, as_json: bool) -> None:
    answer = at.ask("GET", path_of(request_id))
    found: _EndedDetail | _RunningDetail
    if at.read(answer, _Kind).state == "ended":
        found = at.read(answer, _EndedDetail)
    else:
        found = at.read(answer, _RunningDetail)
    if as_json:
        print_json(answer)
        return
    fields = [
        ("REQUEST", found.request_id),
        ("WHAT", f"{found.operation} of {found.model}" if found.model else found.operation),
        ("KEY", found.key or "-"),
        ("NODE", found.node or "-"),
    ]
    if isinstance(found, _EndedDetail):
        print_fields([*fields, *_ended_fields(found)])
    else:
        print_fields([*fields, *_running_fields(found)])
        if found.waits is not None:
            _show_wait(found.waits)
    for number, decision in enumerate(found.decisions, 1):
        _show_decision(number, decision)


def _running_fields(found: _RunningDetail) -> list[tuple[str, str]]:
    return [
        ("STATE", found.state),
        ("ATTEMPTS", str(found.attempts)),
        ("QUEUED", milliseconds(found.queued_ms)),
        ("FIRST BYTE", milliseconds(found.first_byte_ms)),
        ("TOTAL", f"{milliseconds(found.age_ms)} so far"),
        ("SENT", size(found.bytes_out)),
    ]


def _ended_fields(found: _EndedDetail) -> list[tuple[str, str]]:
    return [
        ("STATE", f"ended: {outcome(found)}, status {found.status}"),
        *([("REASON", found.detail)] if found.detail else []),
        ("ENDED", f"{found.time.astimezone():%Y-%m-%d %H:%M:%S}"),
        ("ATTEMPTS", str(found.attempts)),
        ("QUEUED", milliseconds(found.queued_ms)),
        ("FIRST BYTE", milliseconds(found.first_byte_ms)),
        ("TOTAL", milliseconds(found.total_ms)),
        ("RECEIVED", size(found.bytes_in)),
        ("SENT", size(found.bytes_out)),
    ]


def _show_wait(wait: _Wait) -> None:
    typer.echo()
    typer.echo(plain(f"It waits: {wait.reason}; {wait.ahead} before it for the same model."))
    rows = [
        [_place(each.node, each.engine), each.status, f"{each.running}/{each.slots}", each.reason]
        for each in wait.nodes
    ]
    print_table(("NODE", "STATUS", "BUSY", "WHY NOT"), rows)


def _show_decision(number: int, decision: _Decision) -> None:
    where = _place(decision.node, decision.engine)
    why = f"{decision.policy}: {decision.reason}"
    typer.echo()
    beside = f"{decision.running - 1} ran there already" if decision.running > 1 else "nothing else ran there"
    typer.echo(plain(f"{number}. To {where} ({why}); {beside}."))
    if decision.waited_for:
        typer.echo(plain(f"   It waited before: {decision.waited_for}."))
    if decision.failure:
        typer.echo(plain(f"   It came to nothing: {decision.failure}."))
    if any(_compared(each) for each in decision.candidates):
        measure = "FIRST BYTE EXPECTED" if decision.policy == PolicyName.BEST else "WEIGHT (LEAST WINS)"
        rows = [
            [_place(each.node, each.engine), _compared(each), "yes" if _is_chosen(each, decision) else "no"]
            for each in decision.candidates
        ]
        print_table(("CANDIDATE", measure, "CHOSEN"), rows)


def _compared(candidate: _Candidate) -> str:
    """Return the value that a candidate was compared by; "" where there was no other candidate."""
    expected, weight = candidate.expected_ms, candidate.weight
    if expected is not None:  # two candidates may differ by little, so three digits are shown
        return f"{expected:.3g} ms" if expected < 999.5 else milliseconds(expected)
    return "" if weight is None else f"{weight:.3f}".rstrip("0").rstrip(".")


def _is_chosen(candidate: _Candidate, decision: _Decision) -> bool:
    return (candidate.node, candidate.engine) == (decision.node, decision.engine)


def _place(node: str, engine: str | None) -> str:
    return node if engine is None else f"{node}, {engine}"
