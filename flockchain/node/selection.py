"""Which waiting transactions the next block takes: each sender's in nonce order, within the block's limits."""

from collections.abc import Callable
from dataclasses import dataclass

from flockchain.execution.block import CheckedTx
from flockchain.params import PPM

NextNonce = Callable[[bytes], int]
"""The nonce that the state expects next of an address."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A transaction in the pool with its place in the order of arrival."""

    checked: CheckedTx
    data: bytes
    arrival: int

    @property
    def fee_rate(self) -> int:
        """Fee in millionths of an uflk per byte."""
        return self.checked.fee_uflk * PPM // self.checked.size_bytes

    @property
    def priority(self) -> tuple[int, int]:
        """Sorts ascending from the best paid to the worst, older first."""
        return (-self.fee_rate, self.arrival)

    @property
    def claim(self) -> tuple[int, int, bytes]:
        """Sorts ascending from the least claim to its lane: lowest fee rate, or latest deadline; newest first."""
        strength = -self.checked.deadline_ms if self.checked.is_due else self.fee_rate
        return (strength, -self.arrival, self.checked.hash)


class Selection:
    """A block's transactions while they are chosen."""

    def __init__(self, max_bytes: int, max_txs: int, next_nonce: NextNonce) -> None:
        self.data: list[bytes] = []
        self.size_bytes = 0
        self._max_bytes = max_bytes
        self._max_txs = max_txs
        self._next_nonce = next_nonce
        self._nonces: dict[bytes, int] = {}

    @property
    def is_full(self) -> bool:
        return len(self.data) >= self._max_txs or self.size_bytes >= self._max_bytes

    def nonce_of(self, sender: bytes) -> int:
        """The nonce that this sender needs next within the block."""
        if sender not in self._nonces:
            self._nonces[sender] = self._next_nonce(sender)
        return self._nonces[sender]

    def chain_to(self, waiting: Waiting, of_sender: dict[int, Waiting]) -> list[Waiting]:
        """The sender's transactions from its next nonce up to this one; none when there is a gap."""
        nonces = range(self.nonce_of(waiting.checked.sender), waiting.checked.nonce + 1)
        return [of_sender[n] for n in nonces] if all(n in of_sender for n in nonces) else []

    def take_all(self, chain: list[Waiting]) -> None:
        for waiting in chain:
            if not self.take(waiting):
                return

    def take(self, waiting: Waiting) -> bool:
        """Add it if it fits."""
        size = waiting.checked.size_bytes
        if len(self.data) >= self._max_txs or self.size_bytes + size > self._max_bytes:
            return False
        self.data.append(waiting.data)
        self.size_bytes += size
        self._nonces[waiting.checked.sender] = waiting.checked.nonce + 1
        return True
