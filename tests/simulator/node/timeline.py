"""Virtual time: what happens when, and the event log whose hash says whether two runs were the same."""

from collections.abc import Callable
from hashlib import sha256
from heapq import heappop, heappush
from itertools import count

START_MS = 1_700_000_010_000


class Timeline:
    """Events in the order of their times, those of one time in the order in which they were planned."""

    def __init__(self, trace: Callable[[str], None] | None = None) -> None:
        self.now_ms = START_MS
        self._trace = trace
        self._log = sha256()
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()
        self._cancelled: set[int] = set()

    @property
    def elapsed_ms(self) -> int:
        return self.now_ms - START_MS

    def call_at(self, when_ms: int, action: Callable[[], None]) -> Callable[[], None]:
        """Plan an event; returns what cancels it."""
        order = next(self._order)
        heappush(self._heap, (max(when_ms, self.now_ms), order, action))
        return lambda: self._cancelled.add(order)

    def call_in(self, delay_ms: int, action: Callable[[], None]) -> None:
        self.call_at(self.now_ms + delay_ms, action)

    def advance(self) -> Callable[[], None]:
        """Go to the next event, which the caller is to run."""
        while True:
            when_ms, order, action = heappop(self._heap)
            if order not in self._cancelled:
                self.now_ms = when_ms
                return action
            self._cancelled.discard(order)

    def note(self, *what: object) -> None:
        """A line of the event log."""
        line = f"{self.elapsed_ms} {' '.join(map(str, what))}"
        self._log.update(line.encode() + b"\n")
        if self._trace is not None:
            self._trace(line)

    @property
    def digest(self) -> str:
        """sha256 over the event log so far."""
        return self._log.hexdigest()
