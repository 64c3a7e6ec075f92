"""Bonds: stake in, stake leaving through the unbonding queue, stake taken.

Every bond is one row `Stake(owner, target)`; a validator's bonds add up to its power. Callers refuse first; the verbs
here assert.
"""

from dataclasses import dataclass

import msgspec

from flockchain.crypto import format_address
from flockchain.errors import Refused
from flockchain.execution.balances import decrease_balance, increase_balance, increase_community_pool
from flockchain.execution.context import Context
from flockchain.execution.state import State
from flockchain.execution.validators import is_eligible
from flockchain.params import PPM
from flockchain.types.rows import (
    Draw,
    Stake,
    Task,
    TaskParticipant,
    TrainingRound,
    Unbonding,
    UnbondingRef,
    ValidatorRow,
)
from flockchain.types.task import Holdout

VALIDATOR_TARGET = "validator:"
TASK_TARGET = "task:"
MAX_RELEASES_PER_BLOCK = 1_000


def make_validator_target(address: bytes) -> str:
    return VALIDATOR_TARGET + address.hex()


def make_task_target(task: int) -> str:
    return f"{TASK_TARGET}{task}"


def parse_target(target: str) -> tuple[str, bytes | int]:
    """("validator", address) or ("task", id); raises `Refused` for any other text."""
    kind, _, name = target.partition(":")
    if kind == "validator" and len(name) == 40 and all(c in "0123456789abcdef" for c in name):
        return kind, bytes.fromhex(name)
    if kind == "task" and name.isascii() and name.isdigit() and len(name) <= 18 and name == str(int(name)):
        return kind, int(name)
    raise Refused("bad-target", f"stake target {target[:80]!r} is neither validator:<address in hex> nor task:<id>")


def get_stake(state: State, owner: bytes, target: str) -> Stake | None:
    return state.find(Stake, owner, target)


def get_bond_uflk(state: State, owner: bytes, target: str) -> int:
    """What is bonded now, without what is unbonding."""
    stake = get_stake(state, owner, target)
    return stake.amount_uflk if stake else 0


def count_participants(state: State, task: int) -> int:
    return sum(1 for _ in state.iterate(TaskParticipant, task))


def is_drawn_in_open_round(state: State, owner: bytes, task: int) -> bool:
    """Whether the owner has a part in the task's current training round, or is a candidate in its pending draw."""
    row = state.find(Task, task)
    training = state.find(TrainingRound, task, row.round) if row and row.status == "open" else None
    if training is None or training.phase == "settled":
        return False
    role = "trainer" if training.phase == "enroll" else "voter"
    pending = state.find(Draw, task, training.number, role) if training.draw_height else None
    is_candidate = pending is not None and any(candidate.address == owner for candidate in pending.candidates)
    return is_candidate or owner in training.trainers or any(seat.address == owner for seat in training.committee)


def increase_bond(
    context: Context,
    owner: bytes,
    target: str,
    amount_uflk: int,
    *,
    role: str = "",
    holdouts: tuple[Holdout, ...] = (),
) -> None:
    """Move money from the owner's balance into a bond; opens it if it is the first."""
    state = context.state
    decrease_balance(state, owner, amount_uflk)
    stake = get_stake(state, owner, target) or Stake(owner, target, 0, role, holdouts, False, 0, context.time_ms)
    _put_bond(context, stake, stake.amount_uflk + amount_uflk)


def begin_unbonding(context: Context, owner: bytes, target: str, amount_uflk: int) -> None:
    """Move stake from the bond into the unbonding queue."""
    state = context.state
    stake = state.get(Stake, owner, target)
    assert 0 < amount_uflk <= stake.amount_uflk
    assert len(stake.unbonding) < context.params.stake.max_unbondings_per_bond
    chain = context.chain
    entry = Unbonding(
        release_ms=context.time_ms + chain.params.stake.unbonding_ms,
        owner=owner,
        target=target,
        sequence=chain.next_sequence,
        amount_uflk=amount_uflk,
        created_ms=context.time_ms,
    )
    state.put(entry)
    state.put(msgspec.structs.replace(chain, next_sequence=chain.next_sequence + 1))
    references = (*stake.unbonding, UnbondingRef(entry.release_ms, entry.sequence))
    _put_bond(context, msgspec.structs.replace(stake, unbonding=references), stake.amount_uflk - amount_uflk)


def process_unbonding(context: Context) -> None:
    """Pay out what has waited long enough, at most `MAX_RELEASES_PER_BLOCK` entries; the rest is due at once again."""
    state = context.state
    for _ in range(MAX_RELEASES_PER_BLOCK):
        entry = state.first(Unbonding)
        if entry is None or entry.release_ms > context.time_ms:
            return
        _drop_entry(state, entry)
        increase_balance(state, entry.owner, entry.amount_uflk)
        context.add_receipt("unbonded", entry.owner, entry.amount_uflk, f"unbonding of {entry.target} is complete")


