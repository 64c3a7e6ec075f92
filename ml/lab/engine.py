"""The engine: cells in a pool of processes, each as soon as what it needs is there; every result is kept at once.

One torch thread a process: on few cores many small processes are faster than one with threads, and float sums stay the
same whatever the number of processes.
"""

import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread

from ml.lab import LabError, Step, Watch
from ml.lab.cells import Cell, execute, keep_result, list_all, read_facts, read_result

CELL_LIMIT_S = 3_600.0
"""When no cell ends within this time, the run stops: something hangs."""


def run_cells(
    cells: Sequence[Cell],
    folder: Path,
    *,
    jobs: int,
    commit: str,
    fresh: bool = False,
    watch: Watch | None = None,
) -> None:
    """Run the cells and all that they need; results lie in `folder` afterwards.

    `jobs` of 0 runs them in this process. `fresh` throws kept results of these cells away first. Raises LabError for
    a cell that failed; what others have finished stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    everything = list_all(cells)
    if fresh:
        for cell in everything:
            (folder / f"{cell.key[:32]}.json").unlink(missing_ok=True)
    kept = [cell for cell in everything if read_result(folder, cell) is not None]
    clock = _Clock(everything, kept, folder, max(1, jobs), watch)
    waiting = [cell for cell in everything if cell not in kept]
    if jobs == 0:
        for cell in waiting:
            clock.note(cell, _run_and_keep(cell, folder, commit))
        return
    _run_in_pool(waiting, folder, jobs, commit, clock)


def _run_in_pool(waiting: list[Cell], folder: Path, jobs: int, commit: str, clock: "_Clock") -> None:
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_begin_process)
    open_keys = {cell.key for cell in waiting}
    running: dict[Future[float], Cell] = {}
    try:
        while waiting or running:
            for cell in [cell for cell in waiting if not any(need.key in open_keys for need in cell.needs)]:
                if len(running) >= jobs:
                    break
                running[pool.submit(_run_and_keep, cell, folder, commit)] = cell
                waiting.remove(cell)
            done, _ = wait(running, CELL_LIMIT_S, return_when=FIRST_COMPLETED)
            if not done:
                names = ", ".join(cell.name for cell in running.values())
                raise LabError(f"no cell ended within {CELL_LIMIT_S:.0f} s: {names}; look why it hangs and run again")
            for future in done:
                cell = running.pop(future)
                clock.note(cell, _take(future, cell))
                open_keys.discard(cell.key)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def find_other_commits(cells: Sequence[Cell], folder: Path, commit: str) -> dict[str, int]:
    """Kept cells by commit, of others than `commit`: a cell's key holds its settings, not the code that ran it."""
    kept = [cell for cell in list_all(cells) if read_result(folder, cell) is not None]
    return dict(Counter(found for cell in kept if (found := read_facts(folder, cell)["commit"]) != commit))


def _take(future: Future[float], cell: Cell) -> float:
    try:
        return future.result()
    except BrokenProcessPool:
        raise LabError(
            f"a process ended while {cell.name} ran, perhaps for want of memory: run again with fewer --jobs; "
            "finished cells are kept"
        ) from None


def _run_and_keep(cell: Cell, folder: Path, commit: str) -> float:
    """Seconds that the cell took."""
    began = time.monotonic()
    try:
        result = execute(cell, folder)
    except Exception as error:
        error.add_note(f"in cell {cell.name} of the lab")
        raise
    seconds = time.monotonic() - began
    keep_result(folder, cell, result, seconds=seconds, commit=commit)
    return seconds


def _begin_process() -> None:
    """One thread, no bars of libraries, nobody's network; it ends with the run that began it."""
    Thread(target=_end_with_parent, daemon=True).start()
    for name, value in (("OMP_NUM_THREADS", "1"), ("OMP_WAIT_POLICY", "PASSIVE"), ("TQDM_DISABLE", "1")):
        os.environ[name] = value
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        import torch
    except ImportError:  # experiments on the ledger alone need no torch
        return
    torch.set_num_threads(1)


def _end_with_parent() -> None:
    """Whoever kills a run does not want its cells computed for minutes more, beside those of the next run."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


class _Clock:
    """Counts cells and guesses what is left: per kind of cell the mean of its times, over the processes."""

    def __init__(
        self, everything: Sequence[Cell], kept: Sequence[Cell], folder: Path, jobs: int, watch: Watch | None
    ) -> None:
        self.of, self.jobs, self.watch = len(everything), jobs, watch
        self.done = len(kept)
        self.left: dict[str, int] = defaultdict(int)
        self.times: dict[str, list[float]] = defaultdict(list)
        kept_keys = {cell.key for cell in kept}
        for cell in everything:
            if cell.key in kept_keys:
                self.times[cell.run].append(float(read_facts(folder, cell)["seconds"]))
            else:
                self.left[cell.run] += 1

    def note(self, cell: Cell, seconds: float) -> None:
        self.done += 1
        self.left[cell.run] -= 1
        self.times[cell.run].append(seconds)
        if self.watch is not None:
            self.watch(Step(self.done, self.of, cell.name, seconds, self._estimate_s()))

    def _estimate_s(self) -> float:
        known = [time for times in self.times.values() for time in times]
        overall = sum(known) / len(known)
        means = {run: sum(times) / len(times) if times else overall for run, times in self.times.items()}
        return sum(count * means.get(run, overall) for run, count in self.left.items()) / self.jobs


def choose_jobs(wanted: int | None, bytes_per_job: int, measure: Callable[[], int] | None = None) -> int:
    """Processes: as many as there are cores, or as were asked for, but no more than the free memory holds."""
    import psutil

    available = measure() if measure is not None else int(psutil.virtual_memory().available)
    fitting = max(1, available // bytes_per_job)
    return min(wanted or os.cpu_count() or 1, fitting)


def get_cells_folder() -> Path:
    """Where the cells of all experiments are kept: beside the prepared bases, never in the source tree."""
    from ml.base import cache_folder

    folder = cache_folder() / "lab"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
