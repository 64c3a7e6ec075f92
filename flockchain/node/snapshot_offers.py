"""Which snapshot a joining node tries next: what peers hold, what was tried, who did not keep its word."""

from flockchain.node.messages import SnapshotOffer, SnapshotOffers
from flockchain.node.ports import PeerId

LONG_CHAIN_BLOCKS = 1_000
"""A shorter chain is taken by blocks: that is a matter of seconds, and gives the whole history."""
DISCOVERY_MS = 5_000
"""Longest wait for the first peer, and for offers of others once one has answered."""
MAX_CANDIDATES = 4


class NoSnapshot(Exception):
    """There is none to try (any more); the sentence says why."""


class Offers:
    """Answers of peers to what they hold, each peer's newest."""

    def __init__(self, least_height: int) -> None:
        """`least_height`: of a snapshot whose header can be verified from what is trusted."""
        self.unfaithful: set[PeerId] = set()
        """Who offered a snapshot and did not give it: its other offers are not believed."""
        self._least_height = least_height
        self._answers: dict[PeerId, SnapshotOffers] = {}
        self._tried: set[SnapshotOffer] = set()
        self._has_answer = False
        self._waits_since_ms = 0
        """The start; then the first answer."""

    def begin(self, now_ms: int) -> None:
        self._waits_since_ms = now_ms

    def take(self, peer: PeerId, offers: SnapshotOffers, now_ms: int) -> None:
        if not self._has_answer:
            self._has_answer, self._waits_since_ms = True, now_ms
        self._answers[peer] = offers

    def forget(self, peer: PeerId) -> None:
        self._answers.pop(peer, None)

    def holders_of_block(self, height: int) -> list[PeerId]:
        """Who said that its chain is that long."""
        return [peer for peer, answer in self._answers.items() if answer.decided_height >= height]

    def choose(self, peers: set[PeerId], now_ms: int) -> tuple[SnapshotOffer, set[PeerId]] | None:
        """The snapshot that most of these peers offer, the newest of those, and who offers it.

        None: wait, for not all who could answer have. Raises `NoSnapshot`. What was chosen is not chosen again.
        """
        has_waited = now_ms >= self._waits_since_ms + DISCOVERY_MS
        if not has_waited and (not peers or not peers <= set(self._answers)):
            return None
        answers = {peer: answer for peer, answer in self._answers.items() if peer in peers}
        longest = max((answer.decided_height for answer in answers.values()), default=0)
        if longest < LONG_CHAIN_BLOCKS:
            raise NoSnapshot(f"the longest chain of {len(answers)} peers has {longest} blocks")
        if len(self._tried) >= MAX_CANDIDATES:
            raise NoSnapshot(f"{len(self._tried)} snapshots were tried and none was whole")
        holders = self._find_holders(answers)
        if holders:
            offer = max(holders, key=lambda one: (len(holders[one]), one.height, -one.depth))
            self._tried.add(offer)
            return offer, holders[offer]
        if has_waited:
            raise NoSnapshot(
                f"{len(answers)} peers hold up to {longest} blocks and offer no snapshot to verify from here"
            )
        return None

    def _find_holders(self, answers: dict[PeerId, SnapshotOffers]) -> dict[SnapshotOffer, set[PeerId]]:
        """By snapshot that may be tried."""
        holders: dict[SnapshotOffer, set[PeerId]] = {}
        for peer, answer in answers.items():
            for offer in answer.offers if peer not in self.unfaithful else ():
                if self._least_height <= offer.height < answer.decided_height and offer not in self._tried:
                    holders.setdefault(offer, set()).add(peer)
        return holders
