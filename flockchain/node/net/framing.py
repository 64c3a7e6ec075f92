"""Messages of channels, cut into frames.

    first frame of a message    channel (1) | total length (4, big endian) | bytes
    each further frame          channel (1) | bytes

Every frame but a message's last is full, so there is one way to cut a message. Frames of different channels
may alternate: an urgent message passes a large one that is under way.
"""

from collections.abc import Mapping

from flockchain.errors import Refused
from flockchain.node.net.sealing import MAX_FRAME_BYTES, FrameOpener

CONTROL_CHANNEL = 0
"""Pings, pongs and goodbyes of the connection itself."""
EXCHANGE_CHANNEL = 127
"""Peer exchange, after everything else; all numbers between are `Channel`s."""
CHANNEL_BYTES = 1
TOTAL_BYTES = 4
FIRST_CAPACITY = MAX_FRAME_BYTES - CHANNEL_BYTES - TOTAL_BYTES
NEXT_CAPACITY = MAX_FRAME_BYTES - CHANNEL_BYTES


def cut_frame(channel: int, message: bytes, offset: int) -> tuple[bytes, int]:
    """The frame of `message` that begins at `offset`, and the offset of the next one."""
    assert 0 <= offset < len(message)
    if offset == 0:
        chunk = message[:FIRST_CAPACITY]
        return bytes((channel,)) + len(message).to_bytes(TOTAL_BYTES, "big") + chunk, len(chunk)
    chunk = message[offset : offset + NEXT_CAPACITY]
    return bytes((channel,)) + chunk, offset + len(chunk)


class MessageReader:
    """Turns stream bytes into whole messages. Memory grows with bytes received, never with a length announced."""

    def __init__(self, opener: FrameOpener, max_message_bytes: Mapping[int, int]) -> None:
        self._opener = opener
        self._max_message_bytes = max_message_bytes
        self._partial: dict[int, _PartialMessage] = {}

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """(channel, message) of each message that `data` completes; raises `Refused`, and then the stream is over."""
        self._opener.feed(data)
        messages: list[tuple[int, bytes]] = []
        while (frame := self._opener.pop()) is not None:
            channel = frame[0]
            message = self._add_frame(channel, frame)
            if message is not None:
                messages.append((channel, message))
        return messages

    def _add_frame(self, channel: int, frame: bytes) -> bytes | None:
        partial = self._partial.get(channel)
        if partial is None:
            total = self._read_total(channel, frame)
            chunk = frame[CHANNEL_BYTES + TOTAL_BYTES :]
            if len(chunk) == total:
                return chunk
            partial = self._partial[channel] = _PartialMessage(total)
        else:
            chunk = frame[CHANNEL_BYTES:]
        missing = partial.total - len(partial.received)
        if len(chunk) > missing or (len(chunk) < missing and len(frame) < MAX_FRAME_BYTES):
            raise Refused(
                "bad-frame-cut",
                f"a frame on channel {channel} brings {len(chunk)} of {missing} bytes: only the last may be short",
            )
        partial.received += chunk
        if len(partial.received) < partial.total:
            return None
        del self._partial[channel]
        return bytes(partial.received)

    def _read_total(self, channel: int, frame: bytes) -> int:
        limit = self._max_message_bytes.get(channel)
        if limit is None:
            raise Refused("unknown-channel", f"a frame names channel {channel}, which does not exist")
        if len(frame) < CHANNEL_BYTES + TOTAL_BYTES:
            raise Refused("bad-frame-cut", f"a message's first frame of {len(frame)} bytes has no total length")
        total = int.from_bytes(frame[CHANNEL_BYTES : CHANNEL_BYTES + TOTAL_BYTES], "big")
        if not 1 <= total <= limit:
            raise Refused(
                "message-too-large",
                f"a message on channel {channel} announces {total} bytes, between 1 and {limit} are possible",
            )
        return total


class _PartialMessage:
    __slots__ = ("received", "total")

    def __init__(self, total: int) -> None:
        self.total = total
        self.received = bytearray()
