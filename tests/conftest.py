"""What all tests share: simulated engines and whole hubs, in threads of their own."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator

import pytest

from hive.testing import SimOptions, ThreadedEngine, run_in_thread
from hive.testing import hub as testing_hub
from hive.testing.hub import ThreadedHub, run_hub


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--link", choices=["dialed", "joined"], default="dialed", help="How hubs reach their nodes.")


def pytest_configure(config: pytest.Config) -> None:
    testing_hub.usual_link = config.getoption("--link")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let every skip stand at the same place, so that the summary has one line for each reason."""
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple):
        report.longrepr = (str(item.config.rootpath / "tests"), None, report.longrepr[2])
    return report


@pytest.fixture(autouse=True)
def own_log_handlers() -> Iterator[None]:
    """A hub that a test starts in this process sets the log up for itself: not for the tests after it."""
    root = logging.getLogger()
    level = root.level
    yield
    root.setLevel(level)
    for handler in root.handlers[:]:
        if type(handler) is logging.StreamHandler:
            root.removeHandler(handler)


@pytest.fixture(scope="session")
def shared_engine() -> Iterator[ThreadedEngine]:
    """A simulated Ollama with many slots that many tests use: set no fault on it."""
    with run_in_thread(SimOptions(models=("tiny", "other"), slots=64)) as engine:
        yield engine


@pytest.fixture(scope="session")
def shared_hub(shared_engine: ThreadedEngine) -> Iterator[ThreadedHub]:
    """A hub with default settings over the shared engine: for tests that leave no trace in it."""
    with run_hub({"a": shared_engine.url}, slots=64) as hub:
        yield hub


@pytest.fixture
def engine() -> Iterator[ThreadedEngine]:
    """A simulated Ollama of a test's own."""
    with run_in_thread(SimOptions(slots=8)) as engine:
        yield engine


@pytest.fixture
def second_engine() -> Iterator[ThreadedEngine]:
    """Another one."""
    with run_in_thread(SimOptions(slots=8)) as engine:
        yield engine
