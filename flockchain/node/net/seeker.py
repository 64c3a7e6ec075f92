"""Finds peers beside the persistent ones: asks those it has for contacts, dials some, remembers how that went."""

import asyncio
import logging
import random
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from flockchain.codec import encode
from flockchain.errors import FlockchainError, Refused
from flockchain.node.net.address_book import AddressBook
from flockchain.node.net.book_file import format_book, load_book, save_book
from flockchain.node.net.connection import Connection
from flockchain.node.net.contacts import Contact, Scope, group_of, make_contact, scope_of
from flockchain.node.net.dialer import dial
from flockchain.node.net.exchange import Contacts, Exchange, count_told
from flockchain.node.net.framing import EXCHANGE_CHANNEL
from flockchain.node.net.limits import NetworkLimits
from flockchain.node.net.peers import PeerAddress, parse_peer_address
from flockchain.node.ports import PeerId

log = logging.getLogger(__name__)

MAX_DIALS = 4
"""Under way at once."""
BUSY_CODES = frozenset({"too-many-peers", "busy", "too-many-connections", "stopping"})
"""Refusals of a peer that is well and has no room for us."""
HARMLESS_CODES = frozenset({"duplicate", "replaced", "address-checked"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """How a node finds peers by itself."""

    book_path: Path | None
    """None: the book is not kept."""
    seeds: Sequence[str] = ()
    """Dialled when the book names nobody: "host:port" or "flk1...@host:port"."""
    private_peers: Collection[PeerId] = ()
    """Never told to others."""
    external_address: str = ""
    """"IP:port" that others should dial, where it differs from what they see."""
    target_outbound: int = 8


class Company(Protocol):
    """What the seeker asks of its network."""

    @property
    def id(self) -> PeerId: ...
    def live_connections(self) -> list[Connection]: ...
    def named_peers(self) -> set[PeerId]:
        """Of persistent peers: their dialers look after them."""

    def named_addresses(self) -> set[tuple[str, int]]: ...
    async def connect(self, target: PeerAddress) -> Connection: ...


class Seeker:
    """Told by the network of connections that come up, speak and end; dials through it."""

    def __init__(self, network: Company, discovery: Discovery, limits: NetworkLimits, max_own: int) -> None:
        """`max_own`: most outbound connections beside the persistent peers'."""
        self._network = network
        self._discovery = discovery
        self._limits = limits
        self._max_own = max_own
        self._rng = random.SystemRandom()
        self._own: tuple[Contact, ...] = ()
        if discovery.external_address:
            external = parse_peer_address(discovery.external_address)
            self._own = (make_contact(network.id, external.host, external.port),)
        self._seeds = [parse_peer_address(text) for text in discovery.seeds]
        path, own = discovery.book_path, network.id
        self.book = (
            AddressBook(own, self._rng.randbytes(32), self._rng) if path is None else load_book(path, own, self._rng)
        )
        self._exchanges: dict[Connection, Exchange] = {}
        self._dials: dict[asyncio.Task[None], PeerAddress] = {}
        """One for each dial under way and each connection that came of one."""
        self._checks: set[PeerAddress] = set()
        """Dialled only to see whether they answer."""
        self._saving: asyncio.Future[None] | None = None
        """The last writing of the book, which goes on in its thread though the task that waits for it is cancelled."""
        self._next_seed_s = self._next_check_s = self._next_save_s = 0.0

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        self._next_check_s = loop.time() + self._limits.check_interval_s
        self._next_save_s = loop.time() + self._limits.save_book_s
        while True:
            now_s = loop.time()
            self._ask_all(now_s)
            self._dial_missing(now_s)
            if self.book.is_changed and now_s >= self._next_save_s:
                self._next_save_s = now_s + self._limits.save_book_s
                await self._save()
            await asyncio.sleep(self._limits.seek_interval_s * self._rng.uniform(0.5, 1.0))

    async def stop(self) -> None:
        """End the dials and keep the book."""
        for task in list(self._dials):
            task.cancel()
        await asyncio.gather(*self._dials, return_exceptions=True)
        if self.book.is_changed:
            await self._save()

    # -- what the network tells ----------------------------------------------------------------------------------------

    def check_dialled(self, connection: Connection) -> None:
        """A peer that we dialled has proven its key; raises `Refused` when no more was wanted of it."""
        contact = _contact_of(connection)
        if contact is not None:
            self.book.note_success(contact, time.time())
        if connection.dialled in self._checks:
            raise Refused("address-checked", "this address was dialled only to see whether it answers: it does")

    def connection_up(self, connection: Connection) -> None:
        """Ask whom we dialled; note where who dialled us says to listen."""
        exchange = Exchange(
            connection.peer, is_outbound=connection.is_outbound, ask_interval_s=self._limits.ask_interval_s
        )
        self._exchanges[connection] = exchange
        if connection.is_outbound:
            self._ask(connection, exchange, asyncio.get_running_loop().time())
        elif connection.claims.listen_port:
            self._note(connection, connection.remote[0], min(connection.claims.listen_port, 65_535))

    def connection_down(self, connection: Connection) -> None:
        self._exchanges.pop(connection, None)

    def message_received(self, connection: Connection, data: bytes) -> None:
        """Raises `Refused` when the peer is at fault."""
        exchange = self._exchanges[connection]
        message = exchange.read(data, asyncio.get_running_loop().time())
        if isinstance(message, Contacts):
            for contact in message.contacts:
                self._add(contact, connection)
            return
        for contact in message.own:
            self._add(contact, connection)
        hidden = {*self._discovery.private_peers, connection.peer}
        told = self.book.sample(count_told(len(self.book)), hidden)
        connection.send(EXCHANGE_CHANNEL, encode(Contacts(told)))

    # -- asking and noting ---------------------------------------------------------------------------------------------

    def _ask_all(self, now_s: float) -> None:
        for connection, exchange in self._exchanges.items():
            self._ask(connection, exchange, now_s)

    def _ask(self, connection: Connection, exchange: Exchange, now_s: float) -> None:
        question = exchange.ask(now_s, self._own)
        if question is not None:
            connection.send(EXCHANGE_CHANNEL, question)

    def _note(self, connection: Connection, host: str, port: int) -> None:
        try:
            self._add(make_contact(connection.peer, host, port), connection)
        except Refused as refusal:
            log.debug("peer without an address of its own: %s", refusal.message)

    def _add(self, contact: Contact, source: Connection) -> None:
        source_ip = make_contact(source.peer, source.remote[0], 1).ip
        self.book.add(contact, source_ip)

    async def _save(self) -> None:
        """Off the loop, for it waits for the disk; a full disk costs the memory of addresses, not the node."""
        path = self._discovery.book_path
        if self._saving is not None:
            await asyncio.wait((self._saving,))  # two that write one file at a time would mix
        self.book.is_changed = False
        if path is None:
            return
        data = format_book(self.book)
        self._saving = asyncio.get_running_loop().run_in_executor(None, save_book, path, data)
        try:
            await asyncio.shield(self._saving)
        except FlockchainError as error:
            log.warning("the address book was not saved: %s", error)

    # -- dialling ------------------------------------------------------------------------------------------------------

    def _dial_missing(self, now_s: float) -> None:
        live = self._network.live_connections()
        pending = [target for target in self._dials.values() if not _is_live(target, live)]
        outbound = sum(connection.is_outbound for connection in live) + len(pending)
        room = min(self._discovery.target_outbound - outbound, self._max_own - len(self._dials))
        for _ in range(min(room, MAX_DIALS - len(pending))):
            contact = self._choose(live)
            if contact is None:
                self._dial_seed(live, now_s)
                return
            self._start(contact.address)
        if room <= 0 and now_s >= self._next_check_s and len(pending) < MAX_DIALS:
            self._next_check_s = now_s + self._limits.check_interval_s
            contact = self._choose(live, only_new=True)
            if contact is not None:
                self._checks.add(contact.address)
                self._start(contact.address)

    def _choose(self, live: list[Connection], *, only_new: bool = False) -> Contact | None:
        targets = list(self._dials.values())
        peers = {c.peer for c in live} | {t.peer for t in targets if t.peer} | self._network.named_peers()
        hosts = [c.remote[0] for c in live if c.is_outbound] + [target.host for target in targets]
        contact = self.book.choose(time.time(), peers, _groups_of(hosts), only_new=only_new)
        if contact is not None and (contact.address.host, contact.port) in self._network.named_addresses():
            self.book.note_busy(contact, time.time())  # a persistent peer that has not told its identity yet
            return None
        return contact

    def _dial_seed(self, live: list[Connection], now_s: float) -> None:
        """One seed at a time, seldom while anybody else is there to ask."""
        free = [seed for seed in self._seeds if seed not in self._dials.values() and not _is_live(seed, live)]
        if free and now_s >= self._next_seed_s:
            limits = self._limits
            self._next_seed_s = now_s + (limits.check_interval_s if live else limits.seed_interval_s)
            self._start(self._rng.choice(free))

    def _start(self, target: PeerAddress) -> None:
        task = asyncio.get_running_loop().create_task(self._dial(target))
        self._dials[task] = target
        task.add_done_callback(self._dials.pop)

    async def _dial(self, target: PeerAddress) -> None:
        """Dial once, stay while it lasts, and write down how it went."""
        try:
            connection, reason = await dial(self._network.connect, target, self._limits)
        finally:
            self._checks.discard(target)
        contact = None if target.peer is None else make_contact(target.peer, target.host, target.port)
        if contact is None or reason.code in HARMLESS_CODES:
            return
        if reason.code in BUSY_CODES:
            self.book.note_busy(contact, time.time())
        elif reason.code in ("wrong-identity", "self"):
            self.book.forget(contact)
        elif connection is None or not connection.was_stable(self._limits.stable_connection_s):
            self.book.note_failure(contact, time.time())


def _is_live(target: PeerAddress, live: list[Connection]) -> bool:
    return any(target in (c.dialled, PeerAddress(*c.remote, c.peer)) for c in live)


def _contact_of(connection: Connection) -> Contact | None:
    """Of a peer that we dialled: where it answered."""
    try:
        return make_contact(connection.peer, *connection.remote)
    except Refused:
        return None


def _groups_of(hosts: Collection[str]) -> set[bytes]:
    """Of the hosts that are public IPs: two connections into one such group are no two opinions."""
    found: set[bytes] = set()
    for host in hosts:
        try:
            ip = make_contact(bytes(20), host, 1).ip
        except Refused:
            continue
        if scope_of(ip) is Scope.WORLD:
            found.add(group_of(ip))
    return found
