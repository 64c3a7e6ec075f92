"""What holds after every block and every refusal, in arithmetic of its own where there is some."""

from collections.abc import Iterable

from msgspec.structs import replace

from flockchain.codec import decode, encode
from flockchain.execution.block import BlockOutcome
from flockchain.execution.genesis import load_state
from flockchain.execution.invariants import assert_all
from flockchain.execution.release import MAX_RELEASES_PER_BLOCK
from flockchain.execution.state import State
from flockchain.state_tree import StateTree
from flockchain.types.chain import Block
from flockchain.types.rows import (
    TABLES,
    Account,
    Chain,
    Draw,
    FinalSet,
    OpenTask,
    RecentBlock,
    Row,
    Task,
    TrainingRound,
    Unbonding,
    ValidatorSet,
)
from flockchain.types.tx import TxResult

YEAR_MS = 365 * 24 * 3600 * 1000
UNPAID = ("expired", "expiry-too-far", "nonce-spent", "nonce-ahead", "fee-too-low")
"""Refused before the fee is taken: these change nothing at all."""
_ROW_TYPES = {table.tag: kind for kind, table in TABLES.items()}


def export_rows(state: State) -> list[tuple[bytes, bytes]]:
    """(state key, canonical bytes) of every row, in key order: all that a new node needs."""
    return [(key, encode(row)) for key, row in state.items()]


def import_rows(pairs: Iterable[tuple[bytes, bytes]]) -> tuple[State, StateTree]:
    """State and tree from bytes alone. Decoding refuses a value that its type does not allow, negative money too."""
    rows: list[Row] = [decode(_ROW_TYPES[key[0]], data) for key, data in pairs]
    return load_state(rows)


def check_refused(state: State, written: int, before: Account | None, result: TxResult) -> None:
    """A refused transaction wrote its sender's fee and nonce, or nothing."""
    assert result.message, f"{result.code} explains nothing"
    after = state.find(Account, result.sender)
    if written == 0:
        assert result.fee_uflk == 0, f"{result.code} cost {result.fee_uflk} uflk and nothing was written"
        assert after == before
        return
    assert before is not None
    assert result.code not in UNPAID, f"{result.code} spent the nonce"
    assert written == 1, f"{result.kind} was refused as {result.code} and left {written} writes"
    paid = replace(before, balance_uflk=before.balance_uflk - result.fee_uflk, nonce=before.nonce + 1)
    assert after == paid, f"{result.kind} was refused as {result.code} and changed more than fee and nonce"


def check_equal(one: BlockOutcome, other: BlockOutcome) -> None:
    """Two executions of one block, one of them on rows that were exported and imported."""
    for what in ("results", "receipts", "write_set", "results_root", "state_root"):
        assert getattr(one, what) == getattr(other, what), f"{what} differ between two executions of one block"


def compute_minted_uflk(before: Chain, block: Block) -> int:
    """What the block may declare: the year's rate for the time since the last block, capped; none in the first."""
    stake = before.params.stake
    if block.height == 1:
        return 0
    elapsed_ms = block.header.time_ms - before.time_ms
    return min(
        before.supply_uflk * stake.inflation_ppm_per_year * elapsed_ms // (1_000_000 * YEAR_MS),
        stake.max_inflation_per_block_uflk,
    )


def check_supply(state: State, expected_uflk: int) -> None:
    assert_all(state)  # rows hold the supply, bonds and queue agree, the newest set has the right to sign
    supply = state.get(Chain).supply_uflk
    assert supply == expected_uflk, f"the supply is {supply} uflk, genesis and inflation make {expected_uflk} uflk"


def check_rows(state: State, outcome: BlockOutcome) -> None:
    """Fees add up, time does what it says, and nothing that should be forgotten is kept."""
    chain = state.get(Chain)
    assert chain.fee_pool_uflk == sum(result.fee_uflk for result in outcome.results)
    due = sum(entry.release_ms <= chain.time_ms for entry in state.iterate(Unbonding))
    released = sum(receipt.kind == "unbonded" for receipt in outcome.receipts)
    assert due == 0 or released == MAX_RELEASES_PER_BLOCK, f"{due} unbondings are over and not released"
    assert [row.height for row in state.iterate(ValidatorSet)][-2:] == [chain.height + 1, chain.height + 2]
    depth = chain.params.consensus.late_precommit_blocks
    assert all(row.height + depth > chain.height for row in state.iterate(RecentBlock))
    for entry in state.iterate(OpenTask):
        _check_open_task(state, chain, state.get(Task, entry.task))


def _check_open_task(state: State, chain: Chain, task: Task) -> None:
    """Its round is open and not past its deadline; a pending draw is still to come; draws kept to their limits."""
    training = state.get(TrainingRound, task.id, task.round)
    assert task.status == "open"
    final = state.find(FinalSet, task.id)
    if final is not None and final.ending != "open":
        assert training.phase == "settled"
        assert final.phase == "draw" or final.deadline_ms > chain.time_ms, f"{final.phase} goes on past its deadline"
        return
    assert training.phase != "settled"
    if training.draw_height:
        assert training.draw_height > chain.height, f"the draw of {training.draw_height} was not made"
    else:
        assert training.deadline_ms > chain.time_ms, f"{training.phase} goes on past its deadline"
    for draw in state.iterate(Draw, task.id, task.round):
        tickets = {candidate.address: candidate.tickets for candidate in draw.candidates}
        assert sum(member.seats for member in draw.drawn) <= draw.seats
        assert all(1 <= m.seats <= min(draw.account_seats, tickets[m.address]) for m in draw.drawn)
    judges = {member.address for member in training.committee}
    assert not judges & set(training.trainers), "somebody judges in the round that it trains in"


def check_settlements(outcome: BlockOutcome, settled: set[tuple[int, int]]) -> None:
    """A training round settles once; `settled` remembers those of earlier blocks."""
    for receipt in outcome.receipts:
        if receipt.kind == "settlement":
            place = (receipt.task, receipt.round)
            assert place not in settled, f"round {receipt.round} of task {receipt.task} settled twice"
            settled.add(place)
