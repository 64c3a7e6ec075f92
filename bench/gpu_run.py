"""A run of the script for GPUs: what it was told, what it has found, and the memory of its device."""

import gc
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.report import Result, make_document

RANK = 16
ADAPTERS = 10
"""Of a round."""


@dataclass
class Run:
    """What one run was told, and what it has found so far."""

    device: str
    shapes: Sequence[str]
    out: Path
    deadline: float
    four_bit: bool
    results: list[Result]
    notes: dict[str, Any]
    judges_too: bool = False
    """Whether judging is measured after training, while the base is loaded."""
    judged: set[str] = field(default_factory=set)
    """Shapes whose judging was measured."""

    @property
    def left_s(self) -> float:
        return self.deadline - time.monotonic()

    def save(self) -> None:
        """Over what an earlier run left in the file, by name."""
        known: dict[str, Any] = {}
        if self.out.exists():
            before = json.loads(self.out.read_text())
            known = {result["name"]: result for result in before["results"]}
            self.notes = {**before.get("notes", {}), **self.notes}
        known |= {result.name: asdict(result) for result in self.results}
        document = {**make_document([]), "results": list(known.values()), "notes": self.notes}
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.out.write_text(json.dumps(document, indent=2) + "\n")


def get_allocated(run: Run) -> int:
    """Bytes on the GPU now; 0 without one."""
    import torch

    return int(torch.cuda.memory_allocated()) if run.device == "cuda" else 0


def get_peak(run: Run) -> int:
    """Most bytes on the GPU since the last reset; 0 without one."""
    import torch

    return int(torch.cuda.max_memory_allocated()) if run.device == "cuda" else 0


def reset_peak(run: Run) -> None:
    import torch

    if run.device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def free(run: Run) -> None:
    import torch

    gc.collect()
    if run.device == "cuda":
        torch.cuda.empty_cache()
