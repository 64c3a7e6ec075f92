"""What waits to be sent on one connection: a bounded queue per channel, the most urgent frame first."""

from collections import deque
from collections.abc import Mapping

from flockchain.node.net.framing import cut_frame
from flockchain.node.net.limits import MESSAGE_COST_BYTES, ChannelLimits, TokenBucket


class SendQueue:
    """Hands out one frame at a time, always of the lowest channel number that has something to send.

    So a message waits for at most one frame of the channels behind it. Each channel keeps to the rate that the
    receiver enforces: an honest receiver never stops reading, which would delay the urgent channels as well.
    """

    def __init__(self, limits: Mapping[int, ChannelLimits], now_s: float) -> None:
        self._channels = [_ChannelQueue(channel, limits[channel], now_s) for channel in sorted(limits)]
        self._by_number = {queue.channel: queue for queue in self._channels}

    @property
    def queued_bytes(self) -> int:
        return sum(queue.size_bytes for queue in self._channels)

    def push(self, channel: int, message: bytes) -> bool:
        """Queue a message; False when the channel's queue is full."""
        return self._by_number[channel].push(message)

    def pop_frame(self, now_s: float) -> bytes | None:
        """Plaintext of the next frame; None when nothing may be sent now."""
        for queue in self._channels:
            if queue.messages and queue.wait_s(now_s) == 0.0:
                return queue.pop_frame(now_s)
        return None

    def wait_s(self, now_s: float) -> float | None:
        """Seconds until `pop_frame` has something; None when nothing waits."""
        return min((queue.wait_s(now_s) for queue in self._channels if queue.messages), default=None)

    def clear(self) -> None:
        """Drop all that waits; of a message under way the receiver never sees the rest."""
        for queue in self._channels:
            queue.clear()


class _ChannelQueue:
    __slots__ = ("_bucket", "_limits", "_offset", "channel", "messages", "size_bytes")

    def __init__(self, channel: int, limits: ChannelLimits, now_s: float) -> None:
        self.channel = channel
        self.messages: deque[bytes] = deque()
        self.size_bytes = 0
        self._limits = limits
        self._offset = 0
        self._bucket = TokenBucket(limits.rate_bytes_per_s, limits.burst_bytes, now_s)

    def push(self, message: bytes) -> bool:
        size = len(message)
        assert 1 <= size <= self._limits.max_message_bytes, f"{size} bytes on channel {self.channel}"
        if len(self.messages) >= self._limits.max_queue_messages:
            return False
        if self.size_bytes + size > self._limits.max_queue_bytes:
            return False
        self.messages.append(message)
        self.size_bytes += size
        return True

    def clear(self) -> None:
        self.messages.clear()
        self.size_bytes = 0
        self._offset = 0

    def wait_s(self, now_s: float) -> float:
        """A message that has begun is not held up: its whole cost was spent at its first frame."""
        return 0.0 if self._offset else self._bucket.wait_s(now_s)

    def pop_frame(self, now_s: float) -> bytes:
        message = self.messages[0]
        if self._offset == 0:
            self._bucket.spend(len(message) + MESSAGE_COST_BYTES, now_s)
        frame, self._offset = cut_frame(self.channel, message, self._offset)
        if self._offset == len(message):
            self.messages.popleft()
            self.size_bytes -= len(message)
            self._offset = 0
        return frame
