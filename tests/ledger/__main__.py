"""`python -m tests.ledger`: long histories on all cores. Exit 1 with the command that replays a failing seed."""

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed

from .golden import write_golden
from .run import Finding, History, play


def main(arguments: list[str] | None = None) -> int:
    options = _parse(arguments)
    if options.write_golden:
        write_golden()
        return 0
    print(
        f"{options.seeds} seeds from {options.first}, {options.blocks} blocks of {options.ops} operations", flush=True
    )
    begin, counts = time.monotonic(), Counter[tuple[str, str]]()
    try:
        for history in _trace(options) if options.trace else _play_all(options):
            counts += history.counts
            print(f"  seed {history.seed}: state root {history.state_root.hex()}", flush=True)
    except Finding as finding:
        print(finding, flush=True)
        return 1
    print_counts(counts)
    print(f"no finding: {counts.total():,} transactions, {time.monotonic() - begin:.0f} s")
    return 0


def print_counts(counts: Counter[tuple[str, str]]) -> None:
    """Of each kind: how often it succeeded, and how often each refusal occurred."""
    for kind in sorted({kind for kind, _ in counts}):
        refused = sorted((code, count) for (name, code), count in counts.items() if name == kind and code != "ok")
        print(f"{kind}: {counts[kind, 'ok']:,} ok; " + ", ".join(f"{code} {count:,}" for code, count in refused))


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.ledger", description="Play seeded histories of the ledger.")
    parser.add_argument("--seeds", type=_positive, default=20, help="how many seeds (default 20)")
    parser.add_argument("--first", type=int, default=1, help="the first seed (default 1)")
    parser.add_argument("--blocks", type=_positive, default=500, help="blocks of each history (default 500)")
    parser.add_argument("--ops", type=_positive, default=200, help="operations of most blocks (default 200)")
    parser.add_argument("--jobs", type=_positive, default=os.cpu_count() or 1, help="processes (default: all cores)")
    parser.add_argument("--trace", action="store_true", help="print every operation, in this process")
    parser.add_argument("--write-golden", action="store_true", help="record the golden histories anew, and stop")
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not a positive number")
    return number


def _trace(options: argparse.Namespace) -> Iterator[History]:
    for seed in range(options.first, options.first + options.seeds):
        yield play(seed, options.blocks, options.ops, trace=print)


def _play_all(options: argparse.Namespace) -> Iterator[History]:
    seeds = range(options.first, options.first + options.seeds)
    with ProcessPoolExecutor(min(options.jobs, len(seeds)), multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(play, seed, options.blocks, options.ops) for seed in seeds]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


if __name__ == "__main__":
    sys.exit(main())
