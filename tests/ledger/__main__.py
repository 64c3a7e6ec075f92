"""`python -m tests.ledger`: long histories on all cores. Exit 1 with the command that replays a failing seed."""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator

from ..support.seeds import make_parser, positive, spread
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
        for history in _play(options):
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
    parser = make_parser(
        "python -m tests.ledger", "Play seeded histories of the ledger.", seeds=20, first=1, traced="operation"
    )
    parser.add_argument("--blocks", type=positive, default=500, help="blocks of each history (default 500)")
    parser.add_argument("--ops", type=positive, default=200, help="operations of most blocks (default 200)")
    parser.add_argument("--write-golden", action="store_true", help="record the golden histories anew, and stop")
    return parser.parse_args(arguments)


def _play(options: argparse.Namespace) -> Iterator[History]:
    seeds = range(options.first, options.first + options.seeds)
    if options.trace:
        return (play(seed, options.blocks, options.ops, trace=print) for seed in seeds)
    return spread(play, [(seed, options.blocks, options.ops) for seed in seeds], options.jobs)


if __name__ == "__main__":
    sys.exit(main())
