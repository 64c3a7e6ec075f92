"""One result, and the file that a run of benchmarks leaves."""

import json
import os
import platform
import subprocess
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Result:
    """A figure: median, least and most of `runs` runs; `peer` is what it stood beside in the same run, or None."""

    name: str
    unit: str
    median: float
    min: float
    max: float
    runs: int
    peer: dict[str, Any] | None = None
    notes: dict[str, Any] = field(default_factory=dict)


def summarize(name: str, unit: str, values: list[float], digits: int = 1, **notes: Any) -> Result:
    """The result of several runs."""
    low, middle, high = (round(f(values), digits) for f in (min, median, max))
    return Result(name, unit, middle, low, high, len(values), notes=notes)


def make_document(results: list[Result]) -> dict[str, Any]:
    """Machine, date and commit with the results: the form of `flockchain bench --json`."""
    return {
        "machine": describe_machine(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": _commit(),
        "results": [asdict(result) for result in results],
    }


def save(name: str, results: list[Result]) -> Path:
    """Write `bench/results/<name>.json`."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(make_document(results), indent=2) + "\n")
    return path


def describe_machine() -> str:
    """Processor, cores and memory, and the Python that ran."""
    model = platform.processor() or "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores of {model}, {memory:.0f} GiB, Python {platform.python_version()}"


def _commit() -> str:
    root = Path(__file__).parent.parent
    return subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, cwd=root, check=False
    ).stdout.strip()
