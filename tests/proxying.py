"""The proxies of docs/proxies.md as processes, with TLS, in front of a hub."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from .process import environment
from .raw import eventually

DOCS = Path(__file__).parents[1] / "docs" / "proxies.md"


@dataclass(frozen=True)
class Proxy:
    """A running proxy; its certificate is its own authority."""

    port: int
    certificate: Path
    logs: Path

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    @property
    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.certificate)

    def logged(self) -> str:
        """Return all that stands in its logs."""
        return "".join(path.read_text() for path in self.logs.iterdir())


def need_proxy(kind: str) -> None:
    """Skip the test unless this proxy, and what makes certificates, is installed."""
    for program in (kind, "openssl"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (Debian: apt-get install {program})")


@contextmanager
def proxying(kind: str, directory: Path, hub_port: int) -> Iterator[Proxy]:
    """Run a proxy before a hub on this machine, configured as docs/proxies.md says, until the block ends."""
    (directory / "logs").mkdir(parents=True, exist_ok=True)
    certificate, key = _certificate(directory)
    port = _free_port()
    command = COMMANDS[kind](directory, hub_port, port, certificate, key)
    home = environment(HOME=str(directory), XDG_DATA_HOME=str(directory), XDG_CONFIG_HOME=str(directory))
    with (directory / "output").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=home, cwd=directory)
    try:
        proxy = Proxy(port, certificate, directory / "logs")
        eventually(lambda: _answers(proxy), 10)
        yield proxy
    finally:
        process.terminate()
        process.wait(10)


def _block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def _certificate(directory: Path) -> tuple[Path, Path]:
    cert, key = directory / "cert.pem", directory / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


def _nginx(directory: Path, hub_port: int, port: int, cert: Path, key: Path) -> list[str]:
    server = _block("nginx")
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


def _caddy(directory: Path, hub_port: int, port: int, cert: Path, key: Path) -> list[str]:
    site = _block("caddy")
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


COMMANDS: dict[str, Callable[[Path, int, int, Path, Path], list[str]]] = {"nginx": _nginx, "caddy": _caddy}


def _answers(proxy: Proxy) -> bool:
    try:
        return httpx.get(proxy.url, verify=proxy.trust).status_code == 200
    except httpx.HTTPError:
        return False
