"""The certificate of an HTTPS listener, read anew while the hub runs: new connections get the new one."""

from __future__ import annotations

import ssl
from pathlib import Path


class CertificateError(Exception):
    """One sentence: which file, and what is wrong with it."""


class Certificate:
    """A certificate and its key in files. `context` is the listener's, for as long as it listens."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Read both files. Raises `CertificateError`."""
        self._certificate = certificate
        self._key = key
        self._current = self._read()
        self.context = self._read()
        self.context.sni_callback = self._choose

    def reload(self) -> None:
        """Read both files again, for new connections. Raises `CertificateError`; then the old ones stay."""
        self._current = self._read()

    def _choose(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        connection.context = self._current

    def _read(self) -> ssl.SSLContext:
        for path in (self._certificate, self._key):
            try:
                path.open("rb").close()
            except OSError as error:
                raise CertificateError(f"{path} cannot be read ({error.strerror})") from None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            # Without a password OpenSSL would ask for one on the terminal.
            context.load_cert_chain(self._certificate, self._key, password=lambda: "")
        except (ssl.SSLError, ValueError, OSError) as error:
            why = getattr(error, "reason", None) or str(error)
            raise CertificateError(
                f"{self._certificate} and {self._key} are no certificate with its unencrypted key in PEM"
                f" ({str(why).lower().replace('_', ' ')})"
            ) from None
        return context
