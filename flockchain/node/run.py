"""`flockchain start`: one node with its real ports, from a home folder to a clean stop."""

import asyncio
import gc
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import structlog
import uvloop
from prometheus_client import CollectorRegistry

from api.admission import TxRates
from api.app import create_app
from api.node_view import MempoolView
from flockchain.errors import Fault, FlockchainError, Refused, UpgradeNeeded
from flockchain.files import explain
from flockchain.genesis import Genesis
from flockchain.node.api_server import ApiServer, LiveNode, Snapshot, make_peer_views
from flockchain.node.clock import SystemClock
from flockchain.node.config import Config, load_config, parse_trust
from flockchain.node.health import find_trouble
from flockchain.node.home import Home, HomeLock
from flockchain.node.key_file import load_key
from flockchain.node.logs import configure_logs
from flockchain.node.metrics import NodeMetrics
from flockchain.node.net.limits import NetworkLimits
from flockchain.node.net.network import TcpNetwork
from flockchain.node.node import Node, NodeOptions
from flockchain.node.opening import (
    leave_height_without_log,
    make_discovery,
    make_limits,
    open_signer,
    open_store,
    read_genesis,
    read_passphrase,
)
from flockchain.node.ports import NetworkEvent, PeerConnected
from flockchain.node.restore import restore
from flockchain.node.snapshot_sync import Found, SnapshotSync
from flockchain.node.upkeep import Upkeep
from flockchain.node.wal import WriteAheadLog
from flockchain.store.blob_store import BlobStore
from flockchain.store.reader import Reader
from flockchain.store.snapshots import SnapshotFolder

log = structlog.get_logger()

UPGRADE_EXIT_CODE = 79
"""The first that sysexits.h leaves free: a supervisor must not start this software again."""
HALT_GRACE_S = 3.0
"""How long a node that must not go on helps its peers to the last block before the upgrade."""
SNAPSHOT_S = 0.25
YOUNG_CHAIN_MS = 60_000
"""After genesis: no chain is long by then, and the nodes of a new network do not wait for each other's answers."""
SWITCH_INTERVAL_S = 0.0005
"""How long the API's thread may hold the interpreter while the node's loop has something to do."""


def run_node(home_path: Path) -> int:
    """Run until SIGTERM or SIGINT.

    Exit code 0 after a clean stop, 1 when something needs a person, `UPGRADE_EXIT_CODE` when that is a new release.
    """
    home = Home(home_path.absolute())
    try:
        lock = HomeLock(home)
    except FlockchainError as error:
        print(f"flockchain: {error}", file=sys.stderr)
        return 1
    try:
        config = load_config(home.config)
        configure_logs(home.logs, config.log)
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        uvloop.run(_Runner(home, config).run())
    except UpgradeNeeded as error:
        log.error("upgrade-needed", reason=str(error))
        return UPGRADE_EXIT_CODE
    except FlockchainError as error:
        _say_why(home, error)
        return 1
    except OSError as error:  # of the loop itself; ports say what they met as a Fault
        _say_why(home, Fault(explain(home.path, error)))
        return 1
    finally:
        lock.release()
    return 0


def _say_why(home: Home, error: FlockchainError) -> None:
    """One line for the person who has to act: in the log, or on stderr where there is none yet."""
    if structlog.is_configured():
        log.error("stopped", reason=str(error))
    else:
        print(f"flockchain: {error}", file=sys.stderr)


