"""Transactions that wait for a block: bounded, ordered by nonce within a sender and by fee between senders.

Two lanes. Due transactions (the free ones that drawn members owe) have space of their own and go first, earliest
deadline first, and the latest deadline is evicted when space runs out; a duty waits once. All others pay, and the
lowest fee per byte is evicted.
"""

import heapq
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace

from flockchain.errors import Refused
from flockchain.execution.block import CheckedTx
from flockchain.node.selection import NextNonce, Selection, Waiting
from flockchain.params import PPM, FeeParams

SEEN_HASHES = 65_536
DUE_SHARE = 2
"""The due lane holds at most 1/DUE_SHARE of what the paying lane holds, on top of it."""
REPLACEMENT_PERCENT = 110
"""A transaction replaces one of the same sender and nonce when it pays at least so much of its fee."""

MAX_DUE_PER_ACCOUNT = 16
"""Due transactions of one account, of all its duties and reports of offences together."""


@dataclass(frozen=True, slots=True)
class Limits:
    max_txs: int
    max_bytes: int
    max_per_account: int = 64
    reserved_ppm: int = 500_000
    """Part of a block kept for due transactions."""


@dataclass(slots=True)
class _Lane:
    """What one lane holds now."""

    max_txs: int
    max_bytes: int
    txs: int = 0
    size_bytes: int = 0

    def has_room(self, size_bytes: int) -> bool:
        return self.txs < self.max_txs and self.size_bytes + size_bytes <= self.max_bytes


