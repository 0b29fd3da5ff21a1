"""Which engines are found, and whether they are what their folders say."""

from __future__ import annotations

import os
import pathlib
import subprocess
from collections.abc import Callable

import pytest

from . import installed
from .installed import NEWEST_OLLAMA, OLLAMAS, Fleet, find_ollamas, has_route, version_of
from .wire import ask


def test_ollamas_are_found_by_their_folders_and_the_newest_comes_first(tmp_path: pathlib.Path) -> None:
    assert find_ollamas(tmp_path) == {}
    programs = [
        f"ollama-{version}/bin/ollama" for version in ("0.9.10", "0.33.0-rc2", "0.33.0", "0.33.0-rc10", "0.24.0", "1.0")
    ]
    for program in ("ollama/bin/ollama-lib", *programs):
        (tmp_path / program).parent.mkdir(parents=True)
        (tmp_path / program).touch()
    (tmp_path / "ollama-0.40.0/bin").mkdir(parents=True)
    found = find_ollamas(tmp_path)
    order = ["1.0", "0.33.0", "0.33.0-rc10", "0.33.0-rc2", "0.24.0", "0.9.10", "0.9.3"]
    assert list(found) == [f"ollama-{version}" for version in order]
    assert found["ollama-0.9.3"] == tmp_path / "ollama/bin/ollama-lib"
    assert found["ollama-0.33.0"] == tmp_path / "ollama-0.33.0/bin/ollama"


@pytest.mark.parametrize(
    ("kind", "path", "is_there"),
    [
        ("ollama-0.9.3", "/api/chat", True),
        ("ollama-0.9.3", "/v1/responses", False),
        ("ollama-0.13.3", "/v1/responses", True),
        ("ollama-0.13.3", "/v1/messages", False),
        ("ollama-0.33.0-rc2", "/v1/messages", True),
        ("llama-server", "/v1/messages", True),
    ],
)
def test_routes_that_came_with_a_version(kind: str, path: str, is_there: bool) -> None:
    assert has_route(kind, path) is is_there


@pytest.mark.engines
@pytest.mark.parametrize("kind", OLLAMAS)
def test_an_ollama_has_the_version_of_its_folder(kind: str, tmp_path: pathlib.Path) -> None:
    installed.need(kind)
    program = installed.OLLAMA_BINARIES[kind]
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LD_LIBRARY_PATH": str(program.parent)}
    done = subprocess.run([program, "--version"], env=env, capture_output=True, text=True, timeout=30, check=True)
    assert kind.removeprefix("ollama-") in done.stdout + done.stderr


@pytest.mark.engines
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses"])
def test_the_newest_ollama_knows_every_dialect(path: str, fleets: Callable[[str], Fleet]) -> None:
    if version_of(NEWEST_OLLAMA) < (0, 33):
        pytest.skip(
            f"no Ollama of 0.33 or later in {installed.ROOT} (put it at ollama-VERSION/bin/ollama):"
            " what only such ones do is asked of tests/test_generations.py, which replays them"
        )
    url = fleets(NEWEST_OLLAMA).url_of("tiny-utf8")
    body = {"model": "tiny-utf8", "input": "hi", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8}
    assert ask(url, "POST", path, body).status == 200
