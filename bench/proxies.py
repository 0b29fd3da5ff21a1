"""The proxies that are measured, each with one thread on one core: Hive, HAProxy and nginx."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from native import CHUNKS, SPACING, Lab
from processes import BenchError, Process, running

START_TIMEOUT = 30.0
SLOTS = 2000
JOINED, NODE = "hive-joined", "hive-node"
"""A hub with a joined node in C; the process of a real node."""
BEFORE, BEFORE_JOINED = "before", "before-joined"
"""The hub of an earlier commit: over a dialed node, and with a node that has joined."""

HAPROXY = """\
global
    nbthread 1
    maxconn 4000
defaults
    mode http
    timeout connect 3s
    timeout client 600s
    timeout server 600s
    option http-keep-alive
    option http-no-delay
    http-reuse always
    default-server pool-max-conn 2000 pool-purge-delay 60s
frontend front
    bind 127.0.0.1:{port}
    default_backend engines
backend engines
    balance roundrobin
{servers}
"""

NGINX = """\
daemon off;
worker_processes 1;
worker_rlimit_nofile 10000;
error_log stderr warn;
pid nginx.pid;
events {{ worker_connections 4000; multi_accept on; }}
http {{
    access_log off;
    client_max_body_size 64m;
    client_body_buffer_size 1m;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    keepalive_requests 1000000000;
    tcp_nodelay on;
    upstream engines {{
{servers}
        keepalive 2000;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://engines;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout 600s;
        }}
    }}
}}
"""


@dataclass(frozen=True)
class Target:
    """A server that answers as an Ollama. `process` is None for the engine itself."""

    name: str
    port: int
    key: str
    process: Process | None
    engines: int = 1
    admin_key: str = ""


class Start(Protocol):
    """Starts a proxy in front of these engines (given by port) and stops it when the block ends."""

    def __call__(self, lab: Lab, name: str, engines: Sequence[int]) -> AbstractContextManager[Target]: ...


def missing(proxy: str) -> str | None:
    """Return one sentence when a proxy is not installed on this machine."""
    proxy = _program(proxy)
    if _find(proxy):
        return None
    how = "pip install -e '.[hub]'" if proxy == "hive" else f"Debian: apt install {proxy}"
    return f"{proxy} is left out: it is not installed ({how})."


@contextmanager
def haproxy(lab: Lab, name: str, engines: Sequence[int]) -> Iterator[Target]:
    """Run HAProxy: one thread, no log, connections to the engines kept and shared."""
    port = free_port()
    servers = [f"    server e{n} 127.0.0.1:{engine}" for n, engine in enumerate(engines)]
    configuration = lab.directory / f"{name}.cfg"
    configuration.write_text(HAPROXY.format(port=port, servers="\n".join(servers)))
    with _started(lab, name, port, [_find("haproxy"), "-db", "-f", str(configuration)]) as target:
        yield target


@contextmanager
def nginx(lab: Lab, name: str, engines: Sequence[int]) -> Iterator[Target]:
    """Run nginx: one worker, no log, no response buffering, connections to the engines kept."""
    port = free_port()
    prefix = lab.directory / f"{name}-files"
    prefix.mkdir()
    servers = [f"        server 127.0.0.1:{engine};" for engine in engines]
    configuration = prefix / "nginx.conf"
    configuration.write_text(NGINX.format(port=port, servers="\n".join(servers)))
    command = [_find("nginx"), "-e", "stderr", "-p", str(prefix), "-c", str(configuration)]
    with _started(lab, name, port, command) as target:
        yield target


@contextmanager
def running_hub(lab: Lab, name: str, engines: Sequence[int], port: int, admin_key: str) -> Iterator[Target]:
    """Run a hub with dialed nodes. Its admin key is given; its data directory stays after its end."""
    program, environment = [_find("hive")], _bare_environment()
    if name.startswith(BEFORE):
        program, environment["PYTHONPATH"] = [sys.executable, "-m", "hive.cli"], str(lab.before)
    command = [*program, "serve", "--host", "127.0.0.1", "--port", str(port), "--slots", str(SLOTS)]
    command += ["--data-dir", str(lab.directory / f"{name}-data")]
    for node, engine in zip("abcdefgh", engines, strict=False):
        command += ["--node", f"{node}=http://127.0.0.1:{engine}"]
    environment["HIVE_ADMIN_KEY"] = admin_key
    with running(name, command, core=lab.proxy_core, directory=lab.directory, environment=environment) as process:
        target = Target(name, port, admin_key, process, admin_key=admin_key)
        _wait_until(target, "/readyz", "")
        if engines:
            _wait_until(target, "/api/tags", "m:latest")
        yield target


@contextmanager
def hive(lab: Lab, name: str, engines: Sequence[int]) -> Iterator[Target]:
    """Run a hub with dialed nodes. Keys, queue, metrics and access record are on; the record goes to a file."""
    with running_hub(lab, name, engines, free_port(), "hk_" + secrets.token_urlsafe(32)) as target:
        yield replace(target, key=_key(target, "bench", "client"))


@contextmanager
def hive_joined(lab: Lab, name: str, engines: Sequence[int]) -> Iterator[Target]:
    """Run a hub with a joined node for each engine: a program in C that answers by itself."""
    with hive(lab, name, ()) as target, ExitStack() as nodes:
        for number in range(len(engines)):
            command = [str(lab.node), str(target.port), _key(target, f"n{number}", "worker")]
            command += [str(CHUNKS), str(round(SPACING * 1e6))]
            nodes.enter_context(running(f"{name}-node-{number}", command, core=lab.load_core, directory=lab.directory))
        _wait_until(target, "/api/tags", "m:latest")
        yield target


@contextmanager
def hive_node(lab: Lab, name: str, engines: Sequence[int]) -> Iterator[Target]:
    """Run a hub and a real `hive node` with the engines. The measured process is the node's."""
    with hive(lab, f"{name}-hub", ()) as hub:
        command = [_find("hive"), "node", "--hub", f"http://127.0.0.1:{hub.port}", "--slots", str(SLOTS)]
        for engine in engines:
            command += ["--engine", f"http://127.0.0.1:{engine}"]
        environment = _bare_environment() | {"HIVE_KEY": _key(hub, "n", "worker")}
        node = running(name, command, core=lab.load_core, directory=lab.directory, environment=environment)
        with node as process:
            target = replace(hub, name=name, process=process)
            _wait_until(target, "/api/tags", "m:latest")
            yield target


