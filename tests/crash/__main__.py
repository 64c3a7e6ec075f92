"""`python -m tests.crash`: every way to fail at every call of the disk, then thousands of kills. Exit 1: a finding."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from .kills import kill
from .processes import kill_processes
from .sweep import CASES, sweep


def main(arguments: list[str] | None = None) -> int:
    options = _parse(arguments)
    with tempfile.TemporaryDirectory(prefix="flockchain-crash-") as name:
        folder = Path(name)
        print(f"budget: about {_budget_s(options)} s of one core", flush=True)
        findings = _sweep(folder / "points", options) if options.points == "all" or options.only else 0
        if not options.only:
            findings += _kill(folder / "kills", options)
    return 1 if findings else 0


def _budget_s(options: argparse.Namespace) -> int:
    """From 50 ms a story, 25 and 40 ms a kill alone and among four, 1.5 s a real process."""
    return int(300 * len(CASES) * 0.05 + options.kills * 0.065 + options.processes * 1.5)


def _sweep(folder: Path, options: argparse.Namespace) -> int:
    begin, points, findings = time.monotonic(), 0, 0
    first, step = (options.only, 10**9) if options.only else (1, 1)
    for point in sweep(folder, first=first, step=step, cases=CASES):
        points += 1
        findings += bool(point.problem)
        if options.only:
            print(point)
        elif point.problem:
            print(f"{point}\nreplay: python -m tests.crash --only {point.at}", flush=True)
    print(f"points: {points} failures at every call, {findings} findings; {time.monotonic() - begin:.0f} s", flush=True)
    return findings


def _kill(folder: Path, options: argparse.Namespace) -> int:
    for validators in (1, 4):
        begin = time.monotonic()
        report = kill(folder, options.first, validators, options.kills)
        print(
            f"kills: {report.kills} of one among {validators}, {report.blocks} blocks, {report.signatures} signatures, "
            f"none twice; slowest start {report.slowest_start_s:.2f} s; {time.monotonic() - begin:.0f} s",
            flush=True,
        )
    if options.processes:
        begin = time.monotonic()
        print(kill_processes(folder / "processes", options.first, options.processes), end="; ")
        print(f"{time.monotonic() - begin:.0f} s")
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description="Crash one validator in every way.")
    parser.add_argument("--points", choices=("all", "none"), default="all", help="a failure at every call, or skip it")
    parser.add_argument("--only", type=int, default=0, help="every way to fail at this one call, and nothing else")
    parser.add_argument("--kills", type=int, default=1_000, help="seeded deaths in one process, alone and among four")
    parser.add_argument("--first", type=int, default=0, help="the first seed of the kills")
    parser.add_argument("--processes", type=int, default=0, help="real processes killed by -9, one after the other")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
