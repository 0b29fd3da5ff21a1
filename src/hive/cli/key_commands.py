"""`hive keys`: through the hub, or directly in its data directory while no hub runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol, TypeVar
from urllib.parse import quote

import msgspec
import typer

from hive.auth.keys import Key, Role
from hive.cli.command_error import CommandError
from hive.cli.flags import choice_option
from hive.cli.hub_client import DEFAULT_HUB, CaFileOption, HubClient, HubOption, JsonOption, KeyFileOption, find_hub
from hive.cli.output import date, plain, print_json, print_table
from hive.errors import Fault

if TYPE_CHECKING:
    from hive.hub.key_cases import Keys

T = TypeVar("T")

DirectoryOption = Annotated[
    Path | None,
    typer.Option("--data-dir", metavar="DIR", help="Act on this data directory itself, while no hub runs."),
]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The key's name.", show_default=False)]
RoleOption = Annotated[
    Role,
    choice_option("--role", "admin: all; worker: a node; client: inference.", Role, show_default=False),
]

keys = typer.Typer()


class KeyRow(msgspec.Struct, frozen=True, kw_only=True):
    """A key in a listing."""

    name: str
    role: str
    manage: bool
    shown: str
    created_at: datetime
    revoked_at: datetime | None


class KeyRows(msgspec.Struct, frozen=True):
    """A listing of keys."""

    keys: list[KeyRow]


class _Created(msgspec.Struct):
    key: str


class _Place(Protocol):
    """The place where keys are kept: a hub or a data directory."""

    def create(self, name: str, role: Role, manage: bool) -> str:
        """Make a key and return its secret."""

    def listing(self, revoked: bool) -> KeyRows:
        """Return the existing keys, the revoked ones too if `revoked`."""

    def revoke(self, name: str) -> None:
        """End a key."""


class _HubKeys:
    def __init__(self, hub: HubClient) -> None:
        self._hub = hub

    def create(self, name: str, role: Role, manage: bool) -> str:
        body = {"name": name, "role": role.value, "manage": manage}
        return self._hub.read(self._hub.ask("POST", "/hive/v1/keys", body), _Created).key

    def listing(self, revoked: bool) -> KeyRows:
        path = "/hive/v1/keys?revoked=true" if revoked else "/hive/v1/keys"
        return self._hub.read(self._hub.ask("GET", path), KeyRows)

    def revoke(self, name: str) -> None:
        self._hub.ask("DELETE", f"/hive/v1/keys/{quote(name, safe='')}")


class _DirectoryKeys:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def create(self, name: str, role: Role, manage: bool) -> str:
        return self._run(lambda keys: keys.create(name, role, manage=manage)).secret

    def listing(self, revoked: bool) -> KeyRows:
        self._need_database()

        async def listed(keys: Keys) -> list[Key]:
            return keys.listed(revoked=revoked)

        return KeyRows([_row(key) for key in self._run(listed)])

    def revoke(self, name: str) -> None:
        self._need_database()
        self._run(lambda keys: keys.revoke(name))

    def _need_database(self) -> None:
        from hive.store.directory import DATABASE

        if not (self._directory / DATABASE).is_file():
            raise CommandError(f"data directory {self._directory}: holds no hub's data")

    def _run(self, work: Callable[[Keys], Awaitable[T]]) -> T:
        from hive.auth.key_ring import KeyRing
        from hive.hub.event_log import EventLog
        from hive.hub.key_cases import Keys
        from hive.store.store import Store
        from hive.store.store_error import DirectoryInUseError, StoreError

        async def run() -> T:
            async with Store(self._directory) as store:
                keys = Keys(store, KeyRing(), EventLog())
                await keys.load()
                return await work(keys)

        try:
            return asyncio.run(run())
        except DirectoryInUseError as error:
            raise CommandError(f"{error}; use --hub instead of --data-dir while the hub runs") from error
        except StoreError as error:
            raise CommandError(str(error)) from error
        except Fault as error:
            raise CommandError(error.message) from error


def _row(key: Key) -> KeyRow:
    revoked_at = None if key.revoked_at is None else datetime.fromtimestamp(key.revoked_at, UTC)
    created_at = datetime.fromtimestamp(key.created_at, UTC)
    return KeyRow(
        name=key.name,
        role=key.role,
        manage=key.manage,
        shown=key.shown,
        created_at=created_at,
        revoked_at=revoked_at,
    )


def _place(hub: str, key_file: Path | None, ca_file: Path | None, directory: Path | None) -> _Place:
    return _HubKeys(find_hub(hub, key_file, ca_file)) if directory is None else _DirectoryKeys(directory)


@keys.callback(invoke_without_command=True)
def _without_command(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@keys.command("create")
def create(
    name: NameArgument,
    role: RoleOption,
    manage: Annotated[bool, typer.Option("--manage", help="A client key that may manage models.")] = False,
    hub: HubOption = DEFAULT_HUB,
    api_key_file: KeyFileOption = None,
    ca_file: CaFileOption = None,
    data_dir: DirectoryOption = None,
) -> None:
    """Make a key and print only the key. It is never shown again."""
    typer.echo(_place(hub, api_key_file, ca_file, data_dir).create(name, role, manage))


@keys.command("list")
def list_keys(
    everything: Annotated[bool, typer.Option("--all", help="The revoked ones too.")] = False,
    as_json: JsonOption = False,
    hub: HubOption = DEFAULT_HUB,
    api_key_file: KeyFileOption = None,
    ca_file: CaFileOption = None,
    data_dir: DirectoryOption = None,
) -> None:
    """List keys by name, with their first characters."""
    listing = _place(hub, api_key_file, ca_file, data_dir).listing(everything)
    if as_json:
        print_json(msgspec.json.encode(listing))
        return
    columns = ["NAME", "ROLE", "KEY", "CREATED", *(["REVOKED"] if everything else [])]
    print_table(columns, [_cells(row, everything) for row in listing.keys])


def _cells(row: KeyRow, with_end: bool) -> list[str]:
    role = f"{row.role}, manage" if row.manage else row.role
    cells = [row.name, role, f"{row.shown}...", date(row.created_at)]
    return [*cells, date(row.revoked_at)] if with_end else cells


@keys.command("revoke")
def revoke(
    name: NameArgument,
    hub: HubOption = DEFAULT_HUB,
    api_key_file: KeyFileOption = None,
    ca_file: CaFileOption = None,
    data_dir: DirectoryOption = None,
) -> None:
    """End a key, at once and for ever."""
    _place(hub, api_key_file, ca_file, data_dir).revoke(name)
    typer.echo(f"key {plain(name)!r} is revoked")
