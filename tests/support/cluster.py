"""Several real nodes over simulated ports, in virtual time."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from flockchain.execution.genesis import build_state
from flockchain.genesis import Genesis
from flockchain.node.node import Node, NodeOptions
from flockchain.node.wal import WriteAheadLog
from flockchain.txs import transfer

from .ledger import Ledger as TxMaker
from .ledger import make_address, make_beacon_chain, make_genesis, make_key
from .memory_ports import MemoryBlobs, MemorySigner, MemoryStore
from .sim_clock import START_MS, SimClock, SimWorld
from .sim_network import SimNet, SimNetwork


class Machine:
    """What survives a crash of one node (store, signer, blobs, log), and the node while it runs."""

    def __init__(self, cluster: "Cluster", index: int, *, is_validator: bool = True) -> None:
        name = f"val{index}"
        self.id = make_address(f"node{index}")
        self.name = name
        self.options: NodeOptions | None = None
        """Its own, where they differ from the cluster's; from the next start on."""
        self.store: Any = cluster.make_store(name)
        self.blobs = MemoryBlobs()
        self.signer = None
        if is_validator:
            self.signer = MemorySigner(make_key(name), cluster.genesis_hash, make_beacon_chain(name))
        self.skew_ms = 0
        """Of its clock, from its next start."""
        self._cluster = cluster
        self._wal_path = cluster.folder / name / "wal"
        self.node: Node | None = None

    def start(self) -> Node:
        assert self.node is None
        self.clock = SimClock(self._cluster.world, self.skew_ms)
        self.network = SimNetwork(self._cluster.net, self.id)
        self.node = Node(
            clock=self.clock,
            network=self.network,
            store=self.store,
            signer=self.signer,
            blobs=self.blobs,
            wal=WriteAheadLog(self._wal_path),
            options=self.options or self._cluster.options,
        )
        self.network.handler = self.node.handle
        self.node.start()
        return self.node

    def kill(self) -> None:
        """As kill -9: timers, links and memory are gone, files stay."""
        assert self.node is not None
        self.clock.stop()
        self.network.stop()
        self.node._wal.close()
        self.node = None

    @property
    def running(self) -> Node:
        assert self.node is not None
        return self.node

    @property
    def height(self) -> int:
        return self.store.height


class Cluster:
    """`validators` machines `val0` ..., plus `observers` without a key, all connected."""

    def __init__(
        self,
        folder: Path,
        *,
        validators: int = 4,
        observers: int = 0,
        seed: int = 1,
        loss: float = 0.0,
        genesis: Genesis | None = None,
        make_store: Callable[[str], Any] | None = None,
        start_ms: int = START_MS,
    ) -> None:
        """`make_store(name)`: what a machine begins with; default: the state at genesis, in memory."""
        self.folder = folder
        self.genesis = genesis or make_genesis(validators=validators)
        self.make_store = make_store or (lambda name: MemoryStore(build_state(self.genesis).rows()))
        self.genesis_hash = self.genesis.hash()
        self.options = NodeOptions()
        self.world = SimWorld(start_ms)
        self.net = SimNet(self.world, seed, loss=loss)
        self.machines = [Machine(self, i, is_validator=i < validators) for i in range(validators + observers)]
        self.txs = TxMaker(self.genesis)
        for machine in self.machines:
            machine.start()
        self.net.connect_all()

    def restart(self, machine: Machine) -> None:
        machine.start()
        for other in self.machines:
            if other is not machine and other.node is not None:
                self.net.connect(machine.id, other.id)

    def transfer(self, sender: str, to: str, amount_uflk: int) -> bytes:
        """Signed bytes with the sender's next nonce."""
        return self.txs.tx(
            sender, transfer.Body(make_address(to), amount_uflk, ""), expires_ms=self.world.now_ms + 600_000
        )

    def run_to(self, height: int, timeout_ms: int = 60_000) -> None:
        """Until every running node has decided `height`."""
        self.world.run_until(lambda: self.min_height() >= height, timeout_ms)

    def min_height(self) -> int:
        return min(machine.height for machine in self.machines if machine.node is not None)

    def check_agreement(self) -> None:
        """All state roots are equal at every height that two nodes share."""
        for height in range(max(machine.height for machine in self.machines)):
            roots = {m.store.state_roots[height] for m in self.machines if m.height > height}
            assert len(roots) == 1, f"state roots differ at height {height + 1}"
