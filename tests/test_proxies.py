"""The configurations of docs/proxies.md, run: a hub behind a real nginx and a real Caddy, with TLS."""

from __future__ import annotations

import json
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from hive.testing import SimOptions, ThreadedEngine, run_in_thread
from hive.testing.hub import ThreadedHub, run_hub

from .process import environment
from .raw import eventually

DOCS = Path(__file__).parents[1] / "docs" / "proxies.md"


@dataclass
class Proxied:
    """A hub and the proxy in front of it."""

    hub: ThreadedHub
    engine: ThreadedEngine
    port: int
    trust: ssl.SSLContext
    logs: Path
    key: str

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, verify=self.trust, headers={"Authorization": f"Bearer {self.key}"})

    def logged(self) -> str:
        return "".join(path.read_text() for path in self.logs.iterdir())


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def certificate(directory: Path) -> tuple[Path, Path]:
    cert, key = directory / "cert.pem", directory / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


def nginx(directory: Path, hub_port: int, port: int, cert: Path, key: Path) -> list[str]:
    server = block("nginx")
    for theirs, ours in (
        ("127.0.0.1:4483", f"127.0.0.1:{hub_port}"),
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("hub.example.org;", "localhost;"),
        ("/etc/ssl/hub.example.org.pem", str(cert)),
        ("/etc/ssl/hub.example.org.key", str(key)),
        ("/var/log/nginx", str(directory / "logs")),
    ):
        assert theirs in server
        server = server.replace(theirs, ours)
    temporary = "".join(
        f"{kind}_temp_path {directory}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = directory / "nginx.conf"
    config.write_text(
        f"daemon off;\npid {directory}/pid;\nerror_log {directory}/start.log;\nworker_processes 1;\n"
        f"events {{ worker_connections 512; }}\nhttp {{\n{temporary}{server}}}\n"
    )
    return ["nginx", "-p", str(directory), "-c", str(config), "-e", str(directory / "start.log")]


def caddy(directory: Path, hub_port: int, port: int, cert: Path, key: Path) -> list[str]:
    site = block("caddy")
    for theirs, ours in (
        ("127.0.0.1:4483", f"127.0.0.1:{hub_port}"),
        ("hub.example.org {", f"https://localhost:{port} {{\n\ttls {cert} {key}"),
        ("/var/log/caddy", str(directory / "logs")),
    ):
        assert theirs in site
        site = site.replace(theirs, ours)
    config = directory / "Caddyfile"
    config.write_text(f"{{\n\tadmin off\n\tauto_https disable_redirects\n}}\n{site}")
    return ["caddy", "run", "--config", str(config), "--adapter", "caddyfile"]


COMMANDS: dict[str, Callable[[Path, int, int, Path, Path], list[str]]] = {"nginx": nginx, "caddy": caddy}


@pytest.fixture(scope="module", params=list(COMMANDS))
def proxied(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    for program in (request.param, "openssl"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (Debian: apt-get install {program})")
    directory = tmp_path_factory.mktemp(request.param)
    (directory / "logs").mkdir()
    cert, key = certificate(directory)
    with (
        run_in_thread(SimOptions(tokens_per_second=20)) as engine,
        run_hub({"a": engine.url}, local_access="off", trusted_proxies=("127.0.0.1",)) as hub,
        (directory / "output").open("wb") as output,
    ):
        port = free_port()
        command = COMMANDS[request.param](directory, hub.port, port, cert, key)
        home = environment(HOME=str(directory), XDG_DATA_HOME=str(directory), XDG_CONFIG_HOME=str(directory))
        process = subprocess.Popen(command, stdout=output, stderr=output, env=home, cwd=directory)
        try:
            proxy = Proxied(
                hub, engine, port, ssl.create_default_context(cafile=cert), directory / "logs", hub.create_key("alice")
            )
            eventually(lambda: answers(proxy), 10)
            yield proxy
        finally:
            process.terminate()
            process.wait(10)


def answers(proxy: Proxied) -> bool:
    try:
        return httpx.get(proxy.url, verify=proxy.trust).status_code == 200
    except httpx.HTTPError:
        return False


def test_a_stream_arrives_token_by_token(proxied: Proxied) -> None:
    body = {"model": "tiny", "prompt": "hello"}
    with proxied.client() as client, client.stream("POST", "/api/generate", json=body) as answer:
        pieces = [piece for piece in answer.iter_raw() if piece]
    lines = b"".join(pieces).splitlines()
    assert json.loads(lines[-1])["done"] is True
    assert len(pieces) > len(lines) // 2


def test_a_large_body_passes(proxied: Proxied) -> None:
    body = {"model": "tiny", "prompt": "word " * 2_000_000, "stream": False}
    with proxied.client() as client:
        assert client.post("/api/generate", json=body, timeout=30).status_code == 200


def test_who_comes_through_the_proxy_is_not_local(proxied: Proxied) -> None:
    answer = httpx.get(f"{proxied.url}/api/tags", verify=proxied.trust)
    assert answer.status_code == 401


def test_a_key_in_the_path_works_and_shows_in_no_log(proxied: Proxied) -> None:
    url = f"{proxied.url}/k/{proxied.key}/api/tags"
    assert httpx.get(url, verify=proxied.trust).status_code == 200
    assert httpx.get(url, verify=proxied.trust, headers={"X-Api-Key": proxied.key}).status_code == 200
    eventually(lambda: "/k/***/api/tags" in proxied.logged())
    assert proxied.key not in proxied.logged()


def test_a_client_that_leaves_frees_its_slot(proxied: Proxied) -> None:
    body = {"model": "tiny", "prompt": "hello", "options": {"num_predict": 400}}
    with proxied.client() as client, client.stream("POST", "/api/generate", json=body) as answer:
        next(answer.iter_raw())
    eventually(lambda: proxied.engine.state().running == 0)
