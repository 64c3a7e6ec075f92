"""Delegation: stake of others on a delegate's bond, held as shares of one pool.

A slash changes the pool and not its delegators; income raises the pool's index (F1: Ojha and Goes, "F1 Fee
Distribution", Tokenomics 2019) and is paid to a delegator when it moves its stake or claims. So the cost of a block
does not grow with their number. Here slashes need no periods of their own as in that paper: they change what a share
is worth, never how many shares there are. Callers refuse first; the verbs here assert.

Roundings: a delegator gets whole uflk, rounded down, and gives up whole shares, rounded up; what remains stays in the
pool for those who stay, and with the last share goes to the community pool. `docs/protocol.md` (Delegation) proves
that the pool always covers what its shares are worth.
"""

from collections.abc import Iterator

import msgspec

from flockchain.crypto import format_address
from flockchain.errors import Refused
from flockchain.execution.balances import decrease_balance, increase_balance, increase_community_pool
from flockchain.execution.context import Context
from flockchain.execution.lots import add_lot, compute_forgotten_ms, sum_after, take_lots
from flockchain.execution.staking import get_stake, parse_target, touch_bond
from flockchain.execution.state import State
from flockchain.execution.unbonding import add_entry, drop_reference
from flockchain.params import PPM
from flockchain.types.delegation import INDEX_SCALE, compute_earned_uflk, compute_worth_uflk, get_share_ppm
from flockchain.types.ids import I63_MAX
from flockchain.types.rows import Delegation, DelegationMove, DelegationPool, Lot, Unbonding, ValidatorRow

MAX_SHARES = 2**62
_MOVES_FORGOTTEN_AT_ONCE = 2
"""By each move and release, so that the index of moves does not outgrow those of one unbonding time."""


def get_pool(state: State, delegate: bytes, target: str) -> DelegationPool | None:
    """None: this delegate never offered a share of its income."""
    return state.find(DelegationPool, delegate, target)


def get_delegation(state: State, delegate: bytes, target: str, delegator: bytes) -> Delegation | None:
    return state.find(Delegation, delegate, target, delegator)


def compute_new_shares(pool: DelegationPool, amount_uflk: int) -> int:
    """Shares that a delegation of so much gets, rounded down."""
    return amount_uflk * pool.shares // pool.amount_uflk if pool.shares else amount_uflk


def check_share(share_ppm: int | None) -> None:
    if share_ppm is not None and share_ppm > PPM:
        raise Refused("bad-share", f"a share of {share_ppm} ppm is more than all, {PPM} ppm")


def set_share(context: Context, delegate: bytes, target: str, share_ppm: int) -> None:
    """A first or higher share is in force at once, a lower one after `unbonding_ms`: who sees it can have left."""
    state, now_ms = context.state, context.time_ms
    pool = get_pool(state, delegate, target)
    if pool is None:
        state.put(DelegationPool(delegate, target, share_ppm, 0, 0, 0, 0, 0, 0, 0, 0))
        return
    present = get_share_ppm(pool, now_ms)
    if share_ppm >= present or not pool.shares:
        changed = msgspec.structs.replace(pool, share_ppm=share_ppm, next_share_ppm=0, next_share_ms=0)
    else:
        due_ms = now_ms + context.params.stake.unbonding_ms
        changed = msgspec.structs.replace(pool, share_ppm=present, next_share_ppm=share_ppm, next_share_ms=due_ms)
    state.put(changed)


def increase_delegation(context: Context, delegator: bytes, pool: DelegationPool, amount_uflk: int) -> None:
    """Move money from the delegator's balance into the pool, for shares."""
    decrease_balance(context.state, delegator, amount_uflk)
    shares = compute_new_shares(pool, amount_uflk)
    assert 0 < shares <= MAX_SHARES - pool.shares
    delegation = get_delegation(context.state, pool.delegate, pool.target, delegator)
    if delegation is None:
        delegation = Delegation(pool.delegate, pool.target, delegator, 0, pool.index_nuflk)
        pool = msgspec.structs.replace(pool, delegators=pool.delegators + 1)
    pool, delegation = pay_earned(context, pool, delegation)
    recent = add_lot(context, delegation.recent, shares)
    context.state.put(msgspec.structs.replace(delegation, shares=delegation.shares + shares, recent=recent))
    put_pool(
        context,
        msgspec.structs.replace(pool, amount_uflk=pool.amount_uflk + amount_uflk, shares=pool.shares + shares),
    )
    _note_move(context, pool, delegator)


