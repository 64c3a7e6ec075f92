"""Stored blocks executed again, from genesis or from a snapshot: the first difference is named, and nothing after it.

`verify` judges everything that is stored; this answers one question fast: do these blocks lead to these roots? It
also gives the state at a lower height, for `flockchain rollback` and `flockchain export --height`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flockchain.errors import Refused
from flockchain.execution.block import check_block, execute_block, get_validators
from flockchain.execution.commits import check_commit
from flockchain.execution.genesis import build_state, load_state
from flockchain.execution.state import State
from flockchain.execution.upgrade import find_upgrade_needed, get_supported_versions
from flockchain.genesis import Genesis
from flockchain.state_chunks import check_chunk
from flockchain.state_tree import StateTree
from flockchain.store.reading import decode_row
from flockchain.store.records import Records, RecordSnapshot, read_head
from flockchain.store.snapshots import SnapshotFolder
from flockchain.types.chain import EMPTY_COMMIT, Commit

Progress = Callable[[str, int, int], None]
BLOCKS_AT_ONCE = 1_000
"""Read in one snapshot of the file: a running node can fold its log in between."""


class Differs(Refused):
    """A stored block does not lead where the stored chain says."""

    def __init__(self, height: int, what: str) -> None:
        super().__init__("replay-differs", f"block {height}: {what}")
        self.height = height


@dataclass(slots=True)
class Reexecution:
    """The state after `height` blocks, by our own computation."""

    genesis_hash: bytes
    from_height: int
    height: int
    state: State
    tree: StateTree
    last_commit: Commit

    def step(self, stored: RecordSnapshot) -> None:
        """Execute the next block; raises `Differs`, or `UpgradeNeeded` where this software lacks its rules."""
        height = self.height + 1
        needed = find_upgrade_needed(self.state, get_supported_versions())
        if needed is not None:
            raise needed
        try:
            head = read_head(stored, height)
            check_block(self.state, head.block, known_commit=self.last_commit)
            members = get_validators(self.state, height)
            check_commit(head.commit, members, height, head.block.block_id(), self.genesis_hash)
        except Refused as refusal:
            raise Differs(height, refusal.message) from None
        outcome = execute_block(self.state, self.tree, head.block)
        record = stored.block(height)
        assert record is not None, "read_head has found it"
        if outcome.results != head.results or outcome.receipts != head.receipts or outcome.results_root != record[6]:
            raise Differs(height, f"execution leaves other results than are stored ({outcome.results_root.hex()})")
        if outcome.state_root != record[7]:
            raise Differs(height, f"the state root is {outcome.state_root.hex()}, stored is {record[7].hex()}")
        self.height, self.last_commit = height, head.commit


def reexecute(
    home: Path,
    genesis: Genesis,
    *,
    to: int | None = None,
    from_genesis: bool = False,
    progress: Progress = lambda what, done, of: None,
) -> Reexecution:
    """The state after block `to` (default: the newest), from the nearest base below; raises `Refused`, `Differs`."""
    records = Records(home / "data" / "chain.sqlite")
    try:
        with records.snapshot() as stored:
            tip = stored.tip()
            if not 1 <= (to or tip) <= tip:
                raise Refused("no-block", f"height {to} is not in this chain: its newest block is {tip}")
            run = find_base(home, genesis, stored, to or tip, from_genesis=from_genesis)
        end = to or tip
        while run.height < end:
            with records.snapshot() as stored:
                for _ in range(min(BLOCKS_AT_ONCE, end - run.height)):
                    run.step(stored)
                    progress("blocks", run.height - run.from_height, end - run.from_height)
        return run
    finally:
        records.close()


def find_base(
    home: Path, genesis: Genesis, stored: RecordSnapshot, to: int, *, from_genesis: bool = False, oldest: bool = False
) -> Reexecution:
    """The newest (or oldest) snapshot at or below `to` whose block is held, else genesis; raises `Refused`."""
    folder, first = SnapshotFolder(home / "data" / "snapshots"), stored.first()
    usable = [height for height in folder.heights() if first <= height <= to]
    if usable and not from_genesis:
        return _load_snapshot(folder, usable[0] if oldest else usable[-1], genesis, stored)
    if first > 1:
        raise Refused(
            "no-base",
            f"blocks 1 to {first - 1} are not held and no snapshot at or below height {to} is: nothing to execute from",
        )
    state, tree = load_state(build_state(genesis).rows())
    return Reexecution(genesis.hash(), 0, 0, state, tree, EMPTY_COMMIT)


def _load_snapshot(folder: SnapshotFolder, height: int, genesis: Genesis, stored: RecordSnapshot) -> Reexecution:
    manifest = folder.manifest(height)
    rows = (
        decode_row(key, value)
        for index in range(len(manifest.tops))
        for key, value in check_chunk(manifest, index, folder.chunk(height, index))
    )
    state, tree = load_state(rows)
    if tree.root != stored.state_root(height):
        raise Differs(height, f"the snapshot has the state root {tree.root.hex()}, stored is another")
    return Reexecution(genesis.hash(), height, height, state, tree, folder.head(height).commit)
