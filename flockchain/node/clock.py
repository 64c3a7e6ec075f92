"""The `Clock` port over asyncio and the system's wall clock."""

import asyncio
import time
from collections.abc import Callable

MS_PER_S = 1_000
Action = Callable[[], None]


class SystemClock:
    """Timers run on the loop that is current when this is made, each through `guard`."""

    def __init__(self, guard: Callable[[Action], None] = lambda action: action()) -> None:
        self._loop = asyncio.get_running_loop()
        self._guard = guard

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def call_later(self, delay_ms: int, action: Action) -> Action:
        """Run `action` once after the delay; the returned function cancels it."""
        return self._loop.call_later(max(0, delay_ms) / MS_PER_S, self._guard, action).cancel
