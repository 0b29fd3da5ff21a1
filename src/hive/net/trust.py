"""The certificates that are trusted on the way to a hub, and the reasons why another certificate is not trusted."""

from __future__ import annotations

import ssl
from pathlib import Path

from hive.config import SettingsError

_NAME_MISMATCHES = frozenset({62, 64})
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""
_WRONG_TIMES = frozenset({9, 10})
"""X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED."""
_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"})
"""The reasons that different versions of OpenSSL give for an answer in plain HTTP."""


def make_tls(ca_file: Path | None, label: str = "--ca-file") -> ssl.SSLContext:
    """Return a context that judges certificates: by this machine's authorities and by a file.

    Raises `SettingsError`.
    """
    context = ssl.create_default_context()
    if not context.cert_store_stats()["x509_ca"] and not _has_system_authorities():
        import certifi

        context.load_verify_locations(certifi.where())
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except ssl.SSLError:
            raise SettingsError(f"{label}: {ca_file} holds no certificate in PEM form") from None
        except OSError as error:
            raise SettingsError(f"{label}: {ca_file} cannot be read ({error.strerror})") from None
    return context


def _has_system_authorities() -> bool:
    """Does OpenSSL find authorities on this machine? A Python for macOS has none."""
    paths = ssl.get_default_verify_paths()
    return paths.cafile is not None or paths.capath is not None


def why_no_tls(error: ssl.SSLError) -> str | None:
    """Return why TLS to a hub failed and what to do. None: only OpenSSL's own text explains the error."""
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message.rstrip(".")
        if error.verify_code in _NAME_MISMATCHES:
            return f"its certificate is for another name ({why}); use a name that the certificate has"
        fact = f"its certificate is not trusted ({why})"
        return fact if error.verify_code in _WRONG_TIMES else f"{fact}; --ca-file names the authority's file"
    return "it speaks plain HTTP; use http://" if error.reason in _NO_TLS else None
