"""`/metrics`: for admins and local requests, right after every sort of end, and bounded whatever clients send."""

from __future__ import annotations

import random
import string

from hive.testing import ThreadedEngine
from hive.testing.hub import ThreadedHub, run_hub

from ..raw import GENERATE, STREAM, Wire, ask, eventually, get, metric, request


def series(hub: ThreadedHub) -> set[str]:
    text = ask(hub.port, get("/metrics")).body.decode()
    return {line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")}


def test_metrics_are_for_admins_or_local(engine: ThreadedEngine) -> None:
    with run_hub({"a": engine.url}) as hub:
        client = hub.create_key("alice")

        def status(head: str, host: str) -> int:
            return ask(hub.port, request("/metrics", method="GET", head=head, host=host)).status

        assert status("", "localhost") == 200
        assert status("", "hub.example") == 401
        assert status(f"Authorization: Bearer {client}\r\n", "localhost") == 403
        assert status(f"Authorization: Bearer {hub.admin_key}\r\n", "hub.example") == 200
        assert status("Origin: http://evil.example\r\n", "localhost") == 403


def test_labels_stay_bounded_under_random_paths_methods_models_and_keys(engine: ThreadedEngine) -> None:
    chance = random.Random(1)

    def word() -> str:
        return "".join(chance.choices(string.ascii_letters + string.digits + "._-", k=12))

    with run_hub({"a": engine.url}) as hub:
        ask(hub.port, request(body=GENERATE))
        ask(hub.port, request(body={"model": "nope"}))
        ask(hub.port, request("/api/chat", {"model": "nope"}))
        ask(hub.port, get("/nowhere"))
        before = series(hub)
        for number in range(500):
            with Wire(hub.port) as wire:
                name = f"canary{word()}"
                wire.send(
                    [
                        get(f"/{name}/{word()}?{word()}"),
                        request(f"/api/{name}", {}),
                        request(f"/{name}", method=chance.choice(["PUT", "DELETE", word().upper()])),
                        request("/api/chat", {"model": name}),
                        request(
                            "/api/generate", {"model": name}, head=f"Origin: app://{name}\r\nUser-Agent: {name}\r\n"
                        ),
                    ][number % 5]
                )
                wire.answer()
        assert series(hub) == before
        assert not any("canary" in line for line in before)


def test_counts_are_right_after_every_sort_of_end(engine: ThreadedEngine) -> None:
    def count(**labels: str) -> float:
        return metric(hub.port, "hive_exchanges_total", hub.admin_key, **labels)

    with run_hub({"a": engine.url}) as hub:
        sent = len(ask(hub.port, request(body=GENERATE)).body) + len(ask(hub.port, request(body=STREAM)).body)
        assert count(operation="generate", node="a", outcome="ok") == 2
        assert metric(hub.port, "hive_sent_bytes_total", hub.admin_key, outcome="ok") == sent
        ask(hub.port, request(body=b"{"))
        assert count(operation="generate", outcome="client_error") == 1
        engine.set_fault("drop", 3)
        ask(hub.port, request(body=STREAM))
        assert count(node="a", outcome="node_error") >= 1
        engine.clear_faults()
        engine.set_fault("freeze-stream", 0, path="/api/generate")
        with Wire(hub.port) as wire:
            wire.send(request(body=STREAM))
            engine.until(lambda state: state.running == 1)
        eventually(lambda: count(outcome="client_gone") == 1)
        for name in (
            "hive_exchanges_running",
            "hive_node_running",
            "hive_queue_waiting",
            "hive_request_body_bytes_held",
        ):
            assert metric(hub.port, name, hub.admin_key) == 0
        assert metric(hub.port, "hive_first_byte_seconds_count", hub.admin_key) >= 2
        assert metric(hub.port, "hive_node_ready", hub.admin_key) == 1
