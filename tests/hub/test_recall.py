"""What the hub remembers of its joined nodes: a restart loses no request for their models."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from pathlib import Path

import pytest

from hive.app import HubServer
from hive.fleet.health import NOT_BACK
from hive.hub.recall import DAY, FORGOTTEN_AFTER
from hive.store import known_nodes
from hive.store.known_nodes import KnownNode
from hive.store.store import Store
from hive.testing import ThreadedEngine
from hive.testing.hub import ThreadedHub, run_hub
from hive.wire.link_messages import Hello, Report, ReportedEngine, json_object

from ..joining import INSTANCE, TAGS, NodeWire, an_engine, joined
from ..raw import GENERATE, ask, eventually, get, request

ADMIN_KEY = "canary-admin-key"
OK = b'{"response":"whole","done":true}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 32\r\n\r\n" + OK
BIG = json_object(b'{"data":[{"id":"big"}]}')

RunHub = Callable[..., AbstractContextManager[ThreadedHub]]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return the data directory that the hubs of a test share."""
    return tmp_path / "data"


@pytest.fixture
def a_hub(data: Path) -> RunHub:
    """Return what runs a hub on that directory, one after the other."""

    def run(nodes: dict[str, str] | None = None, **settings: object) -> AbstractContextManager[ThreadedHub]:
        known: dict[str, object] = {"link": "dialed", "data_dir": data, "admin_key": ADMIN_KEY, "connect_timeout": 1}
        return run_hub(nodes or {}, **(known | settings))  # type: ignore[arg-type]

    return run


@pytest.fixture
def key(a_hub: RunHub) -> str:
    """The key of the node `desk`, which was joined when the hub stopped."""
    with a_hub() as hub, joined(hub, labels={"room": "lab 2"}, platform="Linux") as node:
        hub.stop()
    return node.key


def in_store(data: Path, work: Callable[[Store], object]) -> None:
    """Do something to the database while no hub runs."""

    async def run() -> None:
        async with Store(data) as store:
            await work(store)  # type: ignore[misc]

    asyncio.run(run())


def kept(data: Path) -> list[KnownNode]:
    found: list[KnownNode] = []

    async def read(store: Store) -> None:
        found.extend(await store.nodes())

    in_store(data, read)
    return found


def kept_now(hub: ThreadedHub) -> list[KnownNode]:
    return hub.run(lambda server: server.store.nodes())


def write(hub: ThreadedHub) -> None:
    hub.run(lambda server: server.recall.write())


def changed(hub: ThreadedHub) -> set[str]:
    return hub.call(lambda server: set(server.hub.joining.changed))


def states(hub: ThreadedHub) -> dict[str, str]:
    """Return the health of each engine by the name of its node."""
    return hub.call(lambda server: {engine.node: engine.health.value for engine in server.hub.fleet.engines})


def listed(hub: ThreadedHub, path: str, name: str) -> list[dict[str, object]]:
    answer = ask(hub.port, get(path, f"Authorization: Bearer {hub.admin_key}\r\n"))
    assert answer.status == 200
    found = answer.json()[name]
    assert isinstance(found, list)
    return found


def models(hub: ThreadedHub) -> list[object]:
    return [one["name"] for one in listed(hub, "/api/tags", "models")]


def waiting(hub: ThreadedHub, count: int = 1) -> None:
    hub.until(lambda server: server.hub.queue.waiting_count == count)


# --- the gap between the hub's start and the node's return ---


def test_a_request_in_the_gap_waits_for_the_node_and_is_served(a_hub: RunHub, key: str) -> None:
    shows = request("/api/show", {"model": "tiny"})
    with a_hub() as hub, ThreadPoolExecutor() as pool:
        answers = [pool.submit(ask, hub.port, each) for each in (request(body=GENERATE), shows)]
        waiting(hub, 2)
        with joined(hub, key=key) as node:
            assert states(hub) == {"desk": "ready"}
            sockets = [node.data(), node.data()]
            for socket in sockets:
                socket.answer(socket.request()[0], ANSWER)
            assert [answer.result().body for answer in answers] == [OK, OK]


