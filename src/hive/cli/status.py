"""`hive status`: the whole hub on one screen, or all that is known of one request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Annotated

import msgspec
import typer

from hive.cli.hub import DEFAULT_HUB, CaFileOption, Hub, HubOption, JsonOption, KeyFileOption, find_hub
from hive.cli.output import length, plain, print_fields, print_json, print_table, size
from hive.cli.requests import (
    MOST,
    QUEUE,
    REQUESTS,
    Ended,
    Queue,
    Requests,
    Running,
    describe_queue,
    outcome,
    path_of,
)

_NODES = "/hive/v1/nodes"
_LATELY = timedelta(minutes=1)
_NAMED = 5
"""So many engines that are not ready are named."""

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
    seconds: float | None


class _Decision(msgspec.Struct):
    policy: str
    reason: str
    node: str
    engine: str | None
    running: int
    candidates: list[_Candidate]
    failure: str = ""


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


class _RunningDetail(Running):
    decisions: list[_Decision]
    waits: _Wait | None


class _EndedDetail(Ended):
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


# --- the hub ---


def _show_hub(at: Hub, as_json: bool) -> None:
    answers = {name: at.ask("GET", path) for name, path in _PARTS.items()}
    engines = at.read(answers["nodes"], _Nodes).nodes
    waits, listed = at.read(answers["queue"], Queue), at.read(answers["requests"], Requests)
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
            ("RUNNING", _count(Counter(each.state for each in listed.running))),
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
    """Return a line for each of the first engines that are not ready."""
    troubled = [each for each in engines if each.status != "ready"]
    lines = [
        f"{_place(each.name, each.engine)} is {each.status}{f': {each.error}' if each.error else ''}"
        for each in troubled[:_NAMED]
    ]
    return lines + ([f"and {len(troubled) - _NAMED} more"] if len(troubled) > _NAMED else [])


def _describe_slots(engines: Sequence[_Engine]) -> str:
    there = sum(each.slots for each in engines if each.status != "down")
    return f"{sum(each.running for each in engines)}/{there} taken"


def _describe_ended(listed: Requests) -> str:
    """Return how the requests ended that ended in the last minute, or as far back as the hub knows."""
    lately = [each for each in listed.ended if listed.time - each.time <= _LATELY]
    text = _count(Counter(each.outcome for each in lately))
    if len(lately) == MOST:
        text += f" (all that the hub keeps: {length((listed.time - lately[-1].time).total_seconds())})"
    return text


def _count(counted: Counter[str], what: str = "") -> str:
    parts = ", ".join(f"{number} {name}" for name, number in counted.most_common())
    return f"{counted.total()}{what}" + (f": {parts}" if parts else "")


# --- one request ---


def _show_request(at: Hub, request_id: str, as_json: bool) -> None:
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
        ("QUEUED", length(found.queued_s)),
        ("FIRST BYTE", length(found.first_byte_s)),
        ("TOTAL", f"{length(found.age_s)} so far"),
        ("SENT", size(found.bytes_out)),
    ]


def _ended_fields(found: _EndedDetail) -> list[tuple[str, str]]:
    return [
        ("STATE", f"ended: {outcome(found)}, status {found.status}"),
        ("ENDED", f"{found.time.astimezone():%Y-%m-%d %H:%M:%S}"),
        ("ATTEMPTS", str(found.attempts)),
        ("QUEUED", length(found.queued_ms / 1000)),
        ("FIRST BYTE", length(None if found.first_byte_ms is None else found.first_byte_ms / 1000)),
        ("TOTAL", length(found.total_ms / 1000)),
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
    where, why = _place(decision.node, decision.engine), f"{decision.policy}: {decision.reason}"
    typer.echo()
    beside = f"{decision.running - 1} ran there already" if decision.running > 1 else "nothing else ran there"
    typer.echo(plain(f"{number}. To {where} ({why}); {beside}."))
    if decision.failure:
        typer.echo(plain(f"   It came to nothing: {decision.failure}."))
    if not decision.candidates:
        return
    rows = [
        [
            _place(each.node, each.engine),
            "-" if each.seconds is None else f"{each.seconds:.2f}",
            "chosen" if _is_chosen(each, decision) else "",
        ]
        for each in decision.candidates
    ]
    # Only `best` expects seconds; the others compare numbers of their own.
    print_table(("CANDIDATE", "FIRST BYTE, S" if decision.policy == "best" else "SCORE", ""), rows)


def _is_chosen(candidate: _Candidate, decision: _Decision) -> bool:
    return (candidate.node, candidate.engine) == (decision.node, decision.engine)


def _place(node: str, engine: str | None) -> str:
    return node if engine is None else f"{node}, {engine}"
