"""Runs the world of one seed and tells its story, or runs many worlds; from the root of a checkout."""

from __future__ import annotations

import argparse
import sys
from collections import Counter

from .audit import Broken
from .world import run_world


def main() -> int:
    """Run the worlds; return 1 when one broke."""
    parser = argparse.ArgumentParser(prog="python -m tests.scheduling.laboratory", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the world, or the first of many")
    parser.add_argument("--worlds", type=int, default=1, help="how many seeds to run, one after the other")
    options = parser.parse_args()
    total: Counter[str] = Counter()
    for seed in range(options.seed, options.seed + options.worlds):
        try:
            outcome = run_world(seed)
        except Broken as broken:
            print(broken)
            return 1
        total.update(outcome.answers)
        if options.worlds == 1:
            print("\n".join(outcome.story))
    print(f"{options.worlds} worlds hold: {dict(total)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
