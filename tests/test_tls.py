"""HTTPS on the hub's own port: clients, nodes, and a certificate that changes while the hub runs."""

from __future__ import annotations

import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hive.cli import main
from hive.sources import load_settings
from hive.testing import ThreadedEngine
from hive.testing.agent_double import run_agent
from hive.testing.hub import ThreadedHub, run_hub
from hive.testing.scripted import Call, run_scripted

from .certificates import bad_files, make_certificate
from .process import HIVE, environment, serving
from .raw import GENERATE, STREAM, Wire, eventually, get, request

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl command makes certificates here")

DONE = b'{"response":"","done":true}\n'


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate and its key."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(params=[True, False], ids=["uvloop", "asyncio"])
def hub(request: pytest.FixtureRequest, files: tuple[Path, Path], engine: ThreadedEngine) -> Iterator[ThreadedHub]:
    """A hub with HTTPS over one dialed engine."""
    certificate, key = files
    settings = {"tls_cert": certificate, "tls_key": key}
    with run_hub({"a": engine.url}, link="dialed", use_uvloop=request.param, **settings) as hub:
        yield hub


def trusting(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate))


class TlsWire(Wire):
    """A client that speaks TLS."""

    def __init__(self, port: int, context: ssl.SSLContext, receive_buffer: int | None = None) -> None:
        super().__init__(port, receive_buffer)
        self.sock = context.wrap_socket(self.sock, server_hostname="localhost")

    @property
    def common_name(self) -> str:
        certificate = self.sock.getpeercert()  # type: ignore[attr-defined]
        return str(dict(part[0] for part in certificate["subject"])["commonName"])


def test_clients_are_served_over_tls(hub: ThreadedHub, files: tuple[Path, Path]) -> None:
    with TlsWire(hub.port, trusting(files[0])) as wire:
        for body in (GENERATE, STREAM, GENERATE):
            wire.send(request(body=body))
            answer = wire.answer()
            assert (answer.status, answer.is_whole) == (200, True)
        assert wire.sock.version() in ("TLSv1.2", "TLSv1.3")  # type: ignore[attr-defined]


def test_a_large_body_arrives_over_tls(hub: ThreadedHub, files: tuple[Path, Path], engine: ThreadedEngine) -> None:
    with TlsWire(hub.port, trusting(files[0])) as wire:
        data = request(body={**GENERATE, "images": ["x" * 3_000_000]})
        wire.send(data)
        assert wire.answer().status == 200
    engine.until(lambda state: any(seen.body_bytes > 3_000_000 for seen in state.requests))


def test_what_is_no_tls_is_dropped_and_harms_nobody(hub: ThreadedHub, files: tuple[Path, Path]) -> None:
    with Wire(hub.port) as plain:
        plain.send_anyway(get("/api/version"))
        assert b"Ollama" not in plain.rest()
    with TlsWire(hub.port, trusting(files[0])) as wire:
        assert wire.is_open()


