"""`python -m tests.long_forms`, which `make sim` runs: proofs too long for `make test`, with their budget.

Each part is a command of its own, with the time it may take on 2 cores; together two hours. Parts that fill both cores
run one after another, then those of one core two at a time. A part that fails, or outlasts its time, does not hold up
the others. Exit 1 when any did.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

TAIL_LINES = 12
"""Of a failed part's output, printed with it; the rest is in its file."""
STOP_S = 10


@dataclass(frozen=True)
class Part:
    """One long form: arguments of `python -m`, and the minutes it may take."""

    name: str
    arguments: tuple[str, ...]
    budget_min: int
    cores: int = 2
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ran:
    """How one part ended."""

    name: str
    seconds: float
    exit_code: int
    """124 for one that was stopped at its limit."""
    last_line: str
    output: str
    """The file of what it printed."""


def _simulate(*arguments: str) -> tuple[str, ...]:
    return ("tests.simulator", *arguments)


PARTS = (
    Part("core", _simulate("--seeds", "10000"), 8),
    # The node simulator below runs the same execution, and the store and log beside it: a tenth of the seeds is enough.
    Part("core-execution", _simulate("--seeds", "1000", "--app", "chain"), 4),
    Part("node", _simulate("--seeds", "10000", "--app", "node"), 18),
    Part("node-7", _simulate("--seeds", "1000", "--app", "node", "--n", "7"), 4),
    Part("control", _simulate("--seeds", "1000", "--app", "split"), 2),
    Part("ledger", ("tests.ledger", "--blocks", "500", "--ops", "200", "--seeds", "20"), 35),
    Part("scenarios", ("tests.scenarios", "--seeds", "20"), 28),
    Part("crash", ("tests.crash", "--processes", "50"), 10, cores=1),
    Part("fuzz", ("tests.fuzz", "--frames", "1000000"), 10, cores=1),
    Part("mutants", _simulate("--mutants", "--seeds", "1000"), 8, cores=1),
    Part("openapi", ("pytest", "tests/api/test_openapi_fuzz.py"), 4, 1, {"FLOCKCHAIN_OPENAPI_EXAMPLES": "400"}),
)


def sum_budget_min(parts: Iterable[Part]) -> int:
    """Minutes in all when parts of one core run in pairs: at most half of their sum, and the longest of them more."""
    chosen = list(parts)
    single = [part.budget_min for part in chosen if part.cores == 1]
    return sum(part.budget_min for part in chosen if part.cores > 1) + (sum(single) + max(single, default=0)) // 2


def run_part(part: Part, folder: Path, patience: float = 1) -> Ran:
    """Run to the end or to the part's limit times `patience`; what it prints goes to a file of the folder."""
    output, begun_s = folder / f"{part.name}.txt", time.monotonic()
    with output.open("wb") as stream:
        child = subprocess.Popen(
            [sys.executable, "-m", *part.arguments],
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, **part.environment},
            start_new_session=True,
        )
        try:
            exit_code = child.wait(part.budget_min * 60 * patience)
        except subprocess.TimeoutExpired:
            exit_code = 124
        finally:
            _stop_group(child)
    lines = output.read_text(errors="replace").splitlines()
    return Ran(part.name, time.monotonic() - begun_s, exit_code, lines[-1] if lines else "", str(output))


def _stop_group(child: "subprocess.Popen[bytes]") -> None:
    """End the child and what it started: its own session, so nobody else's processes."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        if child.poll() is not None:
            return
        os.killpg(child.pid, kind)
        try:
            child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            continue


def run_all(parts: Iterable[Part], folder: Path, patience: float = 1) -> list[Ran]:
    """Those of two cores in turn, then those of one core in pairs; each is told of when it ends."""
    chosen = list(parts)
    ran = [_tell(part, run_part(part, folder, patience)) for part in chosen if part.cores > 1]
    with ThreadPoolExecutor(2) as pool:
        single = [part for part in chosen if part.cores == 1]
        ran += pool.map(lambda part: _tell(part, run_part(part, folder, patience)), single)
    return ran


def _tell(part: Part, ran: Ran) -> Ran:
    state = {0: "ok", 124: "TOO LONG"}.get(ran.exit_code, f"FAILED, exit {ran.exit_code}")
    print(f"{part.name:<15} {ran.seconds / 60:5.1f} of {part.budget_min:3d} min  {state}: {ran.last_line}", flush=True)
    if ran.exit_code:
        tail = Path(ran.output).read_text(errors="replace").splitlines()[-TAIL_LINES:]
        print("  " + "\n  ".join([f"python -m {' '.join(part.arguments)}", *tail]), flush=True)
    return ran


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.long_forms", description="Run the long proofs.")
    parser.add_argument("--only", nargs="+", choices=[part.name for part in PARTS], metavar="NAME")
    parser.add_argument("--list", action="store_true", help="print the parts and their budgets, and stop")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write how each part ended")
    parser.add_argument(
        "--patience", type=float, default=1, help="times the limits, for a machine that is busy otherwise"
    )
    options = parser.parse_args(arguments)
    parts = [part for part in PARTS if not options.only or part.name in options.only]
    for part in parts:
        print(f"{part.name:<15} {part.budget_min:3d} min, {part.cores} core(s): python -m {' '.join(part.arguments)}")
    budget_min = sum_budget_min(parts)
    print(f"budget: {budget_min // 60} h {budget_min % 60:02d} min on 2 cores, at most", flush=True)
    if options.list:
        return 0
    folder, begun_s = Path(tempfile.mkdtemp(prefix="flockchain-long-forms-")), time.monotonic()
    ran = run_all(parts, folder, options.patience)
    if options.json:
        options.json.write_text(json.dumps([asdict(one) for one in ran], indent=1) + "\n")
    failed = [one.name for one in ran if one.exit_code]
    verdict = f"failed: {', '.join(failed)}" if failed else "no finding"
    print(f"{verdict}; {(time.monotonic() - begun_s) / 60:.1f} of {budget_min} min; outputs in {folder}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
