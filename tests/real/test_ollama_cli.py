"""The newest Ollama command line, with a hub where it expects an Ollama: local, and with a key in the path."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pytest

from .. import refusals
from . import installed
from .hub import IS_DIRECT, Direct, Hub, wait_for
from .installed import EACH_LLAMA, NEWEST_OLLAMA, Fleet
from .terminal import Terminal, without_escapes
from .wire import ask

pytestmark = pytest.mark.engines

SCRIPTED = "Grüße aus Köln — 世界 🌍 ok."
"""What tiny-utf8 says, whatever it is asked."""


@dataclass(frozen=True)
class Cli:
    """The command line, pointed at a server."""

    host: str
    home: pathlib.Path

    @property
    def env(self) -> Mapping[str, str]:
        return {**installed.CLI_LIBRARIES, "PATH": os.environ["PATH"], "HOME": str(self.home), "OLLAMA_HOST": self.host}

    def __call__(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        given = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
        return subprocess.run(
            [str(installed.OLLAMA_CLI), *arguments],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            **given,  # type: ignore[arg-type]
        )


@pytest.fixture(scope="session")
def keyed_hub(fleets: Callable[[str], Fleet], hub_over: Callable[..., Hub | Direct]) -> tuple[Hub, str]:
    """A hub that demands keys even of its own machine, and a client key."""
    hub = hub_over(fleets(NEWEST_OLLAMA), HIVE_LOCAL_ACCESS="off")
    if isinstance(hub, Direct):
        pytest.skip("an Ollama knows no keys")
    return hub, hub.create_key("cli")


@pytest.fixture(params=["local", "key in the path"])
def ollama(
    request: pytest.FixtureRequest,
    fleets: Callable[[str], Fleet],
    hub_over: Callable[..., Hub | Direct],
    tmp_path: pathlib.Path,
) -> Cli:
    if request.param == "local":
        return Cli(hub_over(fleets(NEWEST_OLLAMA)).url, tmp_path)
    hub, key = request.getfixturevalue("keyed_hub")
    return Cli(f"{hub.url}/k/{key}", tmp_path)


@pytest.fixture
def engine(fleets: Callable[[str], Fleet], tmp_path: pathlib.Path) -> Cli:
    """The command line pointed at the engine itself: what it shows there, it is to show with the hub."""
    return Cli(fleets(NEWEST_OLLAMA).url_of("tiny-babble"), tmp_path)


def screen(done: subprocess.CompletedProcess[str]) -> tuple[int, str, str]:
    """Return what a command left on the screen: its code, its text, and the words of its error, if any."""
    _, is_error, words = without_escapes(done.stderr).rpartition("Error: ")
    return done.returncode, done.stdout, words if is_error else ""  # else a spinner may be left there


def test_version(ollama: Cli, engine: Cli) -> None:
    done = ollama("--version")
    assert done.returncode == 0
    if IS_DIRECT:
        assert screen(done) == screen(engine("--version"))
    else:
        assert "ollama version is 0.33" in done.stdout + done.stderr
    assert "could not connect" not in done.stdout + done.stderr


def test_list(ollama: Cli, fleets: Callable[[str], Fleet]) -> None:
    done = ollama("list")
    assert (done.returncode, done.stderr) == (0, "")
    direct = ask(fleets(NEWEST_OLLAMA).url_of("tiny-babble"), "GET", "/api/tags").json()["models"]
    rows = {line.split()[0]: line.split()[1] for line in done.stdout.splitlines()[1:]}
    assert rows == {model["name"]: model["digest"][:12] for model in direct}


def test_list_with_a_prefix(ollama: Cli) -> None:
    done = ollama("list", "tiny-e")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == ["tiny-embed:latest"]


def test_show(ollama: Cli, engine: Cli) -> None:
    done = ollama("show", "tiny-tool")
    assert screen(done) == screen(engine("show", "tiny-tool"))
    assert (done.returncode, done.stderr) == (0, "")
    for word in ("architecture", "Capabilities", "tools", "num_thread"):
        assert word in done.stdout


def test_show_of_an_unknown_model(ollama: Cli) -> None:
    done = ollama("show", "nope")
    assert done.returncode == 1
    words = refusals.unknown_model("/api/show", "nope")[2]
    assert IS_DIRECT or done.stderr == f"Error: {json.loads(words)['error']}\n"


def test_run_with_a_text(ollama: Cli, engine: Cli) -> None:
    done = ollama("run", "tiny-utf8", "hello there")
    assert screen(done) == screen(engine("run", "tiny-utf8", "hello there"))
    assert (done.returncode, done.stdout.strip()[-len(SCRIPTED) :]) == (0, SCRIPTED)  # 0.9.3 prints a torn word twice


def test_run_from_a_pipe(ollama: Cli, engine: Cli) -> None:
    done = ollama("run", "tiny-utf8", stdin="hello there\n")
    assert screen(done) == screen(engine("run", "tiny-utf8", stdin="hello there\n"))
    assert (done.returncode, done.stdout.strip()[-len(SCRIPTED) :]) == (0, SCRIPTED)


def test_run_shows_thinking(ollama: Cli, engine: Cli) -> None:
    done = ollama("run", "tiny-think", "hello there")
    assert screen(done) == screen(engine("run", "tiny-think", "hello there"))
    assert done.returncode == 0
    for part in ("Thinking...", "The user greets me.", "...done thinking.", "Hello, world!"):
        assert part in done.stdout


def test_run_of_an_embedding_model(ollama: Cli, engine: Cli) -> None:
    """A newer one prints the vector, an older one an error."""
    done = ollama("run", "tiny-embed", "hello world")
    assert screen(done) == screen(engine("run", "tiny-embed", "hello world"))
    assert done.stdout.count(",") == 63 or "does not support generate" in done.stderr


def test_interactive_chat(ollama: Cli) -> None:
    with Terminal([str(installed.OLLAMA_CLI), "run", "tiny-utf8"], ollama.env) as terminal:
        terminal.read_until("Send a message")
        terminal.type("hello")
        terminal.read_until(SCRIPTED)
        terminal.type("and again")
        terminal.read_until(SCRIPTED, count=2)
        terminal.type("/bye")
        assert terminal.exit_code() == 0
        assert "Error" not in terminal.text


def test_ps_and_stop(ollama: Cli) -> None:
    def loaded() -> list[str]:
        done = ollama("ps")
        assert (done.returncode, done.stderr) == (0, "")
        return [line.split()[0] for line in done.stdout.splitlines()[1:]]

    assert ollama("run", "tiny-babble", "hello").returncode == 0
    wait_for(lambda: "tiny-babble:latest" in loaded(), what="ollama ps to list the model", timeout=5)
    assert ollama("stop", "tiny-babble").returncode == 0
    wait_for(lambda: "tiny-babble:latest" not in loaded(), what="ollama ps to drop the model", timeout=5)


def test_stop_of_an_unknown_model(ollama: Cli) -> None:
    done = ollama("stop", "nope")
    assert done.returncode == 1
    assert 'couldn\'t find model "nope" to stop' in done.stderr


def test_run_of_an_unknown_model_ends_with_an_error(ollama: Cli) -> None:
    done = ollama("run", "nope", "hello")
    if "signed in" in done.stdout:
        return  # how this client words any 401: its pull carried no key, and pulling needs the right to manage
    assert done.returncode != 0, done
    assert done.stderr.rpartition("Error: ")[2].strip() != ""
    assert done.stdout == ""


def test_without_a_key_the_command_line_is_refused(keyed_hub: tuple[Hub, str], tmp_path: pathlib.Path) -> None:
    hub, _ = keyed_hub
    done = Cli(hub.url, tmp_path)("list")
    assert done.returncode == 1
    assert done.stdout == ""


def test_the_key_in_the_path_stands_in_no_log(keyed_hub: tuple[Hub, str], tmp_path: pathlib.Path) -> None:
    hub, key = keyed_hub
    assert Cli(f"{hub.url}/k/{key}", tmp_path)("run", "tiny-utf8", "hello").returncode == 0
    assert key not in hub.log()


@pytest.mark.parametrize("kind", EACH_LLAMA)
def test_list_over_llama_cpp(
    kind: str, fleets: Callable[[str], Fleet], hub_over: Callable[..., Hub | Direct], tmp_path: pathlib.Path
) -> None:
    hub = hub_over(fleets(kind))
    if isinstance(hub, Direct):
        pytest.skip("llama.cpp does not speak Ollama's API")
    done = Cli(hub.url, tmp_path)("list")
    assert (done.returncode, done.stderr) == (0, "")
    names = {line.split()[0].removesuffix(":latest") for line in done.stdout.splitlines()[1:]}
    assert names >= set(installed.ALL_MODELS)
