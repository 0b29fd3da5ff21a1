"""The documentation says what the code has: each table is compared with what it repeats, each link leads somewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path

import httpx
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from hive import errors
from hive.cli import main
from hive.config import NODE_OPTIONS, OPTIONS, Option, Settings
from hive.dialects.routes import Answered
from hive.hub.events import DETAILS
from hive.hub.records import Outcome, Record
from hive.node.agent import ExitCode
from hive.node.allowed_routes import ROUTES
from hive.sim.faults import FAULTS, Argument
from hive.sources import load_settings
from hive.surfaces.main.main_routes import MAIN_ROUTES
from hive.surfaces.management.management_routes import MANAGEMENT_ROUTES, PREFIX
from hive.testing import SimOptions, run_in_thread
from hive.testing.agent_double import run_agent
from hive.testing.hub import ThreadedHub, run_hub

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


@pytest.fixture(scope="module")
def hub() -> Iterator[ThreadedHub]:
    """A hub over one engine that has served one request, and one node that joined."""
    with (
        run_in_thread(SimOptions(models=("llama3.2",), slots=8)) as engine,
        run_hub({"desk": engine.url}) as hub,
        run_agent(hub.url, hub.create_key("far", "worker"), {"ollama": engine.url}),
    ):
        hub.until(lambda server: "far" in server.hub.joining.nodes)
        body = {"model": "llama3.2", "prompt": "a", "options": {"num_predict": 1}}
        httpx.post(f"{hub.url}/api/generate", json=body).raise_for_status()
        yield hub


class Table(list[tuple[str, ...]]):
    """The rows of all tables of one page that have the same head."""

    def firsts(self) -> list[str]:
        return [row[0] for row in self]


def table(page: str, head: str) -> Table:
    """Return the rows below every `| head | ...` of a page, their cells without the marks of code."""
    rows = Table()
    is_inside = False
    for line in (ROOT / page).read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").replace("\\|", "\0").split("|")]
        if not line.startswith("|"):
            is_inside = False
        elif is_inside and not set(line) <= set("|-: "):
            rows.append(tuple(cell.replace("\0", "|").replace("`", "") for cell in cells))
        elif cells[0] == head:
            is_inside = True
    assert rows, f"{page} has no table whose first column is {head!r}"
    return rows


def compare(page: str, found: Iterable[tuple[str, ...]], wanted: Iterable[tuple[str, ...]]) -> None:
    """Fail with the rows that are missing from a page, and those that have no business there."""
    found, wanted = list(found), list(wanted)
    missing = [" | ".join(row) for row in wanted if row not in found]
    surplus = [" | ".join(row) for row in found if row not in wanted]
    assert not missing, f"{page} lacks: " + "\n".join(missing)
    assert not surplus, f"{page} has, and the code has not: " + "\n".join(surplus)
    assert len(found) == len(wanted), f"{page} says something twice"


# --- settings ---


def settings_row(option: Option) -> tuple[str, ...]:
    flag = "-" if option.is_secret else f"{option.flag}, --no-{option.name}" if option.is_switch else option.flag
    default = option.default.value if isinstance(option.default, Enum) else option.default
    shown = IN_WORDS.get(option.name, f"{default}")
    return option.name, flag, option.variable, shown, option.help


IN_WORDS = {
    "data_dir": "~/.local/share/hive",
    "nodes": "none",
    "slots": "by kind",
    "open": "no",
    "local_access": "infer or off",
    "trusted_proxies": "none",
    "origins": "none",
    "admin_key": "made at the first start",
    "admin_key_file": "none",
    "tls_cert": "none",
    "tls_key": "none",
}
"""Defaults that are worked out at the start, or are nothing."""


def test_every_setting_is_documented_as_declared() -> None:
    found = table("docs/settings.md", "option")
    compare("docs/settings.md", found, [settings_row(option) for option in OPTIONS.values()])


def test_only_settings_without_a_fixed_default_have_one_in_words() -> None:
    worked_out = [one.name for one in OPTIONS.values() if one.default in (None, ()) or one.default is False]
    assert list(IN_WORDS) == worked_out


def test_every_setting_of_a_node_is_documented() -> None:
    assert table("docs/settings.md", "key of a node").firsts() == list(NODE_OPTIONS)


# --- errors ---


def error_rows() -> Iterator[tuple[str, ...]]:
    for kind in vars(errors).values():
        if isinstance(kind, errors.Kind):
            yes_no = tuple("yes" if flag else "no" for flag in (not kind.retry, kind.another_node))
            yield kind.code, str(kind.status), kind.family.value, *yes_no


def test_every_error_is_documented_with_status_and_whose_turn_it_is() -> None:
    compare("docs/errors.md", [row[:5] for row in table("docs/errors.md", "code")], error_rows())


# --- routes ---


def route_rows() -> Iterator[tuple[str, ...]]:
    for one in (*MAIN_ROUTES.routes, *MANAGEMENT_ROUTES.routes):
        if not one.path.startswith(PREFIX):
            method = f"{one.method}, HEAD" if one.takes_head else one.method
            slot = "yes" if one.task is not None and one.task.takes_slot else "no"
            yield method, one.path, one.name, one.right.value, ANSWERED[one.answered], slot


ANSWERED = {
    Answered.ENGINE: "an engine",
    Answered.SURFACE: "the hub",
    Answered.LATER: "later",
    Answered.LINK: "a link",
    Answered.UPGRADE: "426",
}


def test_every_route_is_documented_with_its_right() -> None:
    found = [
        (method, re.sub(r"\{.*\}", "", path), *rest[:4])
        for method, path, *rest in table("docs/api.md", "method")
        if not path.startswith(PREFIX)
    ]
    compare("docs/api.md", found, route_rows())


def test_every_route_of_the_management_api_is_documented(hub: ThreadedHub) -> None:
    path = "/hive/v1/openapi.json"
    answer = httpx.get(f"{hub.url}{path}", headers={"Authorization": f"Bearer {hub.admin_key}"})
    wanted = [(method.upper(), path) for path, methods in answer.json()["paths"].items() for method in methods]
    found = [row[:2] for row in table("docs/api.md", "management method")]
    compare("docs/api.md", found, [*wanted, ("GET", path)])


def test_every_route_of_the_management_api_has_its_right_in_the_table_of_routes() -> None:
    declared = [
        (one.method, one.path, one.right.value)
        for one in MANAGEMENT_ROUTES.routes
        if one.path.startswith(PREFIX) and one.path != f"{PREFIX}/"
    ]
    compare("docs/api.md", [row[:3] for row in table("docs/api.md", "management method")], declared)


def event_rows() -> Iterator[tuple[str, ...]]:
    for kind, details in DETAILS.items():
        names = ", ".join(field.name for field in msgspec.structs.fields(details))
        yield kind.value, "[the line in the log](metrics.md#the-log-line)" if details is Record else names


def test_every_event_is_documented_with_its_details() -> None:
    compare("docs/api.md", [(row[0], row[2]) for row in table("docs/api.md", "event")], event_rows())


# --- metrics and the log ---


def metric_rows(text: str) -> Iterator[tuple[str, ...]]:
    for family in text_string_to_metric_families(text):
        labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
        name = f"{family.name}_total" if family.type == "counter" else family.name
        yield name, family.type, ", ".join(labels) or "-", family.documentation


def test_every_metric_is_documented_with_its_labels(hub: ThreadedHub) -> None:
    answer = httpx.get(f"{hub.url}/metrics", headers={"Authorization": f"Bearer {hub.admin_key}"})
    compare("docs/metrics.md", [row[:4] for row in table("docs/metrics.md", "metric")], metric_rows(answer.text))


def test_every_field_of_the_log_line_is_documented() -> None:
    assert sorted(table("docs/metrics.md", "field").firsts()) == sorted(msgspec.structs.asdict(Record("", "")))


def test_every_outcome_is_documented() -> None:
    assert table("docs/metrics.md", "outcome").firsts() == [outcome.value for outcome in Outcome]


# --- scheduling ---


def reasons() -> list[str]:
    """Return the texts in the code of the scheduler that say why an engine was chosen, or is to load a model."""
    pattern = re.compile(r'(?:Choice\(Action\.SERVE, [^"\n]*|_load\(place, |reason = |ONLY_\w+ = |"\w+": )"([^"]+)"')
    sources = [ROOT / "src" / "hive" / "scheduling" / f"{name}.py" for name in ("best", "policies", "dispatcher")]
    return [text for source in sources for text in pattern.findall(source.read_text(encoding="utf-8"))]


def test_every_reason_of_a_choice_is_documented() -> None:
    rows = [row[0] for head in ("why", "reason") for row in table("docs/scheduling.md", head)]
    documented = [text for row in rows for text in (row, *row.split(", "))]
    assert len(set(reasons())) > 12
    assert [text for text in reasons() if text not in documented] == []


# --- the simulator ---


def fault_rows() -> Iterator[tuple[str, ...]]:
    for kind, row in FAULTS.items():
        argument = "-" if row.argument is Argument.NONE else row.argument.value
        yield kind.value, argument, row.effect, row.reach.value


def test_every_fault_is_documented() -> None:
    compare("docs/simulator.md", table("docs/simulator.md", "fault"), fault_rows())


def test_every_flag_of_the_simulator_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    main(["sim", "--help"])
    flags = re.findall(r"^ +(--[a-z-]+)", capsys.readouterr().out, re.MULTILINE)
    assert sorted(table("docs/simulator.md", "flag").firsts()) == sorted(set(flags) - {"--help"})


# --- the node ---


def test_every_flag_of_the_node_is_documented_with_its_variable(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["node", "--help"])
    unwrapped = re.sub(r"\n {10,}", " ", capsys.readouterr().out)
    found = re.findall(r"^ +(--[a-z-]+) .*?(HIVE_[A-Z_]+)", unwrapped, re.MULTILINE)
    compare("docs/node.md", [row[:2] for row in table("docs/node.md", "flag")], found)


def test_every_exit_code_of_the_node_is_documented() -> None:
    wanted = {str(code.value) for code in ExitCode} | {"2"}
    assert set(table("docs/node.md", "exit code").firsts()) == wanted


def test_every_route_that_a_node_passes_on_is_documented() -> None:
    page = (ROOT / "docs" / "node.md").read_text(encoding="utf-8")
    assert not [path for _, path in ROUTES if f"`{path}`" not in page]


# --- the command line ---


def commands_of(capsys: pytest.CaptureFixture[str], *group: str) -> list[str]:
    main([*group, "--help"])
    _, _, listed = capsys.readouterr().out.partition("Commands:\n")
    return re.findall(r"^  ([a-z]+)  ", listed, re.MULTILINE)


def test_every_command_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    wanted: list[tuple[str, ...]] = []
    for command in commands_of(capsys):
        inner = commands_of(capsys, command) if command == "keys" else []
        wanted += [(f"hive {command} {name}",) for name in inner] or [(f"hive {command}",)]
    compare("README.md", [row[:1] for row in table("README.md", "command")], wanted)


# --- links, targets and examples ---


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link} leads nowhere"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link} names no heading"


def test_the_targets_of_make_that_are_documented_are_those_that_exist() -> None:
    rows = table("CONTRIBUTING.md", "target").firsts()
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert phony is not None
    named = {row.removeprefix("make").strip() for row in rows}
    assert named == {"" if target == "all" else target for target in phony[1].split()} - {"venv"}


def blocks(mark: str) -> list[tuple[str, str]]:
    """Return the blocks of all pages below `<!-- test: mark -->`, and where they stand."""
    pattern = re.compile(rf"<!-- test: {mark} -->\n+```[a-z]+\n(.*?)\n```", re.DOTALL)
    return [(page.name, found[1]) for page in PAGES for found in pattern.finditer(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize(("page", "block"), blocks("loads"))
def test_examples_of_the_settings_load(page: str, block: str, tmp_path: Path) -> None:
    file = tmp_path / "hive.toml"
    file.write_text(block, encoding="utf-8")
    assert load_settings(config=file, environ={}) != Settings(), page


def test_there_are_examples_to_try() -> None:
    assert {page for page, _ in blocks("loads")} >= {"README.md", "settings.md"}
    assert {page for page, _ in blocks("runs")} >= {"README.md", "simulator.md"}


@pytest.mark.parametrize(("page", "block"), blocks("runs"))
def test_console_blocks_run(page: str, block: str, hub: ThreadedHub, tmp_path: Path) -> None:
    """Every line that begins with `$` ends with exit code 0; the hub of the examples is a hub of this test's."""
    lines = [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]
    assert lines, f"{page}: the block has no line that begins with $"
    if any(line.startswith("curl ") for line in lines) and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    script = "\n".join(lines).replace("http://127.0.0.1:4483", hub.url).replace("hk_...", hub.admin_key)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HIVE_")}
    environment |= {
        "HIVE_HUB": hub.url,
        "HIVE_API_KEY": hub.admin_key,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}",
    }
    script = script.replace("curl ", "curl --fail --silent --show-error ")
    done = subprocess.run(
        ["sh", "-e", "-c", script], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0, f"{page}: {script}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("block", [block for page, block in blocks("asserts") if page == "simulator.md"])
def test_examples_in_python_hold(block: str) -> None:
    scope: dict[str, object] = {}
    exec(compile(block, "docs/simulator.md", "exec"), scope)
    tests = [value for name, value in scope.items() if name.startswith("test_")]
    assert tests
    for one in tests:
        assert callable(one)
        one()
