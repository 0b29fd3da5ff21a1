"""A node behind NAT, in network namespaces of its own: it serves although no program can dial it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from ..process import ADMIN_KEY, HIVE, environment
from ..raw import eventually

pytestmark = pytest.mark.long

HUB, OUTSIDE, INSIDE, NODE = "10.77.1.2", "10.77.1.1", "10.77.2.1", "10.77.2.2"
RULES = """
table ip nat {
    chain leave { type nat hook postrouting priority 100; oifname "outside" masquerade; }
}
table ip filter {
    chain through { type filter hook forward priority 0; policy drop;
        iifname "inside" accept; ct state established,related accept; }
}
"""


def run(*command: str, text: str | None = None) -> None:
    subprocess.run(command, check=True, capture_output=True, input=text, text=True)


def inside(space: str, *command: str) -> list[str]:
    return ["ip", "netns", "exec", space, *command]


@contextmanager
def namespaces() -> Iterator[tuple[str, str]]:
    """Make hub <- router with NAT <- node; give the names of the hub's and the node's."""
    hub, router, node = (f"hive-{os.getpid()}-{name}" for name in ("hub", "nat", "node"))
    made: list[str] = []
    try:
        for space in (hub, router, node):
            run("ip", "netns", "add", space)
            made.append(space)
            run(*inside(space, "ip", "link", "set", "lo", "up"))
        for end, space, address, router_end, router_address in (
            ("uplink", hub, HUB, "outside", OUTSIDE),
            ("uplink", node, NODE, "inside", INSIDE),
        ):
            run(*inside(router, "ip", "link", "add", router_end, "type", "veth", "peer", "name", end, "netns", space))
            run(*inside(router, "ip", "addr", "add", f"{router_address}/24", "dev", router_end))
            run(*inside(router, "ip", "link", "set", router_end, "up"))
            run(*inside(space, "ip", "addr", "add", f"{address}/24", "dev", end))
            run(*inside(space, "ip", "link", "set", end, "up"))
        run(*inside(node, "ip", "route", "add", "default", "via", INSIDE))
        run(*inside(router, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"))
        run(*inside(router, "nft", "-f", "-"), text=RULES)
        yield hub, node
    finally:
        for space in made:
            subprocess.run(["ip", "netns", "delete", space], check=False, capture_output=True)


@contextmanager
def running(log: Path, *command: str, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in the background, its output in a file."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment(**env), cwd=log.parent)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def asked(space: str, url: str, *more: str) -> str:
    command = inside(space, "curl", "-sS", "-m", "5", *more, url)
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout


@pytest.fixture
def spaces() -> Iterator[tuple[str, str]]:
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    for program in ("ip", "nft", "curl"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (Debian: iproute2, nftables, curl)")
    try:
        with namespaces() as made:
            yield made
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr}")


def test_a_node_behind_nat_joins_and_serves(spaces: tuple[str, str], tmp_path: Path) -> None:
    hub, node = spaces
    hive = str(HIVE)
    with ExitStack() as stack:
        serve = (hive, "serve", "--host", HUB, "--port", "4483", "--data-dir", str(tmp_path / "data"), "--open")
        stack.enter_context(running(tmp_path / "hub.log", *inside(hub, *serve), HIVE_ADMIN_KEY=ADMIN_KEY))
        eventually(lambda: asked(hub, f"http://{HUB}:4483/healthz") == "ok\n", 20)
        made = subprocess.run(
            inside(hub, hive, "keys", "create", "attic", "--role", "worker"),
            env=environment(HIVE_HUB=f"http://{HUB}:4483", HIVE_API_KEY=ADMIN_KEY),
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        stack.enter_context(
            running(tmp_path / "sim.log", *inside(node, hive, "sim", "--port", "11434", "--model", "tiny"))
        )
        joins = inside(node, hive, "node", "--hub", f"http://{HUB}:4483", "--engine", "http://127.0.0.1:11434")
        stack.enter_context(running(tmp_path / "node.log", *joins, HIVE_KEY=made.stdout.strip()))
        eventually(lambda: "tiny" in asked(hub, f"http://{HUB}:4483/api/tags"), 20)
        assert asked(hub, f"http://{NODE}:11434/") == ""  # nobody can dial it
        body = '{"model":"tiny","prompt":"hello","stream":false}'
        assert '"done":true' in asked(hub, f"http://{HUB}:4483/api/generate", "-d", body)