def test_a_node_that_has_not_come_back_is_listed_with_what_it_had(a_hub: RunHub, key: str) -> None:
    with a_hub() as hub:
        [entry] = listed(hub, "/hive/v1/nodes", "nodes")
        assert {name: entry[name] for name in ("name", "engine", "link", "status", "error", "kind", "version")} == {
            "name": "desk",
            "engine": "ollama",
            "link": "joined",
            "status": "joining",
            "error": NOT_BACK,
            "kind": "ollama",
            "version": "0.33.0",
        }
        assert (entry["agent"], entry["platform"], entry["labels"]) == ("by hand", "Linux", {"room": "lab 2"})
        assert (entry["url"], entry["slots"], entry["models"]) == ("http://127.0.0.1:11434", 4, 1)
        assert (entry["loaded"], entry["heartbeat_age"]) == ([], None)
        assert (models(hub), listed(hub, "/api/ps", "models")) == (["tiny:latest"], [])
        assert [(one["name"], one["nodes"], one["loaded_on"]) for one in listed(hub, "/hive/v1/models", "models")] == [
            ("tiny:latest", ["desk"], [])
        ]
        assert ask(hub.port, get("/v1/models/tiny")).status == 200
        assert ask(hub.port, get("/readyz")).status == 200


def test_a_model_that_no_node_had_is_404_at_once(a_hub: RunHub, key: str) -> None:
    with a_hub() as hub:
        assert ask(hub.port, request(body={**GENERATE, "model": "unknown"})).status == 404


def test_a_ticket_whose_node_does_not_come_back_ends_with_its_name_and_why(a_hub: RunHub, key: str) -> None:
    with a_hub(queue_timeout=0.3) as hub:
        answer = ask(hub.port, request(body=GENERATE))
        assert (answer.status, answer.header("Retry-After")) == (503, "10")
        assert str(answer.json()["error"]).endswith(f": desk is joining ({NOT_BACK})")


