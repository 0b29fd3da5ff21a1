"""Certificates for tests, good ones and files that are none, and what the hub says of those."""

from __future__ import annotations

import subprocess
from pathlib import Path


def make_certificate(directory: Path, name: str = "localhost", *more: str) -> tuple[Path, Path]:
    """Make a certificate of this common name that signs itself; return its file and its key's."""
    certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-days", "2",
            "-keyout", str(key), "-out", str(certificate), *more,
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


def bad_files(directory: Path) -> dict[str, tuple[Path, Path]]:
    certificate, key = make_certificate(directory, "one")
    _, other_key = make_certificate(directory, "two")
    empty = directory / "empty"
    empty.write_bytes(b"")
    locked = directory / "locked.key"
    subprocess.run(
        ["openssl", "pkey", "-in", str(key), "-aes256", "-passout", "pass:secret", "-out", str(locked)],
        check=True, capture_output=True,
    )  # fmt: skip
    return {
        "no such file": (directory / "nowhere", key),
        "a directory": (directory, key),
        "empty": (empty, key),
        "the other way round": (key, certificate),
        "a certificate for a key": (certificate, certificate),
        "another certificate's key": (certificate, other_key),
        "a key with a password": (certificate, locked),
    }


SAID = {
    "no such file": "tls_cert: {0} cannot be read (No such file or directory)",
    "a directory": "tls_cert: {0} cannot be read (Is a directory)",
    "empty": "tls_cert: {0} holds no certificate in PEM",
    "the other way round": "tls_cert: {0} holds no certificate in PEM",
    "a certificate for a key": "tls_key: {1} holds no private key in PEM",
    "another certificate's key": "tls_key: {1} is not the key of the certificate in {0}",
    "a key with a password": "tls_key: {1} has a password, and the hub takes only one without",
}
