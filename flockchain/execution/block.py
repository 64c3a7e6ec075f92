"""The block transition: what a decided block makes of the state. This file is the room's front door.

check_block(state, block)                     before voting for it
outcome = execute_block(state, tree, block)   once it is decided
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from flockchain.codec import encode
from flockchain.execution.beacon import process_beacon
from flockchain.execution.context import Context
from flockchain.execution.epochs import get_protocol_version
from flockchain.execution.governance import (
    compute_next_change_due_ms,
    process_approvals,
    process_scheduled_changes,
)
from flockchain.execution.income import process_last_commit, process_late_precommits, process_liveness
from flockchain.execution.invariants import Change, assert_changes
from flockchain.execution.release import process_unbonding
from flockchain.execution.state import State
from flockchain.execution.tasks import compute_next_task_deadline_ms, is_draw_pending, process_tasks
from flockchain.execution.timemarks import process_time_marks
from flockchain.execution.transactions import CheckedTx, check_tx, decode_tx, preview_tx, process_tx
from flockchain.execution.unbonding import compute_next_release_ms
from flockchain.execution.upgrade import process_upgrade
from flockchain.execution.validators import (
    compute_validators_hash,
    get_rotation,
    get_validators,
    process_validator_set,
)
from flockchain.execution.validity import check_block, compute_last_commit_hash
from flockchain.merkle import compute_root
from flockchain.state_tree import StateTree
from flockchain.types.chain import Block, Commit, Header, SignedVote
from flockchain.types.rows import Chain, Row
from flockchain.types.tx import Receipt, TxResult

FIRST_TASK_TAG = 16
"""State keys of tasks and their training rounds begin with this tag or a higher one."""

__all__ = [
    "BlockOutcome",
    "CheckedTx",
    "build_block",
    "check_block",
    "check_tx",
    "compute_next_due_ms",
    "execute_block",
    "get_rotation",
    "get_validators",
    "is_block_due",
    "preview_tx",
]


@dataclass(frozen=True, slots=True)
class BlockOutcome:
    """What executing a block left: everything the store persists beside the block and its commit."""

    results: tuple[TxResult, ...]
    receipts: tuple[Receipt, ...]
    write_set: Mapping[bytes, Row | None]
    """Changed rows by state key, in key order; None: deleted."""
    replaced: Mapping[bytes, Row | None]
    """The rows that these changes replaced: what the state held before; None: nothing."""
    results_root: bytes
    state_root: bytes
    had_work: bool
    """Transactions, receipts or a task's progress: an empty block should follow and prove the state root."""


def execute_block(state: State, tree: StateTree, block: Block) -> BlockOutcome:
    """Apply a decided block, which `check_block` has accepted, to state and tree."""
    header = block.header
    chain_before = state.get(Chain)
    assert header.height == chain_before.height + 1
    assert state.savepoint() == 0, "the state holds writes of nobody"
    context = Context(state, header.height, header.time_ms, header.proposer)
    _begin_block(context, block)
    results = tuple(process_tx(context, decode_tx(data)) for data in block.txs)
    _end_block(context)
    receipts = tuple(context.receipts)
    results_root = compute_results_root(results, receipts)
    _close_chain(context, block, results_root)
    changes = state.peek_changes()
    assert_changes(changes, chain_before.supply_uflk, state.get(Chain).supply_uflk)
    write_set = {key: after for key, before, after in changes if before != after}
    replaced = {key: before for key, before, after in changes if before != after}
    tree.update({key: None if row is None else encode(row) for key, row in write_set.items()})
    state.root = tree.root
    state.clear_journal()
    had_work = bool(results or receipts) or _touches_tasks(changes)
    return BlockOutcome(results, receipts, write_set, replaced, results_root, tree.root, had_work)


def compute_results_root(results: Sequence[TxResult], receipts: Sequence[Receipt]) -> bytes:
    return compute_root([encode(item) for item in (*results, *receipts)])


def build_block(
    state: State,
    *,
    proposer: bytes,
    time_ms: int,
    txs: Sequence[bytes],
    last_commit: Commit,
    late_precommits: Sequence[SignedVote],
    beacon_preimage: bytes,
) -> Block:
    """The block with these contents that follows `state`; the header is filled from the state."""
    chain = state.get(Chain)
    late = tuple(late_precommits)
    header = Header(
        protocol_version=get_protocol_version(state),
        chain_id=chain.chain_id,
        height=chain.height + 1,
        time_ms=time_ms,
        proposer=proposer,
        last_block_id=chain.last_block_id,
        last_commit_hash=compute_last_commit_hash(last_commit, late),
        txs_root=compute_root(txs),
        prev_results_root=chain.results_root,
        prev_state_root=state.root,
        validators_hash=compute_validators_hash(get_validators(state, chain.height + 1)),
        next_validators_hash=compute_validators_hash(get_validators(state, chain.height + 2)),
        params_hash=chain.params.hash(),
        beacon_preimage=beacon_preimage,
    )
    return Block(header, tuple(txs), last_commit, late)


def compute_next_due_ms(state: State) -> int | None:
    """The earliest header time at which a block has something to do even without transactions."""
    times = (
        compute_next_release_ms(state),
        compute_next_task_deadline_ms(state),
        compute_next_change_due_ms(state),
    )
    return min((time_ms for time_ms in times if time_ms is not None), default=None)


def is_block_due(state: State, now_ms: int, last_block_had_work: bool) -> bool:
    """Whether a proposer should make a block although it has no transactions."""
    chain = state.get(Chain)
    due_ms = compute_next_due_ms(state)
    return (
        last_block_had_work
        or is_draw_pending(state)
        or (due_ms is not None and now_ms >= due_ms)
        or now_ms >= chain.time_ms + chain.params.consensus.idle_block_interval_ms
    )


def _begin_block(context: Context, block: Block) -> None:
    """What the height, the header and the last commit bring: another version's rows, randomness, income, liveness."""
    process_upgrade(context)
    process_beacon(context.state, context.proposer, context.height, block.header.beacon_preimage)
    process_last_commit(context, block.last_commit)
    process_late_precommits(context, block.late_precommits)
    process_liveness(context)


def _end_block(context: Context) -> None:
    """What time brings: releases, tasks' phases, other parameters, the next validator set; and what is approved."""
    process_unbonding(context)
    process_tasks(context)
    process_time_marks(context)
    process_scheduled_changes(context)
    process_validator_set(context)
    process_approvals(context)


def _close_chain(context: Context, block: Block, results_root: bytes) -> None:
    chain = context.chain
    context.state.put(
        msgspec.structs.replace(
            chain,
            height=context.height,
            time_ms=context.time_ms,
            last_block_id=block.block_id(),
            fee_pool_uflk=chain.fee_pool_uflk + context.fees_uflk,
            results_root=results_root,
        )
    )


def _touches_tasks(changes: Sequence[Change]) -> bool:
    return any(key[0] >= FIRST_TASK_TAG for key, _, _ in changes)