class Mempool:
    """Holds what `check_tx` accepted; never applies anything itself."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._by_hash: dict[bytes, Waiting] = {}
        self._by_sender: dict[bytes, dict[int, Waiting]] = {}
        self._paying = _Lane(limits.max_txs, limits.max_bytes)
        self._due = _Lane(max(1, limits.max_txs // DUE_SHARE), max(1, limits.max_bytes // DUE_SHARE))
        self._eviction: list[tuple[int, int, bytes]] = []  # (fee rate, -arrival, hash), entries may be stale
        self._due_eviction: list[tuple[int, int, bytes]] = []  # (-deadline_ms, -arrival, hash), entries may be stale
        self._expiry: list[tuple[int, bytes]] = []  # (expires_ms, hash), entries may be stale
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self._arrivals = 0

    def adopt(self, fees: FeeParams) -> None:
        """The chain's parameters, which a decided change may have replaced."""
        self._limits = replace(
            self._limits, max_per_account=fees.max_txs_per_account_in_mempool, reserved_ppm=fees.reserved_lane_ppm
        )

    def __len__(self) -> int:
        return len(self._by_hash)

    def __contains__(self, tx_hash: bytes) -> bool:
        return tx_hash in self._by_hash

    def __iter__(self) -> Iterator[bytes]:
        """Bytes of everything held, in order of arrival."""
        return (waiting.data for waiting in self._by_hash.values())

    @property
    def size_bytes(self) -> int:
        return self._paying.size_bytes + self._due.size_bytes

    @property
    def hashes(self) -> Collection[bytes]:
        """Of everything held: their signatures are verified."""
        return self._by_hash.keys()

    def get(self, tx_hash: bytes) -> bytes | None:
        """The bytes of a waiting transaction."""
        waiting = self._by_hash.get(tx_hash)
        return waiting.data if waiting else None

    def is_seen(self, tx_hash: bytes) -> bool:
        """Whether it is here, or was offered lately: gossip need not check it again."""
        return tx_hash in self._by_hash or tx_hash in self._seen

    def note_seen(self, tx_hash: bytes) -> None:
        self._seen[tx_hash] = None
        if len(self._seen) > SEEN_HASHES:
            self._seen.popitem(last=False)

    def add(self, checked: CheckedTx, data: bytes) -> None:
        """Hold a checked transaction; raises `Refused` when it is here, its place is taken or there is no room."""
        if checked.hash in self._by_hash:
            raise Refused("already-waiting", f"transaction {checked.hash.hex()} already waits for a block")
        self._arrivals += 1
        new = Waiting(checked, data, self._arrivals)
        of_sender = self._by_sender.get(checked.sender, {})
        self._check_account(of_sender, new)
        replaced = [w for w in (of_sender.get(checked.nonce), _find_same_duty(of_sender, checked)) if w is not None]
        for old in replaced:
            self._check_replacement(old, new)
        for old in dict.fromkeys(replaced):
            self._remove(old)
        try:
            self._make_room(new)
        except Refused:
            for old in dict.fromkeys(replaced):
                self._insert(old)
            raise
        self._insert(new)

    def reap(self, max_bytes: int, max_txs: int, next_nonce: NextNonce) -> list[bytes]:
        """Transactions for the next block, each sender's in nonce order without a gap: due ones, then by fee."""
        picked = Selection(max_bytes, max_txs, next_nonce)
        reserved = max_bytes * self._limits.reserved_ppm // PPM
        due = (w for w in self._by_hash.values() if w.checked.is_due)
        for waiting in sorted(due, key=lambda w: (w.checked.deadline_ms, w.arrival)):
            chain = picked.chain_to(waiting, self._by_sender[waiting.checked.sender])
            if sum(w.checked.size_bytes for w in chain) + picked.size_bytes <= reserved:
                picked.take_all(chain)
        self._reap_paying(picked)
        return picked.data

    def update(self, included: Collection[bytes], next_nonce: NextNonce, now_ms: int) -> None:
        """After a block: drop what it holds, what its senders' nonces have passed, and what expired."""
        senders: set[bytes] = set()
        for tx_hash in included:
            self.note_seen(tx_hash)
            waiting = self._by_hash.get(tx_hash)
            if waiting is not None:
                senders.add(waiting.checked.sender)
                self._remove(waiting)
        for sender in senders:
            nonce = next_nonce(sender)
            for waiting in [w for n, w in self._by_sender.get(sender, {}).items() if n < nonce]:
                self._remove(waiting)
        while self._expiry and self._expiry[0][0] < now_ms:
            waiting = self._by_hash.get(heapq.heappop(self._expiry)[1])
            if waiting is not None and waiting.checked.expires_ms < now_ms:
                self._remove(waiting)

    def recheck_due(self, check: Callable[[bytes], CheckedTx]) -> None:
        """After a block: a due transaction whose phase is over pays like others, or goes when `check` refuses it."""
        for waiting in [w for w in self._by_hash.values() if w.checked.is_due]:
            try:
                checked = check(waiting.data)
                if not checked.is_due or checked.deadline_ms != waiting.checked.deadline_ms:
                    self._remove(waiting)
                    self.add(checked, waiting.data)
            except Refused:
                if waiting.checked.hash in self._by_hash:
                    self._remove(waiting)

    @property
    def due_txs(self) -> int:
        """Transactions in the lane of drawn members."""
        return self._due.txs

    def has_ready(self, next_nonce: NextNonce) -> bool:
        """Whether a block could take any transaction now."""
        return any(next_nonce(sender) in waiting for sender, waiting in self._by_sender.items())

    # -- adding -------------------------------------------------------------------------------------------------------

    def _check_account(self, of_sender: dict[int, Waiting], new: Waiting) -> None:
        if new.checked.nonce in of_sender:
            return
        alike = sum(1 for waiting in of_sender.values() if waiting.checked.is_due == new.checked.is_due)
        limit = MAX_DUE_PER_ACCOUNT if new.checked.is_due else self._limits.max_per_account
        if alike >= limit:
            lane = "due transactions" if new.checked.is_due else "transactions"
            raise Refused("account-limit", f"{alike} {lane} of this account wait, at most {limit} may")

    def _check_replacement(self, old: Waiting, new: Waiting) -> None:
        if old.checked.is_due:
            if _is_same_duty(old.checked, new.checked) and new.checked.nonce < old.checked.nonce:
                return  # the old one waits behind a nonce that may never come
            raise Refused(
                "nonce-taken", f"the {old.checked.kind} with nonce {old.checked.nonce} waits already and is due: wait"
            )
        needed = -(-old.checked.fee_uflk * REPLACEMENT_PERCENT // 100)
        if new.checked.fee_uflk < max(needed, 1) and not new.checked.is_due:
            raise Refused(
                "nonce-taken",
                f"another transaction with nonce {old.checked.nonce} waits with a fee of {old.checked.fee_uflk} uflk; "
                f"replacing it takes {needed} uflk",
            )

    def _make_room(self, new: Waiting) -> None:
        """Evict whoever has less claim to its lane, until `new` fits; refuses, evicting nobody, when nothing helps."""
        lane = self._due if new.checked.is_due else self._paying
        eviction = self._due_eviction if new.checked.is_due else self._eviction
        victims: list[Waiting] = []
        while not _fits(lane, new, victims):
            victim = self._pop_weakest(eviction, new)
            if victim is None:
                for kept in victims:
                    heapq.heappush(eviction, kept.claim)
                raise _full(lane)
            victims.append(victim)
        for victim in victims:
            self._remove(victim)

    def _pop_weakest(self, eviction: list[tuple[int, int, bytes]], new: Waiting) -> Waiting | None:
        """The held transaction of the new one's lane with the least claim, if less than its, off the eviction heap."""
        while eviction:
            strength, _, tx_hash = eviction[0]
            waiting = self._by_hash.get(tx_hash)
            if waiting is None or waiting.checked.is_due != new.checked.is_due:
                heapq.heappop(eviction)
                continue
            if strength >= new.claim[0]:
                return None
            heapq.heappop(eviction)
            return waiting
        return None

    def _insert(self, new: Waiting) -> None:
        checked = new.checked
        lane = self._due if checked.is_due else self._paying
        lane.txs += 1
        lane.size_bytes += checked.size_bytes
        self._by_hash[checked.hash] = new
        self._by_sender.setdefault(checked.sender, {})[checked.nonce] = new
        heapq.heappush(self._expiry, (checked.expires_ms, checked.hash))
        heapq.heappush(self._due_eviction if checked.is_due else self._eviction, new.claim)
        self._trim_heaps()

    def _remove(self, old: Waiting) -> None:
        checked = old.checked
        lane = self._due if checked.is_due else self._paying
        lane.txs -= 1
        lane.size_bytes -= checked.size_bytes
        del self._by_hash[checked.hash]
        of_sender = self._by_sender[checked.sender]
        del of_sender[checked.nonce]
        if not of_sender:
            del self._by_sender[checked.sender]

    def _trim_heaps(self) -> None:
        """Stale entries never outnumber live ones by more than a constant."""
        bound = 2 * len(self._by_hash) + 1_024
        if len(self._eviction) > bound:
            self._eviction = [w.claim for w in self._by_hash.values() if not w.checked.is_due]
            heapq.heapify(self._eviction)
        if len(self._due_eviction) > bound:
            self._due_eviction = [w.claim for w in self._by_hash.values() if w.checked.is_due]
            heapq.heapify(self._due_eviction)
        if len(self._expiry) > bound:
            self._expiry = [(w.checked.expires_ms, w.checked.hash) for w in self._by_hash.values()]
            heapq.heapify(self._expiry)

    def _reap_paying(self, picked: Selection) -> None:
        heads: list[tuple[tuple[int, int], Waiting]] = []
        for sender, of_sender in self._by_sender.items():
            head = of_sender.get(picked.nonce_of(sender))
            if head is not None:
                heads.append((head.priority, head))
        heapq.heapify(heads)
        while heads and not picked.is_full:
            head = heapq.heappop(heads)[1]
            if picked.take(head):
                following = self._by_sender[head.checked.sender].get(head.checked.nonce + 1)
                if following is not None:
                    heapq.heappush(heads, (following.priority, following))


def _fits(lane: _Lane, new: Waiting, victims: list[Waiting]) -> bool:
    txs = lane.txs - len(victims)
    size_bytes = lane.size_bytes - sum(victim.checked.size_bytes for victim in victims)
    return txs < lane.max_txs and size_bytes + new.checked.size_bytes <= lane.max_bytes


def _is_same_duty(one: CheckedTx, other: CheckedTx) -> bool:
    return one.duty is not None and (one.kind, one.duty) == (other.kind, other.duty)


def _find_same_duty(of_sender: dict[int, Waiting], checked: CheckedTx) -> Waiting | None:
    return next((waiting for waiting in of_sender.values() if _is_same_duty(waiting.checked, checked)), None)


def _full(lane: _Lane) -> Refused:
    return Refused(
        "mempool-full",
        f"this lane of the mempool holds {lane.txs} transactions of {lane.size_bytes} bytes that pay at least as much, "
        "or are due no later: offer a higher fee or try again later",
    )
