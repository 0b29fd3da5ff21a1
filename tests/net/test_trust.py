"""Which certificates are trusted: a file of authorities that cannot be used is a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from hive.config import SettingsError
from hive.net.trust import make_tls


def test_an_authority_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    with pytest.raises(SettingsError, match=r"^--ca-file: .* holds no certificate in PEM form"):
        make_tls(empty)
    with pytest.raises(SettingsError, match=r"^HIVE_CA_FILE: .* cannot be read \(No such file or directory\)"):
        make_tls(tmp_path / "none.pem", "HIVE_CA_FILE")