STARTS: Mapping[str, Start] = {"hive": hive, "haproxy": haproxy, "nginx": nginx, JOINED: hive_joined, NODE: hive_node}
STARTS_BEFORE: Mapping[str, Start] = {BEFORE: hive, BEFORE_JOINED: hive_joined}
"""What `--before` adds."""


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def version(proxy: str) -> str:
    """Return a proxy's version, in few words."""
    proxy = _program(proxy)
    option = "--version" if proxy == "hive" else "-v"
    said = subprocess.run([_find(proxy), option], capture_output=True, text=True)
    words = (said.stdout + said.stderr).replace("nginx/", "").split()
    return next((word for word in words if word[:1].isdigit()), "of unknown version")


@contextmanager
def _started(lab: Lab, name: str, port: int, command: Sequence[str]) -> Iterator[Target]:
    with running(name, command, core=lab.proxy_core, directory=lab.directory) as process:
        target = Target(name, port, "hk_" + secrets.token_urlsafe(32), process)
        _wait_until(target, "/api/tags", "m:latest")
        yield target


def _wait_until(target: Target, path: str, text: str) -> None:
    """Wait until a GET is answered with 200 and a body that holds `text`."""
    deadline = time.monotonic() + START_TIMEOUT
    while not _has_answer(target, path, text):
        has_ended = target.process is not None and not target.process.is_running()
        if has_ended or time.monotonic() > deadline:
            said = target.process.last_words() if target.process else ""
            raise BenchError(f"{target.name} did not become ready ({path}); it said:\n{said}")
        time.sleep(0.05)


def _has_answer(target: Target, path: str, text: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=5)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {target.key}"})
        response = connection.getresponse()
        return response.status == 200 and text in response.read().decode()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def make_keys(hub: Target, names: Sequence[str], role: str) -> list[str]:
    """Make keys at a running hub; return them."""
    connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=10)
    headers = {"Authorization": f"Bearer {hub.admin_key}", "Content-Type": "application/json"}
    made = []
    for name in names:
        connection.request("POST", "/hive/v1/keys", json.dumps({"name": name, "role": role}), headers)
        response = connection.getresponse()
        said = response.read()
        if response.status != 201:
            raise BenchError(f"{hub.name} did not make the key {name}: {said.decode()}")
        made.append(str(json.loads(said)["key"]))
    connection.close()
    return made


def _key(hub: Target, name: str, role: str) -> str:
    return make_keys(hub, [name], role)[0]


def _bare_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("HIVE_")}


def _program(proxy: str) -> str:
    return "hive" if proxy in (JOINED, NODE, BEFORE, BEFORE_JOINED) else proxy


def _find(program: str) -> str:
    """Return the path of a program, or "": hive is beside this Python, servers are where Debian keeps them."""
    places = (str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin")
    return shutil.which(program, path=os.pathsep.join(places)) or ""
