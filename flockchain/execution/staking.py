"""Own bonds: stake in, and stake leaving through the unbonding queue.

Every bond is one row `Stake(owner, target)`; what others add to it is in `delegation.py`, what is taken from it in
`slashing.py`. Callers refuse first; the verbs here assert.
"""

import msgspec

from flockchain.errors import Refused
from flockchain.execution.balances import decrease_balance
from flockchain.execution.context import Context
from flockchain.execution.lots import add_lot, take_lots
from flockchain.execution.state import State
from flockchain.execution.unbonding import add_entry
from flockchain.execution.validators import is_eligible
from flockchain.types.rows import (
    Draw,
    Stake,
    Task,
    TaskParticipant,
    TrainingRound,
    ValidatorRow,
)
from flockchain.types.task import Holdout

VALIDATOR_TARGET = "validator:"
TASK_TARGET = "task:"


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


def touch_bond(context: Context, target: str) -> None:
    """What depends on the stake in `target` is computed anew at the end of the block."""
    kind, name = parse_target(target)
    if kind == "validator":
        context.is_set_stale = True
    else:
        assert isinstance(name, int)
        context.touched_tasks.add(name)


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
    stake = msgspec.structs.replace(stake, recent=add_lot(context, stake.recent, amount_uflk))
    put_bond(context, stake, stake.amount_uflk + amount_uflk)


def begin_unbonding(context: Context, owner: bytes, target: str, amount_uflk: int) -> None:
    """Move stake from the bond into the unbonding queue."""
    state = context.state
    stake = state.get(Stake, owner, target)
    assert 0 < amount_uflk <= stake.amount_uflk
    assert len(stake.unbonding) < context.params.stake.max_unbondings_per_bond
    left, taken = take_lots(stake.recent, stake.amount_uflk, amount_uflk)
    reference = add_entry(context, owner, target, amount_uflk, taken)
    stake = msgspec.structs.replace(stake, unbonding=(*stake.unbonding, reference), recent=left)
    put_bond(context, stake, stake.amount_uflk - amount_uflk)


def put_bond(context: Context, stake: Stake, amount_uflk: int) -> None:
    """The one place that changes a bond: keeps its validator's sum in step."""
    state = context.state
    assert amount_uflk >= 0
    before = get_bond_uflk(state, stake.owner, stake.target)
    kind, name = parse_target(stake.target)
    if kind == "validator" and before != amount_uflk:
        assert isinstance(name, bytes)
        validator = state.get(ValidatorRow, name)
        state.put(msgspec.structs.replace(validator, bond_uflk=validator.bond_uflk + amount_uflk - before))
    if kind == "task" or before != amount_uflk:
        touch_bond(context, stake.target)
    put_stake(state, msgspec.structs.replace(stake, amount_uflk=amount_uflk))


def put_stake(state: State, stake: Stake) -> None:
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


def is_last_eligible(context: Context, validator: ValidatorRow) -> bool:
    """Whether no other validator could sign instead: then this one must stay. Counts what this block changed."""
    params = context.params.stake
    others = (row for row in context.state.iterate(ValidatorRow) if row.address != validator.address)
    return is_eligible(validator, params) and not any(is_eligible(row, params) for row in others)