def begin_undelegation(context: Context, pool: DelegationPool, delegation: Delegation, amount_uflk: int) -> None:
    """Move stake from the pool into the unbonding queue; all shares go when all they are worth goes."""
    worth = compute_worth_uflk(pool, delegation.shares)
    assert 0 < amount_uflk <= worth
    assert len(delegation.unbonding) < context.params.stake.max_unbondings_per_bond
    pool, delegation = pay_earned(context, pool, delegation)
    is_whole = amount_uflk == worth
    shares = delegation.shares if is_whole else -(-amount_uflk * pool.shares // pool.amount_uflk)
    left, taken = take_lots(delegation.recent, delegation.shares, shares)
    recent = tuple(Lot(lot.height, lot.time_ms, lot.amount * amount_uflk // shares) for lot in taken)
    reference = add_entry(context, delegation.delegator, pool.target, amount_uflk, recent, pool.delegate)
    unbonding = (*delegation.unbonding, reference)
    changed = {"shares": delegation.shares - shares, "recent": left, "unbonding": unbonding}
    context.state.put(msgspec.structs.replace(delegation, **changed))
    pool = msgspec.structs.replace(pool, amount_uflk=pool.amount_uflk - amount_uflk, shares=pool.shares - shares)
    if not pool.shares:
        increase_community_pool(context.state, pool.rewards_uflk + pool.amount_uflk)
        pool = msgspec.structs.replace(pool, amount_uflk=0, rewards_uflk=0, pending_uflk=0, index_nuflk=0)
    put_pool(context, pool)
    _note_move(context, pool, delegation.delegator)


def drop_delegation_entry(context: Context, entry: Unbonding) -> None:
    """A released entry leaves its delegation, and the delegation its pool when it was the last."""
    state = context.state
    delegation = state.get(Delegation, entry.delegate, entry.target, entry.owner)
    delegation = msgspec.structs.replace(delegation, unbonding=drop_reference(delegation.unbonding, entry))
    if delegation.shares or delegation.unbonding:
        state.put(delegation)
        return
    state.delete(Delegation, entry.delegate, entry.target, entry.owner)
    pool = state.get(DelegationPool, entry.delegate, entry.target)
    state.put(msgspec.structs.replace(pool, delegators=pool.delegators - 1))
    _forget_moves(context, pool)


def drop_idle_pool(state: State, delegate: bytes, target: str) -> None:
    """Forget the offer of a delegate whose own bond is gone, once nothing of others is left in it or on its way out."""
    pool = get_pool(state, delegate, target)
    if pool is not None and not pool.delegators and get_stake(state, delegate, target) is None:
        assert pool.amount_uflk == pool.rewards_uflk == 0
        state.delete(DelegationPool, delegate, target)


def pay_earned(context: Context, pool: DelegationPool, delegation: Delegation) -> tuple[DelegationPool, Delegation]:
    """Pay the delegator what it has earned; pool and delegation afterwards, which the caller writes."""
    earned = compute_earned_uflk(pool, delegation)
    return _pay(context, pool, delegation, earned), msgspec.structs.replace(delegation, index_nuflk=pool.index_nuflk)


def _pay(context: Context, pool: DelegationPool, delegation: Delegation, amount_uflk: int) -> DelegationPool:
    if not amount_uflk:
        return pool
    increase_balance(context.state, delegation.delegator, amount_uflk)
    reason = f"earned by the delegation to {format_address(pool.delegate)} in {pool.target}"
    context.add_receipt("income", delegation.delegator, amount_uflk, reason, shares=delegation.shares)
    return msgspec.structs.replace(pool, rewards_uflk=pool.rewards_uflk - amount_uflk)


def put_pool(context: Context, pool: DelegationPool) -> None:
    """The one place that changes what a pool holds: keeps its validator's sum in step."""
    kind, name = parse_target(pool.target)
    before = get_pool(context.state, pool.delegate, pool.target)
    assert 0 <= pool.amount_uflk <= pool.shares <= MAX_SHARES
    if before is None or before.amount_uflk != pool.amount_uflk:
        touch_bond(context, pool.target)
        if kind == "validator":
            assert isinstance(name, bytes)
            validator = context.state.get(ValidatorRow, name)
            context.state.put(msgspec.structs.replace(validator, delegated_uflk=pool.amount_uflk))
    context.state.put(pool)


def find_newcomers(state: State, pool: DelegationPool, as_of_height: int) -> Iterator[tuple[Delegation, int]]:
    """(delegation, its shares that came in after `as_of_height`) of all who moved stake since, sorted by delegator."""
    moves = state.iterate_from(DelegationMove, pool.delegate, pool.target, as_of_height + 1)
    for delegator in sorted({move.delegator for move in moves}):
        delegation = get_delegation(state, pool.delegate, pool.target, delegator)
        if delegation is not None:
            yield delegation, sum_after(delegation.recent, as_of_height)


def _note_move(context: Context, pool: DelegationPool, delegator: bytes) -> None:
    _forget_moves(context, pool)
    context.state.put(DelegationMove(pool.delegate, pool.target, context.height, delegator, context.time_ms))


def _forget_moves(context: Context, pool: DelegationPool) -> None:
    state = context.state
    for _ in range(_MOVES_FORGOTTEN_AT_ONCE):
        oldest = state.first(DelegationMove, pool.delegate, pool.target)
        if oldest is None or oldest.time_ms >= compute_forgotten_ms(context):
            break
        state.delete(DelegationMove, oldest.delegate, oldest.target, oldest.height, oldest.delegator)


# -- income -----------------------------------------------------------------------------------------------------------


def give_delegators_part(
    context: Context, pool: DelegationPool, own_uflk: int, income_uflk: int, as_of_height: int | None = None
) -> int:
    """Give the delegators their part of what the whole bond earned; returns it, and the rest is the delegate's.

    The part is `income * d / (own + d) * share`, rounded down once, where d is what of the delegations counts.
    `as_of_height`: only stake that stood then earns; None: all of it. An index at its limit (nine thousand FLK for each
    uflk staked) rises no more: what comes then waits in the pool and goes with its dust.
    """
    late = {} if as_of_height is None else dict(_find_late(context.state, pool, as_of_height))
    earning = pool.shares - sum(late.values())
    most = context.params.stake.max_delegated_multiple * own_uflk
    counted = min(compute_worth_uflk(pool, earning), most)
    if not counted:
        return 0
    part = income_uflk * counted * get_share_ppm(pool, context.time_ms) // ((own_uflk + counted) * PPM)
    to_share = pool.pending_uflk + part
    rise = min(to_share * INDEX_SCALE // earning, I63_MAX - pool.index_nuflk)
    used = -(-rise * earning // INDEX_SCALE)
    pool = msgspec.structs.replace(pool, rewards_uflk=pool.rewards_uflk + part, pending_uflk=to_share - used)
    raised = msgspec.structs.replace(pool, index_nuflk=pool.index_nuflk + rise)
    for delegator, shares in late.items():
        raised = _pay_latecomer(context, pool, raised, delegator, shares)
    context.state.put(raised)
    return part


def _find_late(state: State, pool: DelegationPool, as_of_height: int) -> Iterator[tuple[bytes, int]]:
    return (
        (delegation.delegator, shares) for delegation, shares in find_newcomers(state, pool, as_of_height) if shares
    )


def _pay_latecomer(
    context: Context, before: DelegationPool, raised: DelegationPool, delegator: bytes, late_shares: int
) -> DelegationPool:
    """Its index passes this rise, so it is paid now: all until before the rise, of the rise for its older shares."""
    delegation = context.state.get(Delegation, raised.delegate, raised.target, delegator)
    rise = raised.index_nuflk - before.index_nuflk
    earned = compute_earned_uflk(before, delegation) + (delegation.shares - late_shares) * rise // INDEX_SCALE
    context.state.put(msgspec.structs.replace(delegation, index_nuflk=raised.index_nuflk))
    return _pay(context, raised, delegation, earned)
