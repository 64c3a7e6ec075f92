"""How much memory a process held at most, above what it held before: the kernel's own high-water mark, set back."""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ml.memory import return_freed_memory

ONLY_THE_PEAK = "5"
"""What makes clear_refs set VmHWM back to VmRSS (proc(5), Linux 4.0)."""


@dataclass
class Held:
    """Resident bytes, mapped files counted in."""

    before_bytes: int = 0
    extra_bytes: int = 0
    seconds: float = 0.0


def read_resident(pid: int | str = "self") -> tuple[int, int]:
    """(now, most since the start or the last reset), in bytes."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    now, most = (int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return now, most


@contextmanager
def watch(pid: int | str = "self") -> Iterator[Held]:
    """What the block adds, known when it ends. For another process: what that one does meanwhile."""
    gc.collect()
    if pid == "self":
        return_freed_memory()  # else a step would seem to live on what imports left behind
    Path(f"/proc/{pid}/clear_refs").write_text(ONLY_THE_PEAK)
    held, began = Held(before_bytes=read_resident(pid)[0]), time.perf_counter()
    yield held
    held.seconds = time.perf_counter() - began
    held.extra_bytes = read_resident(pid)[1] - held.before_bytes
