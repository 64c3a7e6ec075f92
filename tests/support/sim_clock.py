"""Virtual time: one heap of timers; nothing waits, everything is reproducible."""

import heapq
from collections.abc import Callable
from itertools import count

START_MS = 1_700_000_010_000


class SimWorld:
    """The time that all simulated ports of one test share."""

    def __init__(self, start_ms: int = START_MS) -> None:
        self.now_ms = start_ms
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._cancelled: set[int] = set()
        self._order = count()

    def at(self, when_ms: int, action: Callable[[], None]) -> Callable[[], None]:
        order = next(self._order)
        heapq.heappush(self._heap, (max(when_ms, self.now_ms), order, action))
        return lambda: self._cancelled.add(order)

    def step(self) -> bool:
        """Run the next timer; False when there is none."""
        while self._heap:
            when_ms, order, action = heapq.heappop(self._heap)
            if order in self._cancelled:
                self._cancelled.discard(order)
                continue
            self.now_ms = when_ms
            action()
            return True
        return False

    def run_for(self, duration_ms: int) -> None:
        end_ms = self.now_ms + duration_ms
        while self._heap and self._heap[0][0] <= end_ms:
            self.step()
        self.now_ms = end_ms

    def run_until(self, predicate: Callable[[], bool], timeout_ms: int = 60_000) -> None:
        """Run until `predicate` holds; fails when it does not within `timeout_ms` of virtual time."""
        end_ms = self.now_ms + timeout_ms
        while not predicate():
            assert self.now_ms <= end_ms, f"not reached within {timeout_ms} ms"
            assert self.step(), "nothing is left to happen"


class SimClock:
    """The `Clock` port of one node; a crashed node's timers are dropped by `stop`."""

    def __init__(self, world: SimWorld, skew_ms: int = 0) -> None:
        self._world = world
        self._skew_ms = skew_ms
        self._is_running = True

    def now_ms(self) -> int:
        return self._world.now_ms + self._skew_ms

    def call_later(self, delay_ms: int, action: Callable[[], None]) -> Callable[[], None]:
        def fire() -> None:
            if self._is_running:
                action()

        return self._world.at(self._world.now_ms + max(0, delay_ms), fire)

    def stop(self) -> None:
        self._is_running = False
