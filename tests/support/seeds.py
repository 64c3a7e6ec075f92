"""What the long forms of seeded tests share: the options of their commands, and seeds spread over processes."""

import argparse
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")
LARGEST_SHARE = 20
SHARES = 32
"""Each process gets its seeds in this many shares or more, of at most this size: results come steadily, a finding ends
the run soon, and no process is busy long after the others."""


def make_parser(prog: str, description: str, *, seeds: int, first: int, traced: str) -> argparse.ArgumentParser:
    """With `--seeds` and `--first` (these defaults), `--jobs`, and `--trace`, which prints every `traced`."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("--seeds", type=positive, default=seeds, help=f"how many seeds (default {seeds})")
    parser.add_argument("--first", type=int, default=first, help=f"the first seed (default {first})")
    parser.add_argument("--jobs", type=positive, default=os.cpu_count() or 1, help="processes (default: all cores)")
    parser.add_argument("--trace", action="store_true", help=f"print every {traced}, in this process")
    return parser


def positive(text: str) -> int:
    """For `type` of an option."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not a positive number")
    return number


def spread(function: Callable[..., Result], arguments: Sequence[tuple[Any, ...]], processes: int) -> Iterator[Result]:
    """`function` of each tuple, in order; what it raises is raised here. Whoever stops early stops the rest.

    With one process it runs in this one.
    """
    processes = min(processes, len(arguments))
    if processes <= 1:
        yield from (function(*one) for one in arguments)
        return
    share = max(1, min(LARGEST_SHARE, len(arguments) // (processes * SHARES)))
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        try:
            yield from pool.map(function, *zip(*arguments, strict=True), chunksize=share)
        finally:
            pool.shutdown(cancel_futures=True)
