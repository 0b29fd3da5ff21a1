"""`make bench`: the hub beside HAProxy and nginx on this machine, as a table. See docs/performance.md."""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import machine
import report
import report_joined
import scenarios
from native import Lab, compile_programs
from processes import BenchError, allow_many_files
from proxies import STARTS, STARTS_BEFORE, missing


def main() -> int:
    """Measure, print and write; return 1 when an answer was lost or refused."""
    options = _options()
    try:
        return _bench(options)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few and short rounds, for a rough look")
    parser.add_argument("--only", default=",".join(STARTS), metavar="NAMES", help="which proxies")
    parser.add_argument("--before", metavar="REVISION", help="measure the hub of this commit beside the one of today")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds of each scenario")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample to FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table into FILE")
    return parser.parse_args()


def _bench(options: argparse.Namespace) -> int:
    plan = scenarios.QUICK if options.quick else scenarios.FULL
    if options.rounds:
        plan = dataclasses.replace(plan, rounds=options.rounds, stream_rounds=options.rounds)
    if options.markdown:
        report.check_markers(options.markdown)
    proxies = _installed(options.only.split(","))
    if options.before:
        proxies += [name for name, like in zip(STARTS_BEFORE, ("hive", "hive-joined"), strict=True) if like in proxies]
    proxy_core, load_core = machine.choose_cores()
    allow_many_files()
    described, started = machine.describe(proxies), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hive-bench-") as directory:
        before = _sources_of(options.before, Path(directory)) if options.before else None
        lab = Lab(Path(directory), proxy_core, load_core, *compile_programs(Path(directory)), before)
        results = scenarios.run(lab, proxies, plan, _say)
    both, note = (report.table(results, proxies), report_joined.table(results)), report.footnote(results)
    tables = [lines for lines in both if lines[1:]]
    print("\n\n".join([described, *map(report.as_text, tables), note]))
    print(f"Took {time.monotonic() - started:.0f} s.")
    if options.markdown:
        report.write_markdown(options.markdown, "\n\n".join([described, *map(report.as_markdown, tables), note]))
    if options.json:
        report.write_json(options.json, described, results)
    for trouble in results.troubles:
        print(f"LOST OR REFUSED: {trouble}", file=sys.stderr)
    return 1 if results.troubles else 0


def _sources_of(revision: str, directory: Path) -> Path:
    """Return the sources of a commit of this checkout, unpacked into a directory."""
    checkout = Path(__file__).resolve().parents[1]
    archive = directory / "before.zip"
    command = ["git", "archive", "--format=zip", f"--output={archive}", revision, "src"]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True)
    if done.returncode:
        raise BenchError(f"--before: {done.stderr.strip()}")
    shutil.unpack_archive(archive, directory / "before")
    return directory / "before" / "src"


def _say(text: str) -> None:
    print(f"... {text}", file=sys.stderr, flush=True)


def _installed(asked: Sequence[str]) -> list[str]:
    """Return the proxies that can be measured here. Print what is missing for the others."""
    for proxy in asked:
        if proxy not in STARTS:
            raise BenchError(f"--only: expected some of {', '.join(STARTS)}, got {proxy!r}.")
    sentences = {proxy: missing(proxy) for proxy in asked}
    for sentence in filter(None, sentences.values()):
        print(sentence, file=sys.stderr)
    if not (found := [proxy for proxy in asked if sentences[proxy] is None]):
        raise BenchError("There is nothing to measure.")
    return found


if __name__ == "__main__":
    sys.exit(main())
