"""A validator's process over real files, in virtual time, put together as `flockchain/node/run.py` does.

Log, signer, store and blob store are the real ones. The network port writes down every signature that leaves.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from flockchain.codec import encode
from flockchain.errors import Fault
from flockchain.execution.balances import get_account
from flockchain.execution.beacon import BeaconChain
from flockchain.files import disk_faults
from flockchain.genesis import load_genesis, save_genesis
from flockchain.node.home import Home, HomeLock, create_home
from flockchain.node.key_file import load_key
from flockchain.node.messages import Decision, ProposalMessage, VoteMessage, decode_message
from flockchain.node.node import Node
from flockchain.node.opening import open_store
from flockchain.node.ports import Channel, PeerId
from flockchain.node.signer import PersistedSigner
from flockchain.node.wal import WriteAheadLog
from flockchain.store.blob_store import BlobStore
from flockchain.types.chain import PRECOMMIT, VoteBody
from flockchain.types.rows import Account
from tests.support.ledger import make_address, make_beacon_chain, make_genesis, make_key
from tests.support.sim_clock import SimClock, SimWorld
from tests.support.sim_network import SimNet, SimNetwork

from .disk import Death, Disk

NAME = "val0"
ADDRESS = make_address(NAME)
PEER_ID = make_address("node0")
BLOB_LIMIT_BYTES = 2**20


def make_home(folder: Path, validators: int = 1) -> Home:
    """The files of a validator that has never been started."""
    home = create_home(folder, validator_key=make_key(NAME), node_key=make_key("node0"))
    save_genesis(make_genesis(validators=validators), home.genesis)
    return home


@contextmanager
def quiet() -> Iterator[None]:
    """Thousands of lives log nothing."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)


@dataclass
class Signatures:
    """Every signature of our key that left the process, over all its lives."""

    values: dict[tuple[int, int, int], bytes] = field(default_factory=dict)
    """(height, round, step) -> what was signed there."""
    doubles: list[str] = field(default_factory=list)

    def note(self, channel: Channel, data: bytes) -> None:
        if channel not in (Channel.CONSENSUS, Channel.SYNC):
            return
        match decode_message(channel, data):
            case VoteMessage(votes):
                for vote in votes:
                    if vote.validator == ADDRESS:
                        self._add((vote.body.height, vote.body.round, vote.body.kind), encode(vote.body))
            case ProposalMessage(proposal=proposal):
                if proposal.proposer == ADDRESS:
                    self._add((proposal.body.height, proposal.body.round, 0), encode(proposal.body))
            case Decision(commit=commit):
                if any(signature.validator == ADDRESS for signature in commit.signatures):
                    body = VoteBody(PRECOMMIT, commit.height, commit.round, commit.block_id)
                    self._add((commit.height, commit.round, PRECOMMIT), encode(body))

    def _add(self, slot: tuple[int, int, int], value: bytes) -> None:
        if self.values.setdefault(slot, value) != value:
            self.doubles.append(f"two signatures at height {slot[0]}, round {slot[1]}, step {slot[2]}")


class _Network(SimNetwork):
    """Writes down what leaves; from a dead process nothing does."""

    def __init__(self, life: "Life", net: SimNet) -> None:
        super().__init__(net, PEER_ID)
        self._life = life

    def send(self, peer: PeerId, channel: Channel, message: bytes) -> bool:
        if not self._life.is_running:
            return False
        self._life.signatures.note(channel, message)
        return super().send(peer, channel, message)

    def broadcast(self, channel: Channel, message: bytes, except_peer: PeerId | None = None) -> None:
        if self._life.is_running:
            self._life.signatures.note(channel, message)
            super().broadcast(channel, message, except_peer)


class _Clock(SimClock):
    def __init__(self, life: "Life", world: SimWorld) -> None:
        super().__init__(world)
        self._life = life

    def call_later(self, delay_ms: int, action: Callable[[], None]) -> Callable[[], None]:
        return super().call_later(delay_ms, lambda: self._life.guard(action))


class Life:
    """From one start of the process to its end. What ends it early is in `ended_by`: a `Fault`, or its `Death`."""

    beacon: BeaconChain = make_beacon_chain(NAME)

    def __init__(self, disk: Disk, net: SimNet, signatures: Signatures) -> None:
        self.signatures = signatures
        self.ended_by: Fault | Death | None = None
        self.disk = disk
        self._net = net
        self._clock = _Clock(self, net.world)
        self._network: _Network | None = None
        self._lock: HomeLock | None = None
        self._store = None
        self.node: Node | None = None

    def start(self) -> float:
        """Returns how many seconds it took until the node was ready for events."""
        begin = time.perf_counter()
        self.guard(self._start)
        return time.perf_counter() - begin

    def _start(self) -> None:
        home = Home(self.disk.root)
        self._lock = HomeLock(home)
        with disk_faults(home.genesis):
            genesis = load_genesis(home.genesis)
        self.store = open_store(home, genesis)
        signer = PersistedSigner(load_key(home.validator_key), home.signer_state, genesis.hash())
        signer.__dict__["beacon"] = self.beacon  # computed once for thousands of lives
        self.blobs = BlobStore(home.blobs, limit_bytes=BLOB_LIMIT_BYTES)
        self._network = _Network(self, self._net)
        self.node = Node(
            clock=self._clock,
            network=self._network,
            store=self.store,
            signer=signer,
            blobs=self.blobs,
            wal=WriteAheadLog(home.wal),
        )
        node = self.node
        self._network.handler = lambda event: self.guard(lambda: node.handle(event))
        node.start()

    @property
    def is_running(self) -> bool:
        return self.ended_by is None and not self.disk.is_dead

    def guard(self, action: Callable[[], object]) -> None:
        """As the runner of a real process: what is no peer's fault ends it."""
        if not self.is_running:
            return
        try:
            action()
        except (Fault, Death) as end:
            self.ended_by = end
        if self.disk.is_dead:
            self.ended_by = Death()

    @property
    def height(self) -> int:
        return self.node.ledger.height if self.node is not None and self.is_running else 0

    @property
    def state_root(self) -> bytes:
        return self.node.ledger.tree.root if self.node is not None else b""

    def accounts(self, *names: str) -> tuple[Account, ...]:
        if self.node is None:
            return ()
        return tuple(get_account(self.node.ledger.state, make_address(name)) for name in names)

    def nonce(self, name: str) -> int:
        return self.accounts(name)[0].nonce

    def end(self) -> list[Fault]:
        """Stop as the process does, by itself or by a signal; returns what failed while stopping."""
        self._clock.stop()
        if self._network is not None:
            self._network.stop()
        faults: list[Fault] = []
        for close in (self.node.stop if self.node else None, getattr(self, "store", None) and self.store.close):
            try:
                if close is not None:
                    close()
            except (Fault, Death) as end:
                if isinstance(end, Fault) and not self.disk.is_dead:
                    faults.append(end)
        self.ended_by = self.ended_by or Death()
        return faults
