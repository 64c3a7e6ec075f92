"""`python -m tests.fuzz`: untrue handshakes, frames and messages. Exit 1 when one crashed something, or memory grew."""

import argparse
import gc
import logging
import sys
import tempfile
import time
import traceback
from pathlib import Path

import psutil
import structlog

from .targets import Fuzzer

MAX_GROWTH_BYTES = 32 * 2**20
"""Of resident memory over the second half: what is bounded is full by then, and allocators breathe."""
CHECKS = 20


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--frames", type=int, default=10_000, help="how many in all")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with tempfile.TemporaryDirectory(prefix="flockchain-fuzz-") as folder:
        return fuzz(Fuzzer(options.seed, Path(folder)), options.frames, options.seed)


def fuzz(fuzzer: Fuzzer, frames: int, seed: int) -> int:
    """Feed `frames`; 0 when everything held."""
    begun_s, middle_bytes = time.monotonic(), 0
    for number in range(frames):
        try:
            fuzzer.run_one()
            if (number + 1) % max(1, frames // CHECKS) == 0:
                fuzzer.check()
        except Exception:
            traceback.print_exc()
            print(f"FAILED at frame {number}: python -m tests.fuzz --seed {seed} --frames {number + 1}")
            return 1
        if number == frames // 2:
            middle_bytes = _resident_bytes()
    grown_bytes = _resident_bytes() - middle_bytes
    counts = ", ".join(f"{count} {name}" for name, count in fuzzer.counts.items())
    print(
        f"{frames} frames in {time.monotonic() - begun_s:.1f} s: {counts}; {fuzzer.refused} refused; height "
        f"{fuzzer.cluster.min_height()}; memory {grown_bytes / 2**20:+.1f} MiB over the second half"
    )
    if grown_bytes > MAX_GROWTH_BYTES:
        print(f"FAILED: memory grew by {grown_bytes} bytes, at most {MAX_GROWTH_BYTES} are expected")
        return 1
    return 0


def _resident_bytes() -> int:
    gc.collect()
    return int(psutil.Process().memory_info().rss)


if __name__ == "__main__":
    sys.exit(main())