def compute_next_release_ms(state: State) -> int | None:
    entry = state.first(Unbonding)
    return entry.release_ms if entry else None


@dataclass(frozen=True, slots=True)
class _Taken:
    bonded_uflk: int
    unbonding_uflk: int

    @property
    def total_uflk(self) -> int:
        return self.bonded_uflk + self.unbonding_uflk


def slash_bond(
    context: Context,
    owner: bytes,
    target: str,
    ppm: int,
    *,
    reason: str,
    reporter: bytes | None = None,
    offence_ms: int = 0,
    task: int = 0,
    round: int = 0,
    evidence: bytes = b"",
    **facts: int,
) -> int:
    """Take `ppm` of the bond, and of what began to unbond at or after `offence_ms`; returns the uflk taken.

    Each part is rounded down. The reporter has its share, rounded down; the rest goes to the community pool, never to
    a pool that is refunded. The offence is counted on the bond. A receipt explains it.
    """
    assert 0 <= ppm <= PPM
    state = context.state
    stake = get_stake(state, owner, target)
    if stake is None:
        return 0
    taken = _take(context, stake, ppm, offence_ms)
    share = context.params.stake.reporter_share_ppm if reporter is not None else 0
    reward = taken.total_uflk * share // PPM
    increase_community_pool(state, taken.total_uflk - reward)
    amounts = {
        "penalty_ppm": ppm,
        "bonded_uflk": taken.bonded_uflk,
        "unbonding_uflk": taken.unbonding_uflk,
        "reporter_uflk": reward,
        **facts,
    }
    context.add_receipt("slash", owner, taken.total_uflk, reason, task=task, round=round, evidence=evidence, **amounts)
    if reporter is not None:
        increase_balance(state, reporter, reward)
        text = f"reported {format_address(owner)}: {reason}"
        context.add_receipt("report", reporter, reward, text, task=task, round=round)
    return taken.total_uflk


def _take(context: Context, stake: Stake, ppm: int, offence_ms: int) -> _Taken:
    state = context.state
    bonded = stake.amount_uflk * ppm // PPM
    _put_bond(context, msgspec.structs.replace(stake, offences=stake.offences + 1), stake.amount_uflk - bonded)
    leaving = 0
    for reference in stake.unbonding:
        entry = state.get(Unbonding, reference.release_ms, stake.owner, stake.target, reference.sequence)
        if entry.created_ms >= offence_ms:
            cut = entry.amount_uflk * ppm // PPM
            leaving += cut
            state.put(msgspec.structs.replace(entry, amount_uflk=entry.amount_uflk - cut))
    return _Taken(bonded, leaving)


def _put_bond(context: Context, stake: Stake, amount_uflk: int) -> None:
    """The one place that changes a bond: keeps its validator's sum in step."""
    state = context.state
    assert amount_uflk >= 0
    before = get_bond_uflk(state, stake.owner, stake.target)
    kind, name = parse_target(stake.target)
    if kind == "validator" and before != amount_uflk:
        assert isinstance(name, bytes)
        validator = state.get(ValidatorRow, name)
        state.put(msgspec.structs.replace(validator, bond_uflk=validator.bond_uflk + amount_uflk - before))
        context.is_set_stale = True
    if kind == "task":
        assert isinstance(name, int)
        context.touched_tasks.add(name)
    _put_stake(state, msgspec.structs.replace(stake, amount_uflk=amount_uflk))


def _put_stake(state: State, stake: Stake) -> None:
    """Write the row and its index entry, or drop both when nothing is left in it."""
    kind, name = parse_target(stake.target)
    is_empty = stake.amount_uflk == 0 and not stake.unbonding
    if not is_empty:
        state.put(stake)
    elif state.find(Stake, stake.owner, stake.target) is not None:
        state.delete(Stake, stake.owner, stake.target)
    if kind == "task":
        assert isinstance(name, int)
        if not is_empty:
            state.put(TaskParticipant(name, stake.owner))
        elif state.find(TaskParticipant, name, stake.owner) is not None:
            state.delete(TaskParticipant, name, stake.owner)


def _drop_entry(state: State, entry: Unbonding) -> None:
    state.delete(Unbonding, entry.release_ms, entry.owner, entry.target, entry.sequence)
    stake = state.get(Stake, entry.owner, entry.target)
    references = tuple(r for r in stake.unbonding if r.sequence != entry.sequence)
    assert len(references) == len(stake.unbonding) - 1
    _put_stake(state, msgspec.structs.replace(stake, unbonding=references))


def is_last_eligible(context: Context, validator: ValidatorRow) -> bool:
    """Whether no other validator could sign instead: then this one must stay. Counts what this block changed."""
    params = context.params.stake
    others = (row for row in context.state.iterate(ValidatorRow) if row.address != validator.address)
    return is_eligible(validator, params) and not any(is_eligible(row, params) for row in others)