def test_a_node_that_is_missed_for_long_is_down_and_ready_as_soon_as_it_is_back(
    a_hub: RunHub, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hive.fleet.health.MISSED_AFTER", 0.1)
    with a_hub() as hub, ThreadPoolExecutor() as pool:
        eventually(lambda: states(hub) == {"desk": "down"})
        assert models(hub) == []
        assert [one["down_on"] for one in listed(hub, "/hive/v1/models", "models")] == [["desk"]]
        answer = pool.submit(ask, hub.port, request(body=GENERATE))
        waiting(hub)
        with joined(hub, key=key) as node:
            assert states(hub) == {"desk": "ready"}
            socket = node.data()
            socket.answer(socket.request()[0], ANSWER)
            assert answer.result().body == OK


def test_what_a_node_reports_when_it_is_back_replaces_what_was_remembered(a_hub: RunHub, key: str) -> None:
    other = ReportedEngine("other", "vllm", v1_models=BIG)
    with a_hub() as hub, joined(hub, "desk", other, key=key):
        assert models(hub) == ["big"]
        [entry] = listed(hub, "/hive/v1/nodes", "nodes")
        assert (entry["engine"], entry["status"], entry["labels"]) == ("other", "ready", {})


def test_a_node_that_is_back_falls_as_any_other(a_hub: RunHub, key: str) -> None:
    with a_hub() as hub:
        with joined(hub, key=key):
            assert states(hub) == {"desk": "ready"}
        eventually(lambda: states(hub) == {"desk": "down"})
        [entry] = listed(hub, "/hive/v1/nodes", "nodes")
        assert "its node has left" in str(entry["error"])
        with joined(hub, key=key):
            assert states(hub) == {"desk": "probation"}


def test_a_node_can_be_drained_before_it_is_back(a_hub: RunHub, key: str) -> None:
    def order(what: str) -> None:
        head = f"Authorization: Bearer {ADMIN_KEY}\r\n"
        assert ask(hub.port, request(f"/hive/v1/nodes/desk/{what}", {}, head=head)).status == 200

    with a_hub() as hub:
        order("drain")
        with joined(hub, key=key):
            assert states(hub) == {"desk": "draining"}
            order("resume")
            assert states(hub) == {"desk": "ready"}


def test_a_node_without_an_engine_is_known_too(a_hub: RunHub) -> None:
    with a_hub() as hub, NodeWire(hub, hub.create_key("desk", "worker")) as wire:
        wire.say(Hello(INSTANCE, "by hand"))
        wire.text("welcome")
        hub.stop()
    with a_hub() as hub:
        [entry] = listed(hub, "/hive/v1/nodes", "nodes")
        assert (entry["name"], entry["agent"], entry["status"], entry["error"]) == ("desk", "by hand", "down", NOT_BACK)


def test_an_engine_whose_lists_cannot_be_read_is_left_out(a_hub: RunHub, data: Path, key: str) -> None:
    [known] = kept(data)
    odd = an_engine("odd", tags=json_object(b'{"models":7}'))
    spoilt = replace(known, profile=known_nodes.Profile("by hand", engines=(odd, *known.profile.engines)))
    in_store(data, lambda store: store.save_node(spoilt))
    with a_hub() as hub:
        assert [entry["engine"] for entry in listed(hub, "/hive/v1/nodes", "nodes")] == ["ollama"]


# --- who is forgotten ---


def test_a_revoked_key_forgets_its_node_and_deletes_its_row(a_hub: RunHub, data: Path, key: str) -> None:
    with a_hub() as hub:
        hub.revoke_key("desk")
        eventually(lambda: models(hub) == [])
        write(hub)
        assert kept_now(hub) == []


def test_a_node_without_an_engine_is_forgotten_too(a_hub: RunHub, data: Path, key: str) -> None:
    change(data, without_engines)
    with a_hub() as hub:
        hub.revoke_key("desk")
        eventually(lambda: changed(hub) == {"desk"})
        assert listed(hub, "/hive/v1/nodes", "nodes") == []
    assert kept(data) == []


def revoke(data: Path) -> None:
    """Revoke all keys while no hub runs."""

    async def run(store: Store) -> None:
        ended = [replace(key, revoked_at=1.0) for key in await store.keys()]
        await store.save_keys(*ended)

    in_store(data, run)


def change(data: Path, edit: Callable[[KnownNode], KnownNode]) -> None:
    [known] = kept(data)
    in_store(data, lambda store: store.save_node(edit(known)))


def without_engines(known: KnownNode) -> KnownNode:
    return replace(known, profile=known_nodes.Profile("by hand"))


def old(known: KnownNode) -> KnownNode:
    return replace(known, seen_at=known.seen_at - FORGOTTEN_AFTER)


def of_another_key(known: KnownNode) -> KnownNode:
    return replace(known, key_digest=b"x" * 32)


def of_another_name(known: KnownNode) -> KnownNode:
    return replace(known, name="table")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (revoke, "its key was revoked"),
        (lambda data: change(data, of_another_key), "its key was revoked"),
        (lambda data: change(data, old), "not seen for 30 days"),
    ],
    ids=["revoked", "of another key", "old"],
)
def test_a_node_that_may_not_come_back_is_forgotten_at_the_start(
    a_hub: RunHub,
    data: Path,
    key: str,
    spoil: Callable[[Path], None],
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    spoil(data)
    with caplog.at_level(logging.INFO), a_hub(admin_key="another-admin-key") as hub:
        assert (states(hub), listed(hub, "/hive/v1/nodes", "nodes")) == ({}, [])
        assert f"node desk is forgotten: {reason}" in [record.getMessage() for record in caplog.records]
    assert kept(data) == []


def test_a_row_under_a_name_that_is_not_its_keys_is_forgotten(a_hub: RunHub, data: Path, key: str) -> None:
    change(data, of_another_name)
    with a_hub() as hub:
        assert states(hub) == {"desk": "joining"}
    assert [known.name for known in kept(data)] == ["desk"]


def test_a_name_that_the_settings_now_have_is_the_dialed_nodes(
    a_hub: RunHub, data: Path, key: str, engine: ThreadedEngine
) -> None:
    with a_hub({"DESK": engine.url}) as hub:
        assert states(hub) == {"DESK": "ready"}
    assert kept(data) == []


def test_a_node_whose_key_was_made_anew_is_kept_under_the_new_one(a_hub: RunHub, data: Path, key: str) -> None:
    with a_hub() as hub:
        hub.revoke_key("desk")
        with joined(hub):
            write(hub)
            [known], live = kept_now(hub), hub.call(lambda server: server.keys.listed())
            assert known.key_digest in [each.digest for each in live]


# --- when it is written ---


def test_what_changes_is_written_a_while_after(a_hub: RunHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hive.hub.recall.WRITE_INTERVAL", 0.05)
    with a_hub() as hub, joined(hub) as node:
        eventually(lambda: [known.name for known in kept_now(hub)] == ["desk"])
        node.control.say(Report((an_engine(), ReportedEngine("vllm", "vllm", v1_models=BIG))))
        eventually(lambda: [each.id for each in kept_now(hub)[0].profile.engines] == ["ollama", "vllm"])


def test_a_node_that_is_back_is_written_though_it_says_the_same(a_hub: RunHub, key: str) -> None:
    with a_hub() as hub:
        assert changed(hub) == set()
        with joined(hub, labels={"room": "lab 2"}, platform="Linux", key=key):
            assert changed(hub) == {"desk"}


def test_only_what_lasts_is_worth_a_write(a_hub: RunHub) -> None:
    empty, more = ({"models": []}, {"models": [*TAGS["models"], {"name": "new"}]})
    with a_hub() as hub, joined(hub) as node:
        assert changed(hub) == {"desk"}
        write(hub)
        node.control.say(Report((an_engine(ps=json_object(json.dumps(empty).encode())),)))
        hub.until(lambda server: not server.hub.fleet.engines[0].known.loaded)
        assert changed(hub) == set()
        node.control.say(Report((an_engine(tags=json_object(json.dumps(more).encode())),)))
        eventually(lambda: changed(hub) == {"desk"})


def test_when_a_node_was_seen_last_is_kept_when_it_leaves(a_hub: RunHub) -> None:
    now = [1_000.0]
    with a_hub() as hub:
        hub.call(lambda server: setattr(server.recall, "_clock", lambda: now[0]))
        with joined(hub):
            write(hub)
            assert [known.seen_at for known in kept_now(hub)] == [1_000.0]
        eventually(lambda: changed(hub) == {"desk"})
        now[0] = 2_000.0
        write(hub)
        [known] = kept_now(hub)
        assert 1_990 < known.seen_at < 2_000


def test_a_node_that_is_here_for_long_is_written_once_a_day(a_hub: RunHub) -> None:
    def days_later(server: HubServer, days: float) -> set[str]:
        server.recall.note_present(server.hub.now() + days * DAY)
        return set(server.hub.joining.changed)

    with a_hub() as hub, joined(hub):
        write(hub)
        assert hub.call(lambda server: days_later(server, 0.5)) == set()
        assert hub.call(lambda server: days_later(server, 1)) == {"desk"}
        write(hub)
        assert hub.call(lambda server: days_later(server, 1.5)) == set()


def test_long_lists_are_left_out_and_told(
    a_hub: RunHub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(known_nodes, "MAX_LISTS_BYTES", 300)
    with a_hub() as hub, joined(hub, "desk", an_engine("a"), an_engine("b")):
        write(hub)
        assert [each.id for each in kept_now(hub)[0].profile.engines] == ["a"]
    assert "node desk: 1 of its 2 engines are remembered: long lists" in caplog.text


# --- a database that fails ---


def test_a_database_that_fails_is_told_once_harms_no_request_and_is_tried_again(
    a_hub: RunHub, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def rename(table: str, to: str) -> None:
        with closing(sqlite3.connect(data / "hive.db")) as connection, connection:
            connection.execute(f"ALTER TABLE {table} RENAME TO {to}")

    with a_hub() as hub, joined(hub) as node, ThreadPoolExecutor() as pool:
        rename("nodes", "away")
        for _ in range(3):
            write(hub)
        assert caplog.text.count("what changes about nodes is not remembered") == 1
        assert "no such table: nodes" in caplog.text
        assert changed(hub) == {"desk"}
        answer = pool.submit(ask, hub.port, request(body=GENERATE))
        socket = node.data()
        socket.answer(socket.request()[0], ANSWER)
        assert answer.result().body == OK
        rename("away", "nodes")
        write(hub)
        assert [known.name for known in kept_now(hub)] == ["desk"]
        rename("nodes", "away")
    with caplog.at_level(logging.WARNING), a_hub() as hub:
        assert states(hub) == {}
    assert "the nodes that joined before are not known" in caplog.text


def test_a_write_that_is_cancelled_is_done_the_next_time(a_hub: RunHub) -> None:
    async def cancelled(server: HubServer) -> set[str]:
        writing = asyncio.ensure_future(server.recall.write())
        await asyncio.sleep(0)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        return set(server.hub.joining.changed)

    with a_hub() as hub, joined(hub):
        assert hub.run(cancelled) == {"desk"}


def test_a_node_that_cannot_be_written_does_not_keep_the_others_from_it(
    a_hub: RunHub, caplog: pytest.LogCaptureFixture
) -> None:
    def spoil(server: HubServer) -> None:
        server.hub.joining.nodes["desk"].agent = "\ud800"  # as no message can hold it

    with a_hub() as hub, joined(hub), joined(hub, "other"):
        hub.call(spoil)
        write(hub)
        assert [known.name for known in kept_now(hub)] == ["other"]
        assert changed(hub) == set()
    assert "node desk: it is not remembered" in caplog.text
