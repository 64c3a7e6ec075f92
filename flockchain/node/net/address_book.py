"""Contacts that this node may dial: bounded, and so arranged that no one source can fill it (sans-I/O).

Two tables of buckets, as in Bitcoin's address manager and the counter-measures of Heilman and others, "Eclipse
Attacks on Bitcoin's Peer-to-Peer Network" (USENIX Security 2015), section 7:

    NEW     heard of, not verified. Which bucket follows from the source's group and the contact's, under a secret:
            all sources of one group reach NEW_BUCKETS_PER_SOURCE of NEW_BUCKETS
    TRIED   dialled by us, and the node key was proven. All contacts of one group reach TRIED_BUCKETS_PER_GROUP

A full bucket keeps what it has: newcomers only take the place of contacts that failed. To dial, a bucket is drawn
first and a contact of it second, so a source's chance is its share of buckets and not of contacts.
Times are seconds of the wall clock, for they are persisted.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from random import Random

from flockchain.crypto import tagged_hash
from flockchain.node.net.contacts import Contact, Scope, group_of, scope_of
from flockchain.node.ports import PeerId

NEW_BUCKETS = 64
NEW_BUCKETS_PER_SOURCE = 8
TRIED_BUCKETS = 32
TRIED_BUCKETS_PER_GROUP = 4
BUCKET_SIZE = 16
MAX_CONTACTS = (NEW_BUCKETS + TRIED_BUCKETS) * BUCKET_SIZE
NEW_FAILURES = 3
"""Fruitless dials after which a contact that never answered is forgotten."""
TRIED_FAILURES = 10
"""Of a contact that answered once; it is kept a week at least."""
KEEP_TRIED_S = 7 * 86_400
FIRST_RETRY_S = 10
MAX_RETRY_S = 3_600
BUCKET_TAG = "flockchain/address-bucket"


@dataclass(slots=True)
class Entry:
    """What is remembered of one contact."""

    contact: Contact
    source_group: bytes
    succeeded_s: float = 0.0
    """Last time that it proved its node key to us; 0: never, so it is NEW."""
    failures: int = 0
    """Since then."""
    retry_s: float = 0.0

    @property
    def is_tried(self) -> bool:
        return self.succeeded_s > 0


class AddressBook:
    """`add` what others say, `choose` whom to dial, tell how that went; `sample` answers those who ask."""

    def __init__(self, own: PeerId, secret: bytes, rng: Random) -> None:
        """`secret` decides the buckets: who does not know it cannot aim at one."""
        self.secret = secret
        self.is_changed = False
        """Since the owner last cleared it."""
        self._own = own
        self._rng = rng
        self._entries: dict[Contact, Entry] = {}
        self._new: list[list[Entry]] = [[] for _ in range(NEW_BUCKETS)]
        self._tried: list[list[Entry]] = [[] for _ in range(TRIED_BUCKETS)]

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, contact: Contact) -> bool:
        return contact in self._entries

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def add(self, contact: Contact, source_ip: bytes) -> bool:
        """Note what somebody at `source_ip` said; True when it was new and found a place.

        Addresses of one machine or one private network mean nothing to, and are not taken from, those outside.
        """
        if contact.peer == self._own or contact in self._entries or scope_of(contact.ip) < scope_of(source_ip):
            return False
        return self._place_new(Entry(contact, group_of(source_ip)))

    def note_success(self, contact: Contact, now_s: float) -> None:
        """We dialled it and it proved its key."""
        if contact.peer == self._own:
            return
        entry = self._entries.get(contact) or Entry(contact, group_of(contact.ip))
        if entry.is_tried:
            entry.succeeded_s, entry.failures, entry.retry_s = now_s, 0, 0.0
            self.is_changed = True
            return
        self._remove(entry)
        entry.succeeded_s, entry.failures, entry.retry_s = now_s, 0, 0.0
        bucket = self._tried_bucket(contact)
        if len(bucket) >= BUCKET_SIZE:
            oldest = min(bucket, key=lambda other: other.succeeded_s)
            self._remove(oldest)
            oldest.succeeded_s = 0.0
            self._place_new(oldest)
        self._insert(entry, bucket)

    def note_failure(self, contact: Contact, now_s: float) -> None:
        """We dialled it in vain: it waits ever longer for the next time, and is forgotten when it never answers."""
        entry = self._entries.get(contact)
        if entry is None:
            return
        entry.failures += 1
        delay_s = min(MAX_RETRY_S, FIRST_RETRY_S * 2 ** (entry.failures - 1))
        entry.retry_s = now_s + delay_s * self._rng.uniform(0.5, 1.0)
        self.is_changed = True
        if _is_bad(entry, now_s):
            self._remove(entry)

    def note_busy(self, contact: Contact, now_s: float) -> None:
        """It answered and could not take us: no failure, and no reason to ask again at once."""
        entry = self._entries.get(contact)
        if entry is not None:
            entry.retry_s = now_s + MAX_RETRY_S * self._rng.uniform(0.05, 0.1)

    def forget(self, contact: Contact) -> None:
        """Somebody else answered there."""
        entry = self._entries.get(contact)
        if entry is not None:
            self._remove(entry)

    def choose(
        self, now_s: float, peers: Collection[PeerId], groups: Collection[bytes], *, only_new: bool = False
    ) -> Contact | None:
        """A contact to dial now: none of `peers`, and of no group in `groups` (this machine's and private ones aside).

        NEW and TRIED have even chances, so that neither old friends nor rumours alone decide whom we know.
        """

        def is_eligible(entry: Entry) -> bool:
            contact = entry.contact
            is_apart = scope_of(contact.ip) < Scope.WORLD or group_of(contact.ip) not in groups
            return entry.retry_s <= now_s and contact.peer not in peers and is_apart

        tables = [self._new] if only_new else [self._new, self._tried]
        self._rng.shuffle(tables)
        for table in tables:
            contact = self._choose_from(table, is_eligible)
            if contact is not None:
                return contact
        return None

    def sample(self, count: int, hidden: Collection[PeerId]) -> tuple[Contact, ...]:
        """At most `count` contacts to tell others, without those of `hidden`."""
        shown = [contact for contact in self._entries if contact.peer not in hidden]
        return tuple(self._rng.sample(shown, min(count, len(shown))))

    def restore(self, entry: Entry) -> None:
        """Put back what a former run remembered, as far as there is room."""
        if entry.contact.peer == self._own or entry.contact in self._entries:
            return
        bucket = self._tried_bucket(entry.contact) if entry.is_tried else self._new_bucket(entry)
        if len(bucket) < BUCKET_SIZE:
            self._insert(entry, bucket)

    # -- buckets ------------------------------------------------------------------------------------------------------

    def _choose_from(self, table: list[list[Entry]], is_eligible: Callable[[Entry], bool]) -> Contact | None:
        buckets = [found for bucket in table if (found := [entry for entry in bucket if is_eligible(entry)])]
        return self._rng.choice(self._rng.choice(buckets)).contact if buckets else None

    def _place_new(self, entry: Entry) -> bool:
        bucket = self._new_bucket(entry)
        if len(bucket) >= BUCKET_SIZE:
            weakest = max(bucket, key=lambda other: other.failures)
            if weakest.failures <= entry.failures:
                return False
            self._remove(weakest)
        self._insert(entry, bucket)
        return True

    def _insert(self, entry: Entry, bucket: list[Entry]) -> None:
        assert len(bucket) < BUCKET_SIZE
        bucket.append(entry)
        self._entries[entry.contact] = entry
        self.is_changed = True

    def _remove(self, entry: Entry) -> None:
        if self._entries.pop(entry.contact, None) is not None:
            bucket = self._tried_bucket(entry.contact) if entry.is_tried else self._new_bucket(entry)
            bucket.remove(entry)
            self.is_changed = True

    def _new_bucket(self, entry: Entry) -> list[Entry]:
        source, target = entry.source_group, group_of(entry.contact.ip)
        slot = self._draw(NEW_BUCKETS_PER_SOURCE, b"new slot", source, target)
        return self._new[self._draw(NEW_BUCKETS, b"new", source, bytes([slot]))]

    def _tried_bucket(self, contact: Contact) -> list[Entry]:
        slot = self._draw(TRIED_BUCKETS_PER_GROUP, b"tried slot", contact.peer, contact.ip)
        return self._tried[self._draw(TRIED_BUCKETS, b"tried", group_of(contact.ip), bytes([slot]))]

    def _draw(self, count: int, *parts: bytes) -> int:
        return int.from_bytes(tagged_hash(BUCKET_TAG, (self.secret, *parts))[:8], "big") % count


def _is_bad(entry: Entry, now_s: float) -> bool:
    if not entry.is_tried:
        return entry.failures >= NEW_FAILURES
    return entry.failures >= TRIED_FAILURES and now_s - entry.succeeded_s > KEEP_TRIED_S