class _Runner:
    """Owns the real ports of one node."""

    def __init__(self, home: Home, config: Config) -> None:
        self._home = home
        self._config = config
        self._failure: BaseException | None = None
        self._halt: UpgradeNeeded | None = None
        self._is_closed = False
        """Timers may still fire while the rest stops; the node is not to be called any more."""

    async def run(self) -> None:
        """Start everything, wait for a signal or a failure, stop everything in reverse order."""
        self._stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        genesis = read_genesis(self._home.genesis)
        gc.disable()  # over a million rows it takes more than half of the time of loading them
        self._snapshots = SnapshotFolder(self._home.snapshots)
        self._store = open_store(self._home, genesis, self._config.storage.retain_blocks)
        try:
            self._make_network(genesis)
            await self._join(genesis)
            if self._stopping.is_set():
                await self._network.stop()
            else:
                self._make_node(genesis)
                if self._node.halt is not None:
                    raise self._node.halt
                await self._serve()
        finally:
            self._end(self._store.close)
        reason = self._failure or self._halt
        if reason is not None:
            raise reason

    def _make_network(self, genesis: Genesis) -> None:
        config, home = self._config, self._home
        node_key = load_key(home.node_key, read_passphrase(config))
        self._signer = open_signer(config, home, genesis, self._store.height)
        self._is_network_started = False
        self._network = TcpNetwork(
            node_key,
            genesis.hash(),
            genesis.chain_id,
            config.p2p.listen,
            config.p2p.persistent_peers,
            NetworkLimits(max_inbound_peers=config.p2p.max_inbound, max_outbound_peers=config.p2p.max_outbound),
            self._on_network_event,
            make_discovery(config.p2p, home),
        )

    async def _join(self, genesis: Genesis) -> None:
        """A node without blocks begins from a snapshot where it can; see snapshot_sync.py."""
        self._receive: Callable[[NetworkEvent], None] = lambda event: None
        if self._store.height or not is_snapshot_wanted(self._config, genesis):
            return
        done: asyncio.Future[Found | None] = asyncio.get_running_loop().create_future()

        def on_done(found: Found | None) -> None:
            if not done.done():
                done.set_result(found)

        sync = SnapshotSync(
            genesis=genesis,
            trust=parse_trust(self._config.sync.trust),
            folder=self._home.joining,
            network=self._network,
            clock=SystemClock(self._guard),
            on_done=on_done,
        )
        self._receive = sync.handle
        await self._start_network()
        self._guard(sync.start)
        stopping = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait((done, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        found = done.result() if done.done() else None
        if found is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._restore, genesis, found)
        sync.discard()

    def _restore(self, genesis: Genesis, found: Found) -> None:
        """In a thread, meanwhile peers are kept. What was fetched is kept as a snapshot of our own."""
        height = found.snapshot.manifest.height
        try:
            restore(self._store, genesis, found.snapshot, found.state_root)
            self._snapshots.keep(found.snapshot.manifest, found.snapshot.head, found.snapshot.read_chunk)
        except Refused as refusal:  # every part was verified when it came
            log.error("snapshot-refused", height=height, reason=refusal.message, then="blocks are taken instead")
        else:
            log.info("snapshot-restored", height=height, state_root=found.state_root.hex())

    async def _start_network(self) -> None:
        if not self._is_network_started:
            self._is_network_started = True
            await self._network.start()

    def _make_node(self, genesis: Genesis) -> None:
        config, home = self._config, self._home
        self._snapshots.keep_newest(config.storage.keep_snapshots)
        self._store.snapshot_height = min(self._snapshots.heights(), default=None)
        self._blobs = BlobStore(home.blobs, limit_bytes=config.blobs.max_bytes)
        log_file = WriteAheadLog(home.wal)
        self._node = Node(
            clock=SystemClock(self._guard),
            network=self._network,
            store=self._store,
            signer=self._signer,
            blobs=self._blobs,
            wal=log_file,
            options=NodeOptions(make_limits(config), config.blobs.replicate),
            snapshots=self._snapshots,
        )
        self._receive = self._node.handle
        if self._node.ledger.tree.root != self._store.state_root():
            raise Fault(
                f"{home.chain}: the rows do not have the state root that was stored with block {self._store.height}: "
                "the disk changed them. Keep signer_state.json, move the rest of `data` away, and start: the node "
                "syncs from its peers"
            )
        if self._signer is not None:
            leave_height_without_log(home, self._signer, log_file, self._node.ledger)
        gc.freeze()  # the state is long-lived: a full collection over a million rows would pause for seconds
        gc.enable()

    async def _serve(self) -> None:
        node, loop = self._node, asyncio.get_running_loop()
        view = LiveNode(node, loop, self._guard, self._signer.address if self._signer else None)
        api = self._start_api(view) if self._config.api.enabled else None
        upkeep = Upkeep(self._store, self._snapshots, self._config.storage, self._home.chain)
        node.listeners.append(upkeep.on_block)
        if self._signer is not None and self._is_member():
            _ = self._signer.beacon  # a third of a second, before others wait for our proposal
        await self._start_network()
        log.info(
            "started",
            chain=node.ledger.chain.chain_id,
            height=node.ledger.height,
            p2p=self._network.listen_port,
            api=api.port if api else None,
        )
        self._guard(node.start)
        for peer in self._network.peers():
            self._on_network_event(PeerConnected(peer))  # those who came while we joined
        try:
            while not self._stopping.is_set():
                view.snapshot = self._take_snapshot()
                self._stop_at_upgrade(loop)
                try:
                    await asyncio.wait_for(self._stopping.wait(), SNAPSHOT_S)
                except TimeoutError:
                    pass
        finally:
            log.info("stopping", height=node.ledger.height)
            await self._network.stop()
            self._is_closed = True
            self._end(node.stop)
            if api is not None:
                await loop.run_in_executor(None, api.stop)

    def _stop_at_upgrade(self, loop: asyncio.AbstractEventLoop) -> None:
        """Stop some seconds after the last block that this software may decide."""
        if self._halt is None and self._node.halt is not None:
            self._halt = self._node.halt
            loop.call_later(HALT_GRACE_S, self._stopping.set)

    def _start_api(self, view: LiveNode) -> ApiServer:
        reader = Reader(self._home.chain)
        registry = CollectorRegistry()
        self._node.listeners.append(NodeMetrics(registry).on_block)
        config = self._config.api
        rates = TxRates(config.client_txs_per_s, config.total_txs_per_s)
        server = ApiServer(
            config.listen, view, lambda: create_app(reader, view, self._blobs, registry=registry, rates=rates)
        )
        self._node.listeners.append(server.publish)
        server.start()
        return server

    # -- what the loop calls ------------------------------------------------------------------------------------------

    def _on_network_event(self, event: NetworkEvent) -> None:
        self._guard(lambda: self._receive(event))

    def _guard(self, action: Callable[[], None]) -> None:
        """Run the node's code; an error that is not a peer's fault stops the process before it does harm."""
        if self._failure is not None or self._is_closed:
            return
        try:
            action()
        except Exception as error:
            self._failure = error if isinstance(error, FlockchainError) else Fault(f"internal error: {error!r}")
            log.critical("failed", error=repr(error), exc_info=not isinstance(error, FlockchainError))
            self._stopping.set()

    def _end(self, close: Callable[[], None]) -> None:
        """Close a part; what fails now follows from what failed first, and must not take its place."""
        try:
            close()
        except FlockchainError as error:
            log.warning("while-stopping", reason=str(error))
            self._failure = self._failure or error

    def _is_member(self) -> bool:
        ledger = self._node.ledger
        assert self._signer is not None
        return any(member.address == self._signer.address for member in ledger.members(ledger.height + 1))

    def _take_snapshot(self) -> Snapshot:
        node, limits = self._node, self._config.mempool
        statuses = node.gossip.statuses
        peers = make_peer_views(
            self._network.peer_infos(), lambda peer: statuses[peer].decided_height if peer in statuses else 0
        )
        mempool = MempoolView(
            len(node.mempool), node.mempool.due_txs, node.mempool.size_bytes, limits.max_txs, limits.max_bytes
        )
        now_ms = time.time_ns() // 1_000_000
        return Snapshot(node.is_catching_up, peers, mempool, find_trouble(node, len(peers), now_ms))


def is_snapshot_wanted(config: Config, genesis: Genesis) -> bool:
    """Whether a node without blocks should ask for a snapshot: not alone, nor on a chain that has just begun."""
    has_peers = bool(config.p2p.persistent_peers or config.p2p.seeds)
    is_young = time.time_ns() // 1_000_000 < genesis.time_ms + YOUNG_CHAIN_MS
    return config.sync.from_snapshot and has_peers and not is_young
