"""What the chain's file needs while blocks come: SQLite's log folded into it, and snapshots kept of it.

Both run in threads, beside a node that goes on; of each there is one at a time.
"""

import asyncio
from pathlib import Path

import structlog

from flockchain.execution.block import BlockOutcome
from flockchain.node.config import StorageConfig
from flockchain.store.chain_store import ChainStore
from flockchain.store.snapshots import SnapshotFolder, SnapshotMaking
from flockchain.types.chain import Block

log = structlog.get_logger()


class Upkeep:
    """Told of every block, on the node's loop."""

    def __init__(self, store: ChainStore, snapshots: SnapshotFolder, config: StorageConfig, chain: Path) -> None:
        """`chain`: the file of the store."""
        self._store = store
        self._snapshots = snapshots
        self._config = config
        self._chain = chain
        self._is_checkpointing = False
        self._is_making_snapshot = False

    def on_block(self, block: Block, outcome: BlockOutcome) -> None:
        """Fold SQLite's log into its file when it has grown; keep a snapshot when one is due."""
        if self._store.is_checkpoint_due and not self._is_checkpointing:
            self._is_checkpointing = True
            task = asyncio.get_running_loop().run_in_executor(None, self._store.checkpoint)
            task.add_done_callback(self._end_checkpoint)
        interval = self._config.snapshot_interval_blocks
        is_newest = block.height == self._store.height  # none is made of a height that sync has passed
        if interval and block.height % interval == 0 and is_newest and not self._is_making_snapshot:
            self._is_making_snapshot = True
            making = self._snapshots.begin(self._chain)  # reads this very block, whatever follows
            made = asyncio.get_running_loop().run_in_executor(None, self._keep_snapshot, making)
            made.add_done_callback(self._end_snapshot)

    def _keep_snapshot(self, making: SnapshotMaking) -> int:
        """In a thread: the node goes on meanwhile. Returns the height of the oldest that is kept."""
        making.finish()
        self._snapshots.keep_newest(self._config.keep_snapshots)
        return min(self._snapshots.heights())

    def _end_snapshot(self, task: "asyncio.Future[int]") -> None:
        self._is_making_snapshot = False
        if task.exception() is not None:
            log.warning("snapshot-failed", reason=str(task.exception()))
        else:
            self._store.snapshot_height = task.result()
            log.info("snapshot-made", height=max(self._snapshots.heights()))

    def _end_checkpoint(self, task: "asyncio.Future[None]") -> None:
        self._is_checkpointing = False
        if task.exception() is not None:
            log.warning("checkpoint-failed", reason=str(task.exception()))
