"""Slashing: taking part of the stake that stood behind an offence, wherever it is by now.

That is the stake bonded at the end of block `as_of_height`: the delegate's own, its delegators', and what of both has
begun to unbond since. What had begun to unbond before, and what came in afterwards, is untouched.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from flockchain.crypto import format_address
from flockchain.execution.balances import increase_balance, increase_community_pool
from flockchain.execution.context import Context
from flockchain.execution.delegation import MAX_SHARES, find_newcomers, get_pool, pay_earned, put_pool
from flockchain.execution.lots import cut_lots, grow_lots, sum_after
from flockchain.execution.staking import get_stake, put_bond
from flockchain.execution.unbonding import cut_entries
from flockchain.params import PPM
from flockchain.types.rows import Delegation, DelegationPool, Stake


@dataclass(frozen=True, slots=True)
class _Taken:
    bonded_uflk: int = 0
    delegated_uflk: int = 0
    unbonding_uflk: int = 0

    @property
    def total_uflk(self) -> int:
        return self.bonded_uflk + self.delegated_uflk + self.unbonding_uflk


def slash_bond(
    context: Context,
    owner: bytes,
    target: str,
    ppm: int,
    *,
    reason: str,
    as_of_height: int,
    reporter: bytes | None = None,
    task: int = 0,
    round: int = 0,
    evidence: bytes = b"",
    **facts: int,
) -> int:
    """Take `ppm` of what stood in the bond at `as_of_height`; returns the uflk taken.

    The own bond, the pool and each unbonding entry are rounded down by themselves. The reporter has its share, rounded
    down; the rest goes to the community pool, never to a pool that is refunded. The offence is counted on the bond. A
    receipt explains it.
    """
    assert 0 <= ppm <= PPM
    state = context.state
    stake, pool = get_stake(state, owner, target), get_pool(state, owner, target)
    if stake is None and (pool is None or not pool.delegators):
        return 0
    taken = _take(context, stake, pool, ppm, as_of_height)
    share = context.params.stake.reporter_share_ppm if reporter is not None else 0
    reward = taken.total_uflk * share // PPM
    increase_community_pool(state, taken.total_uflk - reward)
    amounts = {
        "penalty_ppm": ppm,
        "bonded_uflk": taken.bonded_uflk,
        "delegated_uflk": taken.delegated_uflk,
        "unbonding_uflk": taken.unbonding_uflk,
        "reporter_uflk": reward,
        "as_of_height": as_of_height,
        **facts,
    }
    context.add_receipt("slash", owner, taken.total_uflk, reason, task=task, round=round, evidence=evidence, **amounts)
    if reporter is not None:
        increase_balance(state, reporter, reward)
        text = f"reported {format_address(owner)}: {reason}"
        context.add_receipt("report", reporter, reward, text, task=task, round=round)
    return taken.total_uflk


def _take(context: Context, stake: Stake | None, pool: DelegationPool | None, ppm: int, as_of_height: int) -> _Taken:
    bonded = delegated = unbonding = 0
    if stake is not None:
        bonded, unbonding = _cut_bond(context, stake, ppm, as_of_height)
    if pool is not None:
        movers = list(find_newcomers(context.state, pool, as_of_height))
        for mover, _ in movers:
            unbonding += cut_entries(context.state, mover.delegator, mover.target, mover.unbonding, ppm, as_of_height)
        delegated = _cut_pool(context, pool, [(mover, late) for mover, late in movers if late], ppm, as_of_height)
    return _Taken(bonded, delegated, unbonding)


def _cut_bond(context: Context, stake: Stake, ppm: int, as_of_height: int) -> tuple[int, int]:
    """(taken of the bond, taken of what leaves it)."""
    bonded = (stake.amount_uflk - sum_after(stake.recent, as_of_height)) * ppm // PPM
    cut = msgspec.structs.replace(stake, offences=stake.offences + 1, recent=cut_lots(stake.recent, as_of_height, ppm))
    put_bond(context, cut, stake.amount_uflk - bonded)
    return bonded, cut_entries(context.state, stake.owner, stake.target, stake.unbonding, ppm, as_of_height)


def _cut_pool(
    context: Context, pool: DelegationPool, late: Sequence[tuple[Delegation, int]], ppm: int, as_of_height: int
) -> int:
    """Take from the older shares alone: whoever came late gets so many new shares that its stake is worth what it was.

    A pool keeps one uflk as long as it has shares: at a price of zero nobody could delegate again.
    """
    newer = sum(shares for _, shares in late)
    older = pool.shares - newer
    exposed = pool.amount_uflk * older // pool.shares if pool.shares else 0
    taken = min(exposed * ppm // PPM, max(exposed - 1, 0))
    if not taken:
        return 0
    # shares s keep their worth V s / S under the price (V - taken) / (older + newer'), newer' = newer * grown // shrunk
    grown = pool.amount_uflk * older
    shrunk = grown - pool.shares * taken
    pool = msgspec.structs.replace(pool, amount_uflk=pool.amount_uflk - taken)
    for delegation, shares in late:
        more = min(shares * grown // shrunk - shares, MAX_SHARES - pool.shares)
        pool, paid = pay_earned(context, pool, delegation)
        pool = msgspec.structs.replace(pool, shares=pool.shares + more)
        recent = grow_lots(paid.recent, as_of_height, more)
        context.state.put(msgspec.structs.replace(paid, shares=paid.shares + more, recent=recent))
    put_pool(context, pool)
    return taken
