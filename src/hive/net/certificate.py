"""The certificate of an HTTPS listener. It can be read again while the hub runs; new connections get the new one."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

_CERTIFICATE = re.compile(rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----")
_PRIVATE_KEY = re.compile(rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----")
_MOST_BYTES = 1 << 20


class CertificateError(Exception):
    """One sentence that names the option and the file, and says what is wrong."""


class Certificate:
    """A certificate and its key in files. The listener keeps `context` as long as it listens."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Read both files. Raises `CertificateError`."""
        self._certificate = certificate
        self._key = key
        self._current = self._read()
        self.context = self._read()
        self.context.sni_callback = self._choose

    def reload(self) -> None:
        """Read both files again, for new connections. Raises `CertificateError`; then the old certificate stays."""
        self._current = self._read()

    def _choose(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        connection.context = self._current

    def _read(self) -> ssl.SSLContext:
        if not _CERTIFICATE.search(_content("tls_cert", self._certificate)):
            raise CertificateError(f"tls_cert: {self._certificate} holds no certificate in PEM")
        key = _content("tls_key", self._key)
        if not _PRIVATE_KEY.search(key):
            raise CertificateError(f"tls_key: {self._key} holds no private key in PEM")
        if b"ENCRYPTED" in key:
            raise CertificateError(f"tls_key: {self._key} has a password, and the hub takes only one without")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            # Without this password OpenSSL would ask for one on the terminal.
            context.load_cert_chain(self._certificate, self._key, password=lambda: "")
        except (ssl.SSLError, ValueError, OSError) as error:
            why = getattr(error, "reason", None) or str(error)
            if why == "KEY_VALUES_MISMATCH":
                raise CertificateError(
                    f"tls_key: {self._key} is not the key of the certificate in {self._certificate}"
                ) from None
            raise CertificateError(
                f"tls_cert and tls_key: {self._certificate} and {self._key} are no certificate with its key in PEM"
                f" ({str(why).lower().replace('_', ' ')})"
            ) from None
        return context


def _content(option: str, path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES)
    except OSError as error:
        raise CertificateError(f"{option}: {path} cannot be read ({error.strerror})") from None
