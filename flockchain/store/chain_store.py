"""The one writer of `data/chain.sqlite`: a decided block becomes one transaction, whole or not at all.

Checkpoints (copying the write-ahead log into the file) make commits bimodal, so SQLite does none by itself: the node
calls `checkpoint()` off its loop when `is_checkpoint_due`, and a block does one only past a hard limit of the log.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import structlog
from sqlalchemy import Connection, func, inspect, select

from flockchain.codec import encode
from flockchain.state_tree import StateTree
from flockchain.store import restoring, retention
from flockchain.store.connection import LOG_BYTES, FileLock, checkpoint, faults, open_writer
from flockchain.store.migrations import migrate
from flockchain.store.reading import decode_row, read_block, read_commit, read_light_block
from flockchain.store.tables import SCHEMA_VERSION, blocks, meta, metadata, state_rows
from flockchain.store.writing import Outcome, write_block, write_changes, write_meta
from flockchain.types.chain import Block, Commit
from flockchain.types.light import LightBlock
from flockchain.types.rows import Chain, Row, compute_key, row_key
from flockchain.types.snapshot import KeyValue, SnapshotHead

log = structlog.get_logger()

MAX_LOG_BYTES = 256 * 2**20
"""Size of the log at which the next block waits for a checkpoint."""
_ROWS_AT_ONCE = 10_000


class ChainStore:
    """Opens or creates the file; raises `Fault` when it is locked, damaged, unreadable or of a newer version."""

    def __init__(self, path: Path, *, retain_blocks: int = 0) -> None:
        """`retain_blocks`: newest blocks that are kept, see retention.py; 0 keeps all."""
        self._path = path.absolute()
        self._retain_blocks = retain_blocks
        self.snapshot_height: int | None = None
        """Of the oldest snapshot that is kept: the blocks from it on stay."""
        with faults(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self._path.with_suffix(".lock"))
        self._engine = open_writer(self._path)
        try:
            with faults(self._path):
                self._check_schema()
                self._height = self._read_height()
        except BaseException:
            self._engine.dispose()
            self._lock.release()
            raise

    def close(self) -> None:
        """Fold the log into the file and let go of it."""
        try:
            with faults(self._path):
                self._engine.dispose()
                checkpoint(self._path, "TRUNCATE")
        finally:
            self._lock.release()

    # Reading back

    @property
    def height(self) -> int:
        """Of the newest persisted block; 0 before the first."""
        return self._height

    @property
    def first_height(self) -> int:
        """Lowest height whose block is held; 0 before the first block."""
        with faults(self._path), self._engine.begin() as connection:
            return connection.scalar(select(func.min(blocks.c.height))) or 0

    def light_block(self, height: int) -> LightBlock | None:
        """What a light client verifies of this height; None when this file does not hold it."""
        with faults(self._path), self._engine.begin() as connection:
            return read_light_block(connection, height)

    @property
    def genesis_bytes(self) -> bytes | None:
        """As given to `initialize`; None for a new file."""
        with faults(self._path), self._engine.begin() as connection:
            value: bytes | None = connection.scalar(select(meta.c.value).where(meta.c.name == "genesis"))
            return value

    def load_rows(self) -> Iterator[Row]:
        """Every row of the state after block `height`, in key order."""
        query = select(state_rows.c.key, state_rows.c.value).order_by(state_rows.c.key)
        with faults(self._path), self._engine.begin() as connection:
            for key, value in connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(query):
                yield decode_row(key, value)

    def block(self, height: int) -> Block | None:
        with faults(self._path), self._engine.begin() as connection:
            return read_block(connection, height)

    def commit(self, height: int) -> Commit | None:
        """The certificate that decided the block of this height."""
        with faults(self._path), self._engine.begin() as connection:
            return read_commit(connection, height)

    def state_root(self) -> bytes:
        """State root after block `height`, as persisted with it."""
        query = select(blocks.c.state_root).where(blocks.c.height == self._height)
        if self._height == 0:
            query = select(meta.c.value).where(meta.c.name == "genesis_state_root")
        with faults(self._path), self._engine.begin() as connection:
            root: bytes | None = connection.scalar(query)
        assert root is not None, "initialize() comes first"
        return root

    # Writing

    def initialize(self, genesis_bytes: bytes, rows: Iterable[Row]) -> None:
        """Write the state at height 0; only into a file that has none."""
        assert self.genesis_bytes is None, "a chain is initialized once"
        assert self._height == 0
        write_set = dict(sorted((row_key(row), row) for row in rows))  # in key order: appends to the table
        tree = StateTree()
        tree.update({key: encode(row) for key, row in write_set.items()})
        with faults(self._path), self._engine.begin() as connection:
            write_meta(connection, "genesis", genesis_bytes)
            write_meta(connection, "genesis_state_root", tree.root)
            write_changes(connection, write_set)

    def persist_block(self, block: Block, commit: Commit, outcome: Outcome) -> None:
        """One transaction: the block, its certificate, results, receipts, changed rows and roots."""
        self.persist_blocks([(block, commit, outcome)])

    def persist_blocks(self, decided: Sequence[tuple[Block, Commit, Outcome]]) -> None:
        """Consecutive decided blocks in one transaction: one fsync for all, for catching up."""
        height = self._height
        with faults(self._path):
            if self.log_bytes > MAX_LOG_BYTES:
                checkpoint(self._path, "RESTART")
            with self._engine.begin() as connection:
                for block, commit, outcome in decided:
                    assert block.height == height + 1, f"block {block.height} does not follow {height}"
                    assert commit.height == block.height
                    assert commit.block_id == block.block_id()
                    assert len(outcome.results) == len(block.txs)
                    write_block(connection, block, commit, outcome)
                    height = block.height
                if self._retain_blocks:
                    self._prune(connection, decided)
        self._height = height

    def restore(
        self,
        genesis_bytes: bytes,
        genesis_state_root: bytes,
        head: SnapshotHead,
        outcome: Outcome,
        rows: Iterable[KeyValue],
    ) -> None:
        """Go on from a snapshot, in one transaction; only in a file without blocks. See `restoring.py`."""
        assert self._height == 0, "a snapshot is restored into an empty file"
        with faults(self._path):
            with self._engine.begin() as connection:
                restoring.restore_snapshot(connection, genesis_bytes, genesis_state_root, head, outcome, rows)
            checkpoint(self._path, "TRUNCATE")
        self._height = head.block.height

    def roll_back(self, height: int, rows: Iterable[Row]) -> None:
        """Forget the blocks above `height`; `rows` are the state after it. One transaction."""
        assert 0 < height < self._height
        with faults(self._path):
            with self._engine.begin() as connection:
                restoring.roll_back(connection, height, rows)
            checkpoint(self._path, "TRUNCATE")
        self._height = height

    def _prune(self, connection: Connection, decided: Sequence[tuple[Block, Commit, Outcome]]) -> None:
        chain = decided[-1][2].write_set[compute_key(Chain)]
        assert isinstance(chain, Chain), "every block changes it"
        retention.prune_step(connection, chain, self._retain_blocks, self.snapshot_height, len(decided))

    # The log

    @property
    def log_bytes(self) -> int:
        """Size of the write-ahead log file."""
        try:
            return self._path.with_name(self._path.name + "-wal").stat().st_size
        except FileNotFoundError:
            return 0

    @property
    def is_checkpoint_due(self) -> bool:
        return self.log_bytes > LOG_BYTES

    def checkpoint(self) -> None:
        """Copy what the log holds into the file. Safe on another thread: it blocks neither the writer nor a reader.

        The log begins anew with the first block after a checkpoint that caught up with the writer.
        """
        with faults(self._path):
            checkpoint(self._path, "PASSIVE")

    # Opening

    def _check_schema(self) -> None:
        with self._engine.begin() as connection:
            if inspect(connection).has_table(meta.name):
                found, now = migrate(connection, self._path)
                if found != now:
                    log.info("migrated", file=str(self._path), schema_before=found, schema_now=now)
            else:
                metadata.create_all(connection)
                write_meta(connection, "schema_version", str(SCHEMA_VERSION).encode())

    def _read_height(self) -> int:
        with self._engine.begin() as connection:
            return connection.scalar(select(func.max(blocks.c.height))) or 0