def test_tcp_nodelay_holds_over_tls(hub: ThreadedHub, files: tuple[Path, Path]) -> None:
    with TlsWire(hub.port, trusting(files[0])) as wire:
        assert wire.is_open()

        def nodelay(server: object) -> int:
            [one] = server.server.connections  # type: ignore[attr-defined]
            found = one._transport.get_extra_info("socket")
            return int(found.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

        assert hub.call(nodelay) > 0


def test_nodes_join_over_tls(hub: ThreadedHub, files: tuple[Path, Path], second_engine: ThreadedEngine) -> None:
    key = hub.create_key("desk", "worker")
    url = f"https://localhost:{hub.port}"
    with run_agent(url, key, {"engine": second_engine.url}, context=trusting(files[0])):
        hub.until(lambda server: [e.health.value for e in server.hub.fleet.engines] == ["ready", "ready"])
        hub.call(lambda server: server.hub.node_cases.drain("a", True))
        with TlsWire(hub.port, trusting(files[0])) as wire:
            for body in (GENERATE, STREAM):
                wire.send(request(body=body))
                answer = wire.answer()
                assert (answer.status, answer.header("X-Hive-Node"), answer.is_whole) == (200, "desk", True)


@pytest.mark.parametrize("use_uvloop", [True, False])
def test_a_client_that_takes_no_byte_is_dropped_over_tls_too(files: tuple[Path, Path], use_uvloop: bool) -> None:
    def firehose(call: Call) -> None:
        call.begin()
        try:
            while True:
                call.chunk(b'{"response":"' + b"x" * 4000 + b'","done":false}\n')
        except OSError:
            call.is_over = True

    settings = {"tls_cert": files[0], "tls_key": files[1], "send_timeout": 0.3}
    with (
        run_scripted(firehose) as engine,
        run_hub({"a": engine.url}, link="dialed", use_uvloop=use_uvloop, **settings) as hub,
        TlsWire(hub.port, trusting(files[0]), receive_buffer=4096) as wire,
    ):
        wire.send(request(body=STREAM))
        hub.until(lambda server: any(one.is_paused for one in server.server.connections))
        hub.until(lambda server: not server.server.connections)
        engine.until(lambda one: one.calls[0].is_over)


@pytest.mark.parametrize("use_uvloop", [True, False])
def test_a_slow_reader_gets_its_whole_answer_before_the_hub_ends(files: tuple[Path, Path], use_uvloop: bool) -> None:
    big = b'{"response":"' + b"x" * 12_000_000 + b'","done":true}'
    settings = {"tls_cert": files[0], "tls_key": files[1], "drain_timeout": 30, "held_answer_bytes": 1 << 26}
    with (
        run_scripted(lambda call: call.answer(big)) as engine,
        run_hub({"a": engine.url}, link="dialed", use_uvloop=use_uvloop, **settings) as hub,
        TlsWire(hub.port, trusting(files[0]), receive_buffer=65_536) as wire,
    ):
        wire.send(request(body=GENERATE))
        hub.until(lambda server: any(one.has_unsent for one in server.server.connections))
        hub.begin_stop()
        answer = wire.answer()
        assert (answer.is_whole, len(answer.body)) == (True, len(big))


# --- the certificate changes ---


def test_new_connections_get_the_new_certificate_and_running_ones_stay(tmp_path: Path, engine: ThreadedEngine) -> None:
    certificate, key = make_certificate(tmp_path, "first")
    other, other_key = make_certificate(tmp_path, "second")
    bundle = tmp_path / "both.pem"
    bundle.write_bytes(certificate.read_bytes() + other.read_bytes())
    with (
        run_hub({"a": engine.url}, link="dialed", tls_cert=certificate, tls_key=key) as hub,
        TlsWire(hub.port, trusting(bundle)) as wire,
    ):
        assert wire.common_name == "first"
        certificate.write_bytes(other.read_bytes())
        key.write_bytes(other_key.read_bytes())
        hub.call(lambda server: server.reload_certificate())
        with TlsWire(hub.port, trusting(bundle)) as new:
            assert new.common_name == "second"
            assert new.is_open()
        assert wire.is_open()
        key.write_bytes(b"broken")
        hub.call(lambda server: server.reload_certificate())
        with TlsWire(hub.port, trusting(bundle)) as new:
            assert new.common_name == "second"


def test_sighup_reads_the_certificate_anew_and_the_hub_goes_on(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "first")
    other, other_key = make_certificate(tmp_path, "second")
    bundle = tmp_path / "both.pem"
    bundle.write_bytes(certificate.read_bytes() + other.read_bytes())
    flags = ("--tls-cert", str(certificate), "--tls-key", str(key))
    with serving(tmp_path, *flags) as hub:
        assert f"https://127.0.0.1:{hub.port}" in hub.said()
        certificate.write_bytes(other.read_bytes())
        hub.process.send_signal(signal.SIGHUP)  # a key that does not belong to it
        eventually(lambda: "the certificate is not read anew" in hub.said())
        with TlsWire(hub.port, trusting(bundle)) as wire:
            assert wire.common_name == "first"
        key.write_bytes(other_key.read_bytes())
        hub.process.send_signal(signal.SIGHUP)
        eventually(lambda: "the certificate was read anew" in hub.said())
        with TlsWire(hub.port, trusting(bundle)) as wire:
            assert wire.common_name == "second"
        hub.process.send_signal(signal.SIGTERM)
        assert hub.process.wait(5) == 0


# --- files that cannot be used ---


def test_a_start_with_files_that_cannot_be_used_is_one_sentence_and_a_wrong_use(tmp_path: Path) -> None:
    certificate, key = bad_files(tmp_path)["a key with a password"]
    ended = subprocess.run(
        [HIVE, "serve", "--port", "0", "--data-dir", tmp_path / "data", "--tls-cert", certificate, "--tls-key", key],
        capture_output=True, text=True, env=environment(), timeout=20, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert len(ended.stderr.strip().splitlines()) == 1
    assert ended.stderr.startswith(f"hive serve: tls_key: {key} ")


# --- commands that ask a hub with a certificate of its own ---


def ask_by_command(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command; return what it said."""
    main(arguments)
    shown = capsys.readouterr()
    return shown.out + shown.err


def test_commands_trust_the_authority_that_they_are_told(
    hub: ThreadedHub, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url, authority = f"https://localhost:{hub.port}", str(files[0])
    monkeypatch.setenv("HIVE_API_KEY", hub.admin_key)
    monkeypatch.setenv("HIVE_HUB", url)

    def said(*arguments: str) -> str:
        return ask_by_command(capsys, *arguments)

    for command in ("nodes", "models", "ps", "queue", "requests", "status", "keys list", "drain a", "resume a"):
        monkeypatch.delenv("HIVE_CA_FILE", raising=False)
        assert said(*command.split()) == (
            f"hive: no way to the hub {url}: its certificate is not trusted (self-signed certificate); "
            "--ca-file names the authority's file\n"
        )
        assert "hive: " not in said(*command.split(), "--ca-file", authority)
        monkeypatch.setenv("HIVE_CA_FILE", authority)
        assert "hive: " not in said(*command.split())
    monkeypatch.delenv("HIVE_CA_FILE")
    monkeypatch.setenv("SSL_CERT_FILE", authority)
    assert "hive: " not in said("nodes")


def test_commands_say_what_is_wrong_with_the_way_to_a_hub(
    hub: ThreadedHub, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*arguments: str) -> str:
        return ask_by_command(capsys, "nodes", *arguments)

    port, authority = hub.port, ("--ca-file", str(files[0]))
    assert "its certificate is for another name (" in said("--hub", f"https://127.1:{port}", *authority)
    assert "; if the hub has a certificate, use https://)" in said("--hub", f"http://127.0.0.1:{port}")
    assert said("--hub", f"https://localhost:{port}", "--ca-file", "/no/such").startswith(
        "hive: --ca-file: /no/such cannot be read"
    )


def test_commands_say_that_a_hub_has_no_certificate(
    shared_hub: ThreadedHub, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"https://127.0.0.1:{shared_hub.port}"
    said = ask_by_command(capsys, "nodes", "--hub", url)
    assert said == f"hive: no way to the hub {url}: it speaks plain HTTP; use http://\n"


@pytest.mark.parametrize("name", ["tls_cert", "tls_key"])
def test_one_of_the_two_files_is_not_enough(name: str) -> None:
    with pytest.raises(Exception, match="HTTPS needs both") as raised:
        load_settings({name: "some.pem"}, environ={})
    assert type(raised.value).__name__ == "SettingsError"
