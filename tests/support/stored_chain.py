"""A node's home with a real chain of transfers in it, made by hand: as if its node had just stopped."""

from collections.abc import Iterable
from pathlib import Path

from flockchain.codec import encode
from flockchain.execution.block import BlockOutcome
from flockchain.execution.genesis import build_state
from flockchain.genesis import Genesis, save_genesis
from flockchain.node.config import Config
from flockchain.node.home import Home, create_home
from flockchain.store.chain_store import ChainStore
from flockchain.store.snapshots import SnapshotFolder
from flockchain.txs import transfer
from flockchain.types.chain import Block

from .ledger import Ledger, make_address, make_genesis, make_key


class StoredChain(Ledger):
    """Every decided block is persisted in `home`, whose validator is `val0`."""

    def __init__(self, path: Path, genesis: Genesis | None = None, *, retain_blocks: int = 0) -> None:
        super().__init__(genesis or make_genesis(), check_all=False)
        self.home: Home = create_home(path, config=Config(), validator_key=make_key("val0"))
        save_genesis(self.genesis, self.home.genesis)
        self.store = ChainStore(self.home.chain, retain_blocks=retain_blocks)
        self.store.initialize(encode(self.genesis), build_state(self.genesis).rows())
        self.snapshots = SnapshotFolder(self.home.snapshots)
        self.roots = [self.state.root]
        """State root after each height."""

    def decide(self, block: Block, *, absent: Iterable[str] = ()) -> BlockOutcome:
        outcome = super().decide(block, absent=absent)
        self.store.persist_block(block, self.commits[-1], outcome)
        self.roots.append(outcome.state_root)
        return outcome

    def grow(self, blocks: int, *, txs: int = 1, elapsed_ms: int = 1_000) -> None:
        """So many blocks with `txs` transfers to new accounts in each."""
        for _ in range(blocks):
            height = self.chain.height + 1
            bodies = [transfer.Body(make_address(f"{height}-{i}"), 1, "") for i in range(txs)]
            self.produce(*(self.tx("alice", body) for body in bodies), elapsed_ms=elapsed_ms)
