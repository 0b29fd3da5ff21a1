"""The data directory is closed to other users and belongs to one process."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hive.store.directory import DataDirectory
from hive.store.store_error import DirectoryInUseError, StoreError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="modes and flock are Unix's")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_directory_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path / "a" / "b")
    directory.claim()
    directory.release()
    assert mode(tmp_path / "a" / "b") == 0o700
    assert mode(tmp_path / "a" / "b" / "hive.lock") == 0o600


def test_an_empty_directory_and_a_directory_of_hive_are_closed_to_other_users(tmp_path: Path) -> None:
    for content in ([], ["lost+found"], ["hive.db", "other"]):
        path = tmp_path / str(len(content))
        path.mkdir()
        path.chmod(0o755)
        for name in content:
            (path / name).touch()
        directory = DataDirectory(path)
        directory.claim()
        directory.release()
        assert mode(path) == 0o700


def test_an_open_directory_with_other_files_is_left_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(StoreError, match="give the hub a directory of its own"):
        DataDirectory(tmp_path).claim()
    assert mode(tmp_path) == 0o755
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_error_of_a_second_process_names_the_holder_of_the_directory(tmp_path: Path) -> None:
    path = tmp_path / "data"
    held = DataDirectory(path)
    held.claim()
    script = "import sys, pathlib, hive.store.directory as d; d.DataDirectory(pathlib.Path(sys.argv[1])).claim()"
    second = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False)
    said = f"DirectoryInUseError: data directory {path}: is in use by process {os.getpid()}"
    assert said in second.stderr.splitlines()[-1]
    held.release()


def test_a_released_directory_can_be_claimed_again(tmp_path: Path) -> None:
    first, second = DataDirectory(tmp_path / "d"), DataDirectory(tmp_path / "d")
    first.claim()
    with pytest.raises(DirectoryInUseError):
        second.claim()
    first.release()
    first.release()
    second.claim()
    second.release()


def test_a_path_that_is_no_directory_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"file: cannot be used \(File exists\)$"):
        DataDirectory(tmp_path / "file").claim()
