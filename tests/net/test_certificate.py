"""The certificate of a listener: what is read, what is refused in one sentence, and what a change changes."""

from __future__ import annotations

import shutil
import ssl
from pathlib import Path

import pytest

from hive.net.certificate import Certificate, CertificateError

from ..certificates import SAID, bad_files, make_certificate

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl command makes certificates here")


def shown(certificate: Certificate) -> str:
    """Return the common name that a new connection is shown."""
    client, server = ssl.MemoryBIO(), ssl.MemoryBIO()
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    ours = trusting.wrap_bio(server, client, server_hostname="localhost")
    theirs = certificate.context.wrap_bio(client, server, server_side=True)
    for side in (ours, theirs, ours):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            pass
    der = ours.getpeercert(binary_form=True)
    assert der is not None
    return "first" if b"first" in der else "second"


def test_files_that_cannot_be_used_are_one_sentence_with_the_options_name(tmp_path: Path) -> None:
    files = bad_files(tmp_path)
    said = {}
    for name, (certificate, key) in files.items():
        with pytest.raises(CertificateError) as raised:
            Certificate(certificate, key)
        said[name] = str(raised.value)
    assert said == {name: sentence.format(*files[name]) for name, sentence in SAID.items()}


def test_a_certificate_is_shown_to_new_connections(tmp_path: Path) -> None:
    assert shown(Certificate(*make_certificate(tmp_path, "first"))) == "first"


def test_new_files_are_shown_once_they_are_read_anew(tmp_path: Path) -> None:
    files, others = make_certificate(tmp_path, "first"), make_certificate(tmp_path, "second")
    certificate = Certificate(*files)
    for file, other in zip(files, others, strict=True):
        file.write_bytes(other.read_bytes())
    assert shown(certificate) == "first"
    certificate.reload()
    assert shown(certificate) == "second"


def test_files_that_cannot_be_used_leave_the_old_ones(tmp_path: Path) -> None:
    files = make_certificate(tmp_path, "first")
    certificate = Certificate(*files)
    files[1].write_bytes(b"broken")
    with pytest.raises(CertificateError, match="holds no private key"):
        certificate.reload()
    assert shown(certificate) == "first"
