"""`python -m tests.simulator`: many seeds on all cores. Exit 1 with the command that replays a failing seed."""

import argparse
import sys
import time
from collections import Counter

from ..support.seeds import make_parser, spread
from .node.mutants import print_table
from .run import APPS, Finding, simulate, size_of, sizes_of

REPORT_S = 5


def main(arguments: list[str] | None = None) -> int:
    options = _parse(arguments)
    if options.mutants:
        return print_table(options.seeds, options.jobs)
    sizes = tuple(int(size) for size in options.n.split(",")) if options.n else sizes_of(options.app)
    jobs = [(seed, size_of(seed, sizes)) for seed in range(options.first, options.first + options.seeds)]
    if options.trace:
        return _trace(jobs, options.app)
    workers = min(options.jobs, len(jobs))
    print(f"{len(jobs)} seeds from {options.first}, n in {sizes}, app {options.app}, {workers} processes", flush=True)
    begin = time.monotonic()
    totals: Counter[str] = Counter()
    reported, done, highest_round = begin, 0, 0
    for result in spread(simulate, [(seed, n, options.app) for seed, n in jobs], workers):
        if isinstance(result, Finding):
            print(f"seed {result.seed}, n {result.n}: {result.what}\nreplay: {result.replay}", flush=True)
            return 1
        done += 1
        totals.update({" events": result.events, " crashes": result.crashes, " heights": result.heights})
        totals.update(result.counts)
        highest_round = max(highest_round, result.highest_round)
        if (now := time.monotonic()) - reported >= REPORT_S:
            reported = now
            left_s = (now - begin) / done * (len(jobs) - done)
            print(f"  {done}/{len(jobs)} seeds, {totals[' events']:,} events, about {left_s:.0f} s left", flush=True)
    seconds = time.monotonic() - begin
    _print_counts(totals)
    print(
        f"no finding: {done} seeds, {totals[' heights']:,} heights, {totals[' events']:,} events, "
        f"{totals[' crashes']:,} crashes, rounds up to {highest_round}; {seconds:.1f} s, "
        f"{totals[' events'] / seconds:,.0f} events/s"
    )
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = make_parser("python -m tests.simulator", "Simulate seeded networks.", seeds=300, first=0, traced="step")
    parser.add_argument("--n", default="", help="network sizes, one per seed in turn (default: those of the app)")
    parser.add_argument("--app", choices=APPS, default="toy", help="what is simulated (node: the real node)")
    parser.add_argument("--mutants", action="store_true", help="how many seeds each bug planted in the node survives")
    return parser.parse_args(arguments)


def _print_counts(totals: Counter[str]) -> None:
    """How often what happened, over all seeds."""
    for name, number in sorted(totals.items()):
        if not name.startswith((" ", "round ")):
            print(f"  {number:>9,}  {name}")


def _trace(jobs: list[tuple[int, int]], app: str) -> int:
    results = [simulate(seed, n, app, trace=print) for seed, n in jobs]
    for result in results:
        print(f"{result.what}\nreplay: {result.replay}" if isinstance(result, Finding) else result)
    return int(any(isinstance(result, Finding) for result in results))


if __name__ == "__main__":
    sys.exit(main())
