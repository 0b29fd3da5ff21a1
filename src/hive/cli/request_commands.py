"""`hive queue` and `hive requests`: the requests that wait, run or have ended; and how to cancel one."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated
from urllib.parse import quote, urlencode

import msgspec
import typer

from hive.cli.command_error import CommandError
from hive.cli.flags import choice_option, whole_option
from hive.cli.hub_client import DEFAULT_HUB, CaFileOption, HubOption, JsonOption, KeyFileOption, find_hub
from hive.cli.output import length, milliseconds, plain, print_json, print_table, size

REQUESTS = "/hive/v1/requests"
QUEUE = "/hive/v1/queue"
MOST = 1_000
"""The most entries that the hub lists."""
_USUAL = 20
_COLUMNS = (
    "REQUEST", "STATE", "OPERATION", "MODEL", "NODE", "KEY",
    "QUEUED", "FIRST BYTE", "TOTAL", "SENT", "ENDED",
)  # fmt: skip
_SPARE = ("SENT", "OPERATION", "KEY", "FIRST BYTE", "QUEUED", "ENDED")
"""The columns that a narrow terminal does not show, the first one left out first. With --wide all are shown."""


class RunningRequest(msgspec.Struct):
    """A running request; times are in milliseconds."""

    request_id: str
    operation: str
    key: str
    model: str
    state: str
    node: str
    attempts: int
    queued_ms: float
    first_byte_ms: float | None
    age_ms: float
    bytes_out: int


class EndedRequest(msgspec.Struct, kw_only=True):
    """A request that has ended; times are in milliseconds."""

    request_id: str
    operation: str
    key: str
    model: str
    time: datetime
    outcome: str
    status: int
    error: str
    node: str
    attempts: int
    queued_ms: float
    first_byte_ms: float | None
    total_ms: float
    bytes_in: int
    bytes_out: int
    detail: str = ""


class Requests(msgspec.Struct):
    """A listing of requests, the newest first."""

    time: datetime
    """The hub's time."""
    running: list[RunningRequest]
    ended: list[EndedRequest]


class ShownModel(msgspec.Struct):
    """A model for which requests wait."""

    model: str
    waiting: int
    oldest_wait_s: float
    nodes: list[str]
    loading_on: list[str]


class ShownLoad(msgspec.Struct):
    """A load that runs."""

    node: str
    model: str
    reason: str
    seconds: float


class ShownQueue(msgspec.Struct):
    """The queue: tickets by model, and the loads."""

    waiting: int
    limit: int
    served_per_second: float | None
    models: list[ShownModel]
    loads: list[ShownLoad]


class ShownState(StrEnum):
    """Which requests to list."""

    RUNNING = "running"
    QUEUED = "queued"
    ENDED = "ended"
    ALL = "all"


ModelOption = Annotated[str | None, typer.Option("--model", metavar="MODEL", help="Only those for this model.")]
NodeOption = Annotated[str | None, typer.Option("--node", metavar="NODE", help="Only those that it has, or had last.")]
KeyOption = Annotated[str | None, typer.Option("--key", metavar="NAME", help="Only those with the key of this name.")]
StateOption = Annotated[
    ShownState,
    choice_option(
        "--state", "Only those that run, or of these only those that wait, or those that have ended.", ShownState
    ),
]
LimitOption = Annotated[
    int,
    whole_option("--limit", f"So many that run and so many that ended; {MOST:,} at most.", least=1, most=MOST),
]
WideOption = Annotated[bool, typer.Option("--wide", help="All columns, also on a narrow terminal.")]
CancelOption = Annotated[
    str | None, typer.Option("--cancel", metavar="REQUEST", help="Cancel this one; its client gets an error.")
]


def queue(
    hub: HubOption = DEFAULT_HUB,
    api_key_file: KeyFileOption = None,
    ca_file: CaFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the models for which requests wait."""
    at = find_hub(hub, api_key_file, ca_file)
    answer = at.ask("GET", QUEUE)
    waits = at.read(answer, ShownQueue)
    if as_json:
        print_json(answer)
        return
    rows = [
        [
            each.model,
            str(each.waiting),
            length(each.oldest_wait_s),
            ", ".join(each.nodes),
            ", ".join(each.loading_on),
        ]
        for each in waits.models
    ]
    print_table(("MODEL", "WAITING", "OLDEST", "NODES", "LOADING"), rows)
    typer.echo(f"{describe_queue(waits)}; {len(waits.loads)} loading")


def describe_queue(waits: ShownQueue) -> str:
    """Return how many requests wait and how fast they are served."""
    served = "none served lately" if waits.served_per_second is None else f"{waits.served_per_second:g} served a second"
    return f"{waits.waiting} of at most {waits.limit} waiting, {served}"


def requests(
    model: ModelOption = None,
    node: NodeOption = None,
    key: KeyOption = None,
    state: StateOption = ShownState.ALL,
    limit: LimitOption = _USUAL,
    cancel: CancelOption = None,
    wide: WideOption = False,
    hub: HubOption = DEFAULT_HUB,
    api_key_file: KeyFileOption = None,
    ca_file: CaFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """List requests, the newest first, or cancel one."""
    filters = {"model": model, "node": node, "key": key}
    given = {name: value for name, value in filters.items() if value is not None}
    at = find_hub(hub, api_key_file, ca_file)
    if cancel is not None:
        if given or state is not ShownState.ALL:
            raise CommandError("--cancel: takes no filter beside it, but one request", 2)
        answer = at.ask("DELETE", path_of(cancel))
        if as_json:
            print_json(answer)
        else:
            typer.echo(f"{plain(cancel)} is cancelled")
        return
    answer = at.ask("GET", f"{REQUESTS}?{urlencode({'limit': limit, 'state': state.value, **given})}")
    listed = at.read(answer, Requests)
    if as_json:
        print_json(answer)
        return
    rows = [_running_cells(each) for each in listed.running]
    rows += [_ended_cells(each, (listed.time - each.time).total_seconds()) for each in listed.ended]
    print_table(_COLUMNS, rows, ("REQUEST",), () if wide else _SPARE)


def path_of(request_id: str) -> str:
    """Return the path of one request."""
    return f"{REQUESTS}/{quote(request_id, safe='')}"


def _running_cells(each: RunningRequest) -> list[str]:
    return [
        each.request_id, each.state, each.operation, each.model, each.node, each.key,
        milliseconds(each.queued_ms), milliseconds(each.first_byte_ms), milliseconds(each.age_ms),
        size(each.bytes_out), "",
    ]  # fmt: skip


def _ended_cells(each: EndedRequest, age: float) -> list[str]:
    return [
        each.request_id, outcome(each), each.operation, each.model, each.node, each.key,
        milliseconds(each.queued_ms), milliseconds(each.first_byte_ms), milliseconds(each.total_ms),
        size(each.bytes_out), f"{length(max(age, 0.0))} ago",
    ]  # fmt: skip


def outcome(each: EndedRequest) -> str:
    """Return how a request ended, with the error's code where it says more."""
    return each.outcome if each.error in ("", each.outcome) else f"{each.outcome} ({each.error})"
