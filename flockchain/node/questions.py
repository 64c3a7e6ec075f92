"""What peers were asked and have not answered yet."""

from collections.abc import Iterator

from flockchain.node.ports import PeerId


class Questions:
    """By peer and by what it was asked for; an answer to nothing is not taken."""

    def __init__(self, timeout_ms: int) -> None:
        self._timeout_ms = timeout_ms
        self._asked: dict[tuple[PeerId, int], int] = {}

    def __len__(self) -> int:
        return len(self._asked)

    def add(self, peer: PeerId, what: int, now_ms: int) -> None:
        self._asked[peer, what] = now_ms

    def settle(self, peer: PeerId, what: int) -> bool:
        """Whether the peer had been asked this; it no longer is."""
        return self._asked.pop((peer, what), None) is not None

    def is_asked(self, what: int) -> bool:
        """Whether anybody is being asked this."""
        return any(asked == what for _, asked in self._asked)

    def count(self, peer: PeerId) -> int:
        return sum(asked == peer for asked, _ in self._asked)

    def of(self, peer: PeerId) -> list[int]:
        return [what for asked, what in self._asked if asked == peer]

    def expired(self, now_ms: int) -> Iterator[tuple[PeerId, int]]:
        """Those without an answer in time; safe against changes meanwhile."""
        late = [asked for asked, since_ms in self._asked.items() if now_ms >= since_ms + self._timeout_ms]
        return iter(late)

    def clear(self) -> None:
        self._asked.clear()
