"""Measures the policies side by side in simulation, for the table and the plot of docs/scheduling.md. Needs no engine.

Run it from the root of a checkout:

python -m tests.scheduling.laboratory.table                                  prints the table
python -m tests.scheduling.laboratory.table --write docs/scheduling.md       writes table and plot anew
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from .compare import Figures, measure

POLICIES = ("best", "least_busy", "round_robin", "random")
LOADS = (0.3, 0.5, 0.65, 0.8, 0.9)
SEEDS = (1, 2, 3, 4)
BEGIN = "<!-- policies: python -m tests.scheduling.laboratory.table --write docs/scheduling.md writes the table -->"
END = "<!-- end of policies -->"
COLOURS = {"best": "#1b7f5a", "least_busy": "#3b6fb5", "round_robin": "#c2571a", "random": "#8a8a8a"}
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 640, 360, 60, 24, 110, 44


@dataclass(frozen=True, slots=True)
class Row:
    """One policy at one load: means over the seeds."""

    load: float
    policy: str
    p50: float
    p95: float
    loads: float
    refused: int


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, metavar="FILE", help="the page whose table to refresh")
    options = parser.parse_args()
    rows = run()
    table = "\n".join(as_table(rows))
    print(table)
    if options.write:
        page = options.write.read_text(encoding="utf-8")
        before, rest = page.split(BEGIN)
        after = rest.split(END)[1]
        options.write.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}", encoding="utf-8")
        options.write.with_suffix(".svg").write_text(as_plot(rows), encoding="utf-8")


def run() -> list[Row]:
    """Return the rows, the smallest load first."""
    jobs = [(policy, load, seed) for load in LOADS for policy in POLICIES for seed in SEEDS]
    with ProcessPoolExecutor(max(1, (os.cpu_count() or 2) - 1)) as pool:
        figures = list(pool.map(_measure, jobs))
    return [
        _row([each for each in figures if (each.policy, each.load) == (policy, load)])
        for load in LOADS
        for policy in POLICIES
    ]


def _measure(job: tuple[str, float, int]) -> Figures:
    return measure(*job)


def _row(figures: list[Figures]) -> Row:
    return Row(
        figures[0].load,
        figures[0].policy,
        mean(each.p50 for each in figures),
        mean(each.p95 for each in figures),
        mean(each.loads for each in figures),
        sum(each.refused for each in figures),
    )


def as_table(rows: list[Row]) -> list[str]:
    """Return the lines of the table."""
    lines = ["| load | policy | p50 | p95 | p95, times best | loads |", "| --: | --- | --: | --: | --: | --: |"]
    for row in rows:
        best = next(each for each in rows if each.load == row.load and each.policy == "best")
        times = f"{row.p95 / best.p95:.1f}"
        name = f"**`{row.policy}`**" if row.policy == "best" else f"`{row.policy}`"
        lines.append(f"| {row.load:.0%} | {name} | {row.p50:.1f} s | {row.p95:.1f} s | {times} | {row.loads:.0f} |")
    if any(row.refused for row in rows):
        lines += ["", f"Refused: {sum(row.refused for row in rows)} requests in all."]
    return lines


def as_plot(rows: list[Row]) -> str:
    """Return the 95th percentile by load, as SVG."""
    top = max(row.p95 for row in rows) * 1.05

    def x(load: float) -> float:
        return LEFT + (load - LOADS[0]) / (LOADS[-1] - LOADS[0]) * (WIDTH - LEFT - RIGHT)

    def y(seconds: float) -> float:
        return HEIGHT - BOTTOM - seconds / top * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="15" fill="#333">Time to the first byte, 95th percentile, seconds</text>',
    ]
    for seconds in range(0, int(top) + 1, 10):
        parts.append(f'<path d="M{LEFT} {y(seconds):.1f}H{WIDTH - RIGHT}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(seconds) + 4:.1f}" text-anchor="end" fill="#555">{seconds}</text>')
    for load in LOADS:
        parts.append(
            f'<text x="{x(load):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle" fill="#555">{load:.0%}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle" fill="#333">load</text>')
    ends = sorted((row for row in rows if row.load == LOADS[-1]), key=lambda row: -row.p95)
    label_y = 0.0
    for row in ends:
        label_y = max(label_y + 14, y(row.p95) + 4)
        colour = COLOURS[row.policy]
        parts.append(f'<text x="{WIDTH - RIGHT + 8}" y="{label_y:.1f}" fill="{colour}">{row.policy}</text>')
    for policy in POLICIES:
        points = " ".join(f"{x(row.load):.1f},{y(row.p95):.1f}" for row in rows if row.policy == policy)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{COLOURS[policy]}" stroke-width="2.5"/>')
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    main()
