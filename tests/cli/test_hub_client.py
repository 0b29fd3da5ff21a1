"""How commands find the hub, and their error when a server is no hub."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from hive.cli.command_error import CommandError
from hive.cli.hub_client import HubClient, find_hub
from hive.config import Secret

from .conftest import Run

ANSWERS = {
    "/page/hive/v1/nodes": (200, b"<html>"),
    "/other/hive/v1/nodes": (200, b'{"nodes":[{"name":1}]}'),
    "/gone/hive/v1/nodes": (502, b"Bad gateway\n"),
    "/old/hive/v1/nodes": (400, b'{"error":"of Ollama\'s\\nform"}'),
    "/good/hive/v1/nodes": (200, b'{"nodes":[]}'),
}


class Stranger(BaseHTTPRequestHandler):
    """A web server that is not a hub."""

    def do_GET(self) -> None:
        status, body = ANSWERS[self.path]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - named so by http.server
        """Keep quiet."""


@pytest.fixture
def stranger() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Stranger) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/page", "does not answer as a Hive hub does (JSON is malformed"),
        ("/other", "does not answer as a Hive hub does (Expected `str`, got `int`"),
        ("/gone", "answered 502, and not as a Hive hub does"),
    ],
)
def test_a_server_that_is_no_hub_is_named_without_its_path(run: Run, stranger: str, path: str, said: str) -> None:
    refused = run("nodes", "--hub", stranger + path)
    assert refused.code == 1
    assert refused.err.startswith(f"hive: {stranger} {said}")


def test_an_error_in_ollamas_form_is_read_and_put_on_one_line(run: Run, stranger: str) -> None:
    assert run("nodes", "--hub", f"{stranger}/old").err == "hive: of Ollama's form\n"


def test_a_hub_on_this_machine_is_asked_without_a_proxy(
    run: Run, stranger: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert run("nodes", "--hub", f"{stranger}/good").code == 0


def test_an_unreachable_hub_is_reported_in_one_sentence(run: Run) -> None:
    refused = run("nodes", "--hub", "127.0.0.1:1/k/hk_secret")
    assert refused.code == 1
    assert refused.err == "hive: no hub answers at http://127.0.0.1:1 (connection refused)\n"


@pytest.mark.parametrize(
    "url", ["ftp://hub", "http://", "http://hub:x", "http://user:pw@hub", "http://hub?key=1", "http://hub\n"]
)
def test_a_hub_option_that_is_no_url_is_a_wrong_use(run: Run, url: str) -> None:
    refused = run("nodes", "--hub", url)
    assert refused.code == 2
    assert refused.err.startswith("hive: --hub: expected a URL such as http://127.0.0.1:4483")
    assert "pw" not in refused.err


def test_a_hub_url_without_a_scheme_is_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIVE_API_KEY", " key ")
    assert find_hub("gpu.example.org:4483", None) == HubClient("http://gpu.example.org:4483", Secret("key"))


def test_a_key_that_fits_no_header_is_a_wrong_use_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HIVE_API_KEY", "hk_se cret")
    with pytest.raises(CommandError, match=r"^HIVE_API_KEY: a key is printable ASCII without spaces") as caught:
        find_hub("http://hub", None)
    assert caught.value.code == 2
    with pytest.raises(CommandError, match=r"^--api-key-file: .*missing cannot be read"):
        find_hub("http://hub", tmp_path / "missing")
