"""`python -m tests.simulator`: many seeds on all cores. Exit 1 with the command that replays a failing seed."""

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat

from .faults import SIZES
from .replica import HEIGHTS
from .run import APPS, Finding, simulate, size_of
from .world import Outcome

REPORT_S = 5


def main(arguments: list[str] | None = None) -> int:
    options = _parse(arguments)
    sizes = tuple(int(size) for size in options.n.split(","))
    jobs = [(seed, size_of(seed, sizes)) for seed in range(options.first, options.first + options.seeds)]
    if options.trace:
        return _trace(jobs, options.app)
    workers = min(options.jobs, len(jobs))
    extent = f"{len(jobs)} seeds from {options.first}, {HEIGHTS} heights each, n in {sizes}"
    print(f"{extent}, app {options.app}, {workers} processes", flush=True)
    begin = time.monotonic()
    events = crashes = highest_round = done = 0
    reported = begin
    for result in _results(jobs, workers, options.app):
        if isinstance(result, Finding):
            print(f"seed {result.seed}, n {result.n}: {result.what}\nreplay: {result.replay}", flush=True)
            return 1
        done += 1
        events += result.events
        crashes += result.crashes
        highest_round = max(highest_round, result.highest_round)
        if (now := time.monotonic()) - reported >= REPORT_S:
            reported = now
            left_s = (now - begin) / done * (len(jobs) - done)
            print(f"  {done}/{len(jobs)} seeds, {events:,} events, about {left_s:.0f} s left", flush=True)
    seconds = time.monotonic() - begin
    print(
        f"no finding: {done} seeds, {done * HEIGHTS:,} heights, {events:,} events, {crashes:,} crashes, "
        f"rounds up to {highest_round}; {seconds:.1f} s, {events / seconds:,.0f} events/s"
    )
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulator", description="Simulate seeded networks.")
    parser.add_argument("--seeds", type=_positive, default=300, help="how many seeds (default 300)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--n", default=",".join(map(str, SIZES)), help="network sizes, one per seed in turn")
    parser.add_argument("--app", choices=APPS, default="toy", help="what is decided about (chain: the real execution)")
    parser.add_argument("--jobs", type=_positive, default=os.cpu_count() or 1, help="processes (default: all cores)")
    parser.add_argument("--trace", action="store_true", help="print every step, in this process")
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not a positive number")
    return number


def _results(jobs: list[tuple[int, int]], workers: int, app: str) -> Iterator[Outcome | Finding]:
    if workers == 1:
        yield from (simulate(seed, n, app) for seed, n in jobs)
        return
    seeds, sizes = zip(*jobs, strict=True)
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        results = pool.map(simulate, seeds, sizes, repeat(app), chunksize=max(1, min(20, len(jobs) // workers)))
        try:
            yield from results
        finally:
            pool.shutdown(cancel_futures=True)


def _trace(jobs: list[tuple[int, int]], app: str) -> int:
    results = [simulate(seed, n, app, trace=print) for seed, n in jobs]
    for result in results:
        print(result if isinstance(result, Outcome) else f"{result.what}\nreplay: {result.replay}")
    return int(any(isinstance(result, Finding) for result in results))


if __name__ == "__main__":
    sys.exit(main())
