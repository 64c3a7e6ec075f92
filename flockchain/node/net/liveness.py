"""Every wait for the other side of one connection, and when each has lasted too long (sans-I/O)."""

from flockchain.errors import Refused
from flockchain.node.net.limits import NetworkLimits


class Liveness:
    """Told what happens, with the time in seconds of one monotonic clock; answers what is overdue."""

    def __init__(self, limits: NetworkLimits, now_s: float) -> None:
        self._limits = limits
        self._heard_s = now_s
        self._pinged_s = now_s
        self._frame_begun_s: float | None = None
        self._write_paused_s: float | None = None
        self._probed_s: float | None = None
        self._is_reading_paused = False
        waits = (limits.frame_timeout_s, limits.write_timeout_s, limits.ping_interval_s, limits.idle_timeout_s)
        self.tick_s = min(1.0, *(wait_s / 4 for wait_s in waits), limits.probe_timeout_s / 4)
        """How often to ask."""

    @property
    def is_reading_paused(self) -> bool:
        return self._is_reading_paused

    @property
    def is_write_paused(self) -> bool:
        return self._write_paused_s is not None

    def heard(self, now_s: float, *, is_mid_frame: bool, has_whole_frame: bool) -> None:
        """Bytes came; they left a frame unfinished, and finished one or more."""
        self._heard_s = now_s
        self._probed_s = None
        if not is_mid_frame:
            self._frame_begun_s = None
        elif self._frame_begun_s is None or has_whole_frame:
            self._frame_begun_s = now_s

    def reading_paused(self) -> None:
        self._is_reading_paused = True

    def reading_resumed(self, now_s: float) -> None:
        """While we did not read, the peer could not be heard: its waits begin anew."""
        self._is_reading_paused = False
        self._heard_s = now_s
        if self._frame_begun_s is not None:
            self._frame_begun_s = now_s
        if self._probed_s is not None:
            self._probed_s = now_s

    def write_paused(self, now_s: float) -> None:
        self._write_paused_s = now_s

    def write_resumed(self) -> None:
        self._write_paused_s = None

    def pinged(self, now_s: float) -> None:
        self._pinged_s = now_s

    def probed(self, now_s: float) -> None:
        """The peer seems to have lost this connection: it has little time to show life."""
        if self._probed_s is None:
            self._probed_s = now_s

    def since_ping_s(self, now_s: float) -> float:
        return now_s - self._pinged_s

    def is_ping_due(self, now_s: float) -> bool:
        return self.since_ping_s(now_s) >= self._limits.ping_interval_s

    def find_overdue(self, now_s: float) -> Refused | None:
        """Why the connection must end; None when nothing is overdue."""
        limits = self._limits
        if _is_overdue(self._write_paused_s, limits.write_timeout_s, now_s):
            return Refused("write-timeout", f"the peer took none of our bytes for {limits.write_timeout_s:g} s")
        if self._is_reading_paused:
            return None
        if _is_overdue(self._frame_begun_s, limits.frame_timeout_s, now_s):
            return Refused("frame-timeout", f"a frame was not whole after {limits.frame_timeout_s:g} s")
        if _is_overdue(self._heard_s, limits.idle_timeout_s, now_s):
            return Refused("idle-timeout", f"the peer was silent for {limits.idle_timeout_s:g} s")
        if _is_overdue(self._probed_s, limits.probe_timeout_s, now_s):
            return Refused("probe-timeout", f"the peer did not answer within {limits.probe_timeout_s:g} s")
        return None


def _is_overdue(since_s: float | None, limit_s: float, now_s: float) -> bool:
    return since_s is not None and now_s - since_s > limit_s
