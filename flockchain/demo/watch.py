"""Progress for people: which round and phase, who has acted, how long it may still take."""

import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from flockchain.client import Client, Json, Unreachable
from flockchain.errors import Fault

PHASES = ("enroll", "train", "publish", "commit", "reveal", "aggregate", "settled")
WHO = {
    "enroll": "participants bond",
    "train": "trainers train",
    "publish": "bytes go round",
    "commit": "judges measure",
    "reveal": "votes are opened",
    "aggregate": "judges attest",
    "settled": "settled",
}
POLL_S = 0.5
Check = Callable[[], None]


class Watcher:
    """Shows a task's rounds as they pass; silent when there is nobody to look."""

    def __init__(self, console: Console | None) -> None:
        self.console = console
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        if self.console is not None:
            self.console.print(f"[{time.monotonic() - self._began:5.0f} s] {text}", markup=False)

    def watch(self, client: Client, task: int, check: Check, timeout_s: float) -> list[Json]:
        """Wait until the task is over; returns its rounds. `check` raises when a participant died."""
        deadline = time.monotonic() + timeout_s
        began = time.monotonic()
        seen: tuple[Any, ...] = ()
        with self._progress() as bar:
            line = bar.add_task("", total=1.0)
            while True:
                check()
                if time.monotonic() > deadline:
                    raise Fault(f"the task is not over after {timeout_s:.0f} s: see the logs in the demo's home")
                try:
                    found = client.task(task)
                    round_ = client.round(task, found["round"])
                except Unreachable as error:
                    bar.update(line, description=f"waiting for a node: {error}"[:70])
                    time.sleep(POLL_S)
                    continue
                bar.update(line, completed=_share(found, round_), description=_describe(found, round_, began))
                now = (round_["number"], round_["phase"])
                if now != seen and round_["phase"] not in ("enroll", "settled"):
                    self.say(f"round {now[0]}: {now[1]}, {WHO[now[1]]}")
                    seen = now
                if found["status"] != "open":
                    return [client.round(task, number) for number in range(1, found["round"] + 1)]
                time.sleep(POLL_S)

    def _progress(self) -> Progress:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=16), TimeElapsedColumn())
        quiet = self.console is None or not self.console.is_terminal
        return Progress(*columns, console=self.console or Console(quiet=True), transient=True, disable=quiet)


def _share(task: Json, round_: Json) -> float:
    """Part of the whole that lies behind: phases weighed by how long they take."""
    weights = {
        "enroll": 0.0,
        "train": 0.05,
        "publish": 0.3,
        "commit": 0.33,
        "reveal": 0.8,
        "aggregate": 0.82,
        "settled": 1,
    }
    done: float = round_["number"] - 1 + weights[round_["phase"]]
    return done / int(task["spec"]["rounds"])


def _describe(task: Json, round_: Json, began: float) -> str:
    share = _share(task, round_)
    elapsed = time.monotonic() - began
    left = f", about {elapsed * (1 - share) / share:.0f} s left" if share > 0.1 else ""
    acted = f" ({round_['acted']} of {round_['expected']})" if round_["expected"] else ""
    return f"round {round_['number']} of {task['spec']['rounds']}: {WHO[round_['phase']]}{acted}{left}"
