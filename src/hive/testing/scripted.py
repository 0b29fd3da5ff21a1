"""An engine that sends any bytes a test wants. It answers probes as an Ollama, and plays a script for each request."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import msgspec

from hive import OLLAMA_API_VERSION

_PATIENCE = 10.0
_RESET = struct.pack("ii", 1, 0)


class _Gone(Exception):  # noqa: N818 - not an error: the hub closed its connection
    """The peer closed the connection."""


@dataclass(eq=False)
class Call:
    """One request for work: what arrived, and methods to answer it byte by byte."""

    head: bytes
    body: bytes
    number: int
    """The number of this request for work at this engine, from 0."""
    connection: int
    """The number of the connection at this engine, from 0."""
    sock: socket.socket = field(repr=False)
    is_over: bool = False
    """Did the script end the connection?"""

    @property
    def path(self) -> str:
        """The target of the request."""
        return self.head.split(b" ", 2)[1].decode("latin-1")

    @property
    def fields(self) -> dict[str, str]:
        """The header fields, names in lower case."""
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.sock.sendall(data)

    def answer(self, body: bytes, *, status: str = "200 OK", kind: str = "application/json", more: str = "") -> None:
        """Send a whole answer with its length. `more` holds further header lines."""
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{more}Content-Length: {len(body)}\r\n\r\n"
        self.send(head.encode("latin-1") + body)

    def begin(self, kind: str = "application/x-ndjson", more: str = "") -> None:
        """Send the head of a chunked answer."""
        self.send(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{more}Transfer-Encoding: chunked\r\n\r\n".encode())

    def chunk(self, data: bytes) -> None:
        """Send one chunk. An empty chunk ends the answer."""
        self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def close(self) -> None:
        """End the connection in good order."""
        self.is_over = True
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)
        self.sock.close()

    def reset(self) -> None:
        """End the connection with a reset."""
        self.is_over = True
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.sock.close()

    def wait_for_departure(self, timeout: float = _PATIENCE) -> float:
        """Wait until the hub closes the connection; return after how many seconds. Raises `TimeoutError`."""
        began = time.monotonic()
        self.sock.settimeout(timeout)
        self.is_over = True
        try:
            while self.sock.recv(65536):
                pass
        except ConnectionError:
            pass
        finally:
            with suppress(OSError):
                self.sock.settimeout(_PATIENCE)
        return time.monotonic() - began


Script = Callable[[Call], None]


def _load(call: Call) -> None:
    call.answer(b'{"embeddings":[]}')


class ScriptedEngine:
    """An engine that plays `scripts` in order, one for each request for work (a POST). The last script is repeated.

    A request to embed nothing is a load, which the hub sends by itself. `on_load` answers it; it takes no script.
    """

    def __init__(self, *scripts: Script, models: Sequence[str] = ("tiny:latest",)) -> None:
        self.scripts: Sequence[Script] = scripts
        self.on_load: Script = _load
        self.models = tuple(models)
        self.relayed: tuple[str, ...] = ()
        """The models that the engine lists as cloud models: it only relays them to another machine."""
        self.loaded = self.models
        """The models that the engine lists as loaded."""
        self.calls: list[Call] = []
        self.loads: list[Call] = []
        self.errors: list[BaseException] = []
        """The exceptions that scripts raised, except when the hub had closed the connection."""
        self.connections = 0
        self.probe_heads: list[bytes] = []
        self.closes_after_probe = False
        self._changed = threading.Condition()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = int(self._listener.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._accepting = threading.Thread(target=self._accept, name="scripted engine", daemon=True)
        self._accepting.start()

    @property
    def open_connections(self) -> int:
        """Return the number of connections that are open now."""
        return len(self._open)

    def until(self, is_true: Callable[[ScriptedEngine], bool], timeout: float = _PATIENCE) -> None:
        """Block until a condition holds. Raises `TimeoutError`."""
        with self._changed:
            if not self._changed.wait_for(lambda: is_true(self), timeout):
                raise TimeoutError(f"{self.url}: the condition did not come true within {timeout:g} s")

    def call_number(self, number: int) -> Call:
        """Return the request for work with this number, once it has arrived."""
        self.until(lambda engine: len(engine.calls) > number)
        return self.calls[number]

    def drop_connections(self) -> None:
        """Close every connection, as a server closes idle ones."""
        for sock in list(self._open):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop. Every script that still runs finds its connection closed."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop_connections()
        self._accepting.join(_PATIENCE)
        for thread in self._threads:
            thread.join(_PATIENCE)

    def _note(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(_PATIENCE)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open.add(sock)
            thread = threading.Thread(target=self._serve, args=(sock, self.connections), daemon=True)
            self.connections += 1
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket, connection: int) -> None:
        try:
            while self._answer_one(sock, connection):
                pass
        except (_Gone, ConnectionError, TimeoutError, OSError):
            pass
        except BaseException as error:
            self.errors.append(error)
        finally:
            self._open.discard(sock)
            sock.close()
            self._note()

    def _answer_one(self, sock: socket.socket, connection: int) -> bool:
        head, rest = _read_head(sock)
        if not head.startswith(b"POST "):
            self.probe_heads.append(head)
            sock.sendall(self.probe_answer(head.split(b" ", 2)[1].decode()))
            return not self.closes_after_probe
        call = Call(head, b"", len(self.calls), connection, sock)
        length = int(call.fields.get("content-length", "0"))
        call.body = rest + _read_exactly(sock, length - len(rest))
        if call.path.endswith("/api/embed") and b'"input"' not in call.body:
            call.number = len(self.loads)
            self.loads.append(call)
            script = self.on_load
        else:
            self.calls.append(call)
            script = self.scripts[min(call.number, len(self.scripts) - 1)]
        self._note()
        script(call)
        return not call.is_over

    def probe_answer(self, path: str) -> bytes:
        """Return a whole answer to a GET."""
        listed = [
            {
                "name": name,
                "model": name,
                "modified_at": "2026-01-01T00:00:00Z",
                "size": 1,
                "digest": "a" * 64,
                **({"remote_model": name, "remote_host": "https://far.example"} if name in self.relayed else {}),
            }
            for name in self.models
        ]
        known: dict[str, object] = {
            "/api/version": {"version": OLLAMA_API_VERSION},
            "/api/tags": {"models": listed},
            "/api/ps": {
                "models": [
                    {**one, "expires_at": "2030-01-01T00:00:00Z", "size_vram": 1}
                    for one in listed
                    if one["name"] in self.loaded
                ]
            },
        }
        path = path[max(path.find("/api/"), 0) :]
        body = msgspec.json.encode(known.get(path, {"error": "unknown"}))
        status = "200 OK" if path in known else "404 Not Found"
        return b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
            status.encode(), len(body), body,
        )  # fmt: skip


@contextmanager
def run_scripted(*scripts: Script, models: Sequence[str] = ("tiny:latest",)) -> Iterator[ScriptedEngine]:
    """Run a scripted engine while the block runs. At its end, raise the first exception of its scripts."""
    engine = ScriptedEngine(*scripts, models=models)
    try:
        yield engine
    finally:
        engine.close()
    if engine.errors:
        raise engine.errors[0]


def _read_head(sock: socket.socket) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(65536)
        if not more:
            raise _Gone
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def _read_exactly(sock: socket.socket, count: int) -> bytes:
    pieces: list[bytes] = []
    while count > 0:
        more = sock.recv(min(count, 1 << 20))
        if not more:
            raise _Gone
        pieces.append(more)
        count -= len(more)
    return b"".join(pieces)
