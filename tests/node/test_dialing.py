"""Ways to a hub: TLS with an authority of one's own, and proxies."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pytest

from hive.testing import SimulatedEngine

from .hub import ScriptedHub, agent, get, options, run, until

CERTIFICATES = Path(__file__).parent / "certificates"
CA_FILE = CERTIFICATES / "cert.pem"
"""Of an authority of its own, for 127.0.0.1 and hub.test, until 2126."""
NAME = "hub.test"
"""No name that is excepted from proxies; the proxy of these tests looks for every hub on this machine."""


def server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CA_FILE, CERTIFICATES / "key.pem")
    return context


class ProxyServer:
    """Opens tunnels, or answers something else."""

    def __init__(self, answer: bytes | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.answer = answer
        self.tls = tls
        self.requests: list[bytes] = []
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://u:p@127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.requests.append(await reader.readuntil(b"\r\n\r\n"))
        if self.answer is not None:
            writer.write(self.answer)
            writer.close()
            return
        port = int(self.requests[-1].split(b" ")[1].rpartition(b":")[2])
        to_hub, from_node = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        for source, sink in ((reader, from_node), (to_hub, writer)):
            self._tasks.add(asyncio.create_task(pump(source, sink)))


async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    except OSError:
        pass
    finally:
        sink.close()


def test_a_hub_with_a_certificate_of_an_authority_of_ones_own() -> None:
    async def main() -> None:
        engine, hub = SimulatedEngine(), ScriptedHub(tls=server_tls())
        async with engine, hub, agent(options(hub.url, engine.url, ca_file=CA_FILE)):
            await hub.joined()
            assert (await hub.ask(get("/api/version"), f"port-{engine.port}")).status == 200

    run(main())


async def said(caplog: pytest.LogCaptureFixture, hub: str, ca_file: Path | None = None) -> str:
    """Run an agent until it has said what is wrong with the way to its hub."""

    def about_hub() -> list[str]:
        found = [each for each in caplog.records if each.levelno >= logging.WARNING]
        return [each.getMessage() for each in found if "engine" not in each.getMessage()]

    async with agent(options(hub, "http://127.0.0.1:1", ca_file=ca_file)):
        await until(about_hub)
        await asyncio.sleep(0)
        return "\n".join(about_hub())


def test_a_certificate_that_is_not_trusted_is_named(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with ScriptedHub(tls=server_tls()) as hub:
            assert await said(caplog, hub.url) == (
                f"no way to the hub {hub.url}: its certificate is not trusted (self-signed certificate); "
                "--ca-file names the authority's file; trying again"
            )

    run(main())


LOOPS = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])


def factory_of(loop: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes a loop of this kind."""
    if loop == "asyncio":
        return asyncio.new_event_loop
    made: Callable[[], asyncio.AbstractEventLoop] = pytest.importorskip("uvloop").new_event_loop
    return made


@LOOPS
def test_plain_http_to_a_hub_with_a_certificate_is_named(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with ScriptedHub(tls=server_tls()) as hub:
            plain = hub.url.replace("https:", "http:")
            assert await said(caplog, plain) == (
                f"{plain} closed the connection without an answer; if the hub has a certificate, use https://; "
                "trying again"
            )

    run(main(), factory_of(loop))


@LOOPS
def test_tls_to_a_hub_without_a_certificate_is_named(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        # A web server answers the first bytes of TLS with a sentence in HTTP.
        refused = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(100)
            writer.write(refused)
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            wanted = f"no way to the hub {url}: it speaks plain HTTP; use http://; trying again"
            assert await said(caplog, url) == wanted

    run(main(), factory_of(loop))


def test_a_certificate_for_another_name_is_no_matter_of_authorities(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with ScriptedHub(tls=server_tls()) as hub:
            sentence = await said(caplog, hub.url.replace("127.0.0.1", "localhost"), CA_FILE)
            assert "its certificate is for another name (Hostname mismatch" in sentence
            assert "; use a name that the certificate has; trying again" in sentence
            assert "--ca-file" not in sentence

    run(main())


def test_a_refused_connection_to_a_port_that_the_url_does_not_name_says_the_port(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        # An address of this machine on which nothing listens at port 80.
        assert await said(caplog, "http://127.0.0.99") == (
            "no way to the hub http://127.0.0.99: connection refused "
            "(port 80; a hub listens on 4483 if not told otherwise); trying again"
        )

    run(main())


@pytest.mark.parametrize("is_tls_proxy", [False, True], ids=["http proxy", "https proxy"])
@pytest.mark.parametrize("is_tls_hub", [False, True], ids=["http hub", "https hub"])
@LOOPS
def test_through_a_proxy_with_its_credentials(loop: str, is_tls_hub: bool, is_tls_proxy: bool) -> None:
    async def main() -> None:
        proxy = ProxyServer(tls=server_tls() if is_tls_proxy else None)
        hub = ScriptedHub(tls=server_tls() if is_tls_hub else None)
        async with SimulatedEngine() as engine, proxy, hub:
            given = options(hub.url.replace("127.0.0.1", NAME), engine.url, ca_file=CA_FILE)
            async with agent(given, {"ALL_PROXY": proxy.url}):
                await hub.joined()
                assert (await hub.ask(get("/api/version"), f"port-{engine.port}")).status == 200
                assert all(b"Proxy-Authorization: Basic dTpw" in each for each in proxy.requests)
                assert len(proxy.requests) == 4

    run(main(), factory_of(loop))


def test_a_proxy_that_refuses_is_named(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with ProxyServer(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n") as proxy:
            given = options("http://hub.invalid:1", "http://127.0.0.1:1")
            async with agent(given, {"HTTP_PROXY": proxy.url}):
                wanted = "no way to the hub http://hub.invalid:1: the proxy wants other credentials (407); trying again"
                await until(lambda: any(each.message == wanted for each in caplog.records))

    run(main())


def test_a_proxy_that_is_away_is_named(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        given = options("http://hub.invalid:1", "http://127.0.0.1:1")
        async with agent(given, {"HTTP_PROXY": "http://127.0.0.1:9"}):
            wanted = "no connection to the proxy 127.0.0.1:9: connection refused"
            await until(lambda: any(wanted in each.message for each in caplog.records))

    run(main())


def test_a_hub_whose_name_cannot_be_resolved_is_named(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with agent(options("http://hub.invalid", "http://127.0.0.1:1")):
            await until(lambda: any("no way to the hub" in each.message for each in caplog.records))
            assert any("its name is not known" in each.message for each in caplog.records)

    run(main())
