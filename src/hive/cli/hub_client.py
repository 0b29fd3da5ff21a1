"""How client commands find the hub and speak to it over HTTP."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

import msgspec
import typer

from hive.cli.command_error import CommandError
from hive.config import Secret, SettingsError, is_loopback
from hive.net.reasons import in_words
from hive.net.trust import make_tls, why_no_tls
from hive.sources import check_secret, read_secret

DEFAULT_HUB = "http://127.0.0.1:4483"
TIMEOUT = 30.0

HubOption = Annotated[str, typer.Option("--hub", envvar="HIVE_HUB", metavar="URL", help="The hub.")]
KeyFileOption = Annotated[
    Path | None,
    typer.Option("--api-key-file", metavar="FILE", help="File that holds the key; else HIVE_API_KEY is the key."),
]
CaFileOption = Annotated[
    Path | None,
    typer.Option("--ca-file", metavar="FILE", help="Authority of the hub's certificate, in PEM (HIVE_CA_FILE)."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

T = TypeVar("T")


class _Detail(msgspec.Struct):
    message: str


class _ErrorAnswer(msgspec.Struct):
    error: str | _Detail
    """A plain text is Ollama's form of an error."""


@dataclass(frozen=True, slots=True)
class HubClient:
    """The hub at a URL, and the key for it."""

    url: str
    key: Secret | None
    tls: ssl.SSLContext | None = field(default=None, compare=False, repr=False)
    """Judges the certificate of a hub with https."""

    def ask(self, method: str, path: str, body: object = None) -> bytes:
        """Return the body of the hub's answer. Raises CommandError with the reason when there is none."""
        import httpx

        headers = {"Authorization": f"Bearer {self.key.value}"} if self.key else {}
        content = None if body is None else msgspec.json.encode(body)
        if content is not None:
            headers["Content-Type"] = "application/json"
        # A proxy of the environment cannot reach a hub on this machine.
        by_environment = not is_loopback(urlsplit(self.url).hostname or "")
        try:
            with httpx.Client(timeout=TIMEOUT, trust_env=by_environment, verify=self.tls or True) as client:
                answer = client.request(method, self.url + path, headers=headers, content=content)
        except httpx.TimeoutException as error:
            raise CommandError(f"the hub at {self.shown} did not answer within {TIMEOUT:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise CommandError(self._why_silent(error)) from error
        if answer.is_success:
            return answer.content
        raise CommandError(self._refusal(answer.status_code, answer.content))

    @property
    def shown(self) -> str:
        """Return the hub's URL without its path, which could hold a key."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    def _why_silent(self, error: Exception) -> str:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLError) and (why := why_no_tls(cause)) is not None:
                return f"no way to the hub {self.shown}: {why}"
            cause = cause.__cause__ or cause.__context__
        from httpx import ReadError, RemoteProtocolError

        is_dropped = self.tls is None and isinstance(error, ReadError | RemoteProtocolError)
        hint = "; if the hub has a certificate, use https://" if is_dropped else ""
        return f"no hub answers at {self.shown} ({in_words(error)}{hint})"

    def read(self, answer: bytes, kind: type[T]) -> T:
        """Return an answer as `kind`."""
        try:
            return msgspec.json.decode(answer, type=kind)
        except msgspec.DecodeError as error:
            raise CommandError(f"{self.shown} does not answer as a Hive hub does ({error})") from error

    def _refusal(self, status: int, answer: bytes) -> str:
        try:
            error = msgspec.json.decode(answer, type=_ErrorAnswer).error
        except msgspec.DecodeError:
            return f"{self.shown} answered {status}, and not as a Hive hub does"
        message = error if isinstance(error, str) else error.message
        if status == 401:
            return f"{message} (the key comes from HIVE_API_KEY or --api-key-file)"
        return message


def find_hub(url: str, key_file: Path | None, ca_file: Path | None = None) -> HubClient:
    """Return the hub that options and environment name. Raises CommandError when a value is wrong."""
    full = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(full)
        is_url = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1) and full.isprintable()
    except ValueError:
        is_url = False
    if not is_url or "@" in full or "?" in full or "#" in full:
        raise CommandError(f"--hub: expected a URL such as {DEFAULT_HUB}, without user, query or key", 2)
    try:
        return HubClient(full.rstrip("/"), _key(key_file), _tls(full, ca_file))
    except SettingsError as error:
        raise CommandError(str(error), 2) from error


def _key(file: Path | None) -> Secret | None:
    if file is not None:
        return read_secret("--api-key-file", file)
    text = os.environ.get("HIVE_API_KEY", "").strip()
    return check_secret("HIVE_API_KEY", text) if text else None


def _tls(url: str, ca_file: Path | None) -> ssl.SSLContext | None:
    if not url.startswith("https:"):
        return None
    if ca_file is not None:
        return make_tls(ca_file)
    text = os.environ.get("HIVE_CA_FILE")
    return make_tls(Path(text) if text else None, "HIVE_CA_FILE")
