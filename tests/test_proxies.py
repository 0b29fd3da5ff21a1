"""The configurations of docs/proxies.md, run: a hub behind a real nginx and a real Caddy, with TLS."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from hive.testing import SimOptions, ThreadedEngine, run_in_thread
from hive.testing.hub import run_hub

from .proxying import COMMANDS, Proxy, need_proxy, proxying
from .raw import eventually


@dataclass
class Proxied:
    """A hub and the proxy in front of it."""

    proxy: Proxy
    engine: ThreadedEngine
    key: str

    @property
    def url(self) -> str:
        return self.proxy.url

    @property
    def trust(self) -> ssl.SSLContext:
        return self.proxy.trust

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, verify=self.trust, headers={"Authorization": f"Bearer {self.key}"})


@pytest.fixture(scope="module", params=list(COMMANDS))
def proxied(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    need_proxy(request.param)
    with (
        run_in_thread(SimOptions(tokens_per_second=20)) as engine,
        run_hub({"a": engine.url}, local_access="off", trusted_proxies=("127.0.0.1",)) as hub,
        proxying(request.param, tmp_path_factory.mktemp(request.param), hub.port) as proxy,
    ):
        yield Proxied(proxy, engine, hub.create_key("alice"))


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
    eventually(lambda: "/k/***/api/tags" in proxied.proxy.logged())
    assert proxied.key not in proxied.proxy.logged()


def test_a_client_that_leaves_frees_its_slot(proxied: Proxied) -> None:
    body = {"model": "tiny", "prompt": "hello", "options": {"num_predict": 400}}
    with proxied.client() as client, client.stream("POST", "/api/generate", json=body) as answer:
        next(answer.iter_raw())
    eventually(lambda: proxied.engine.state().running == 0)
