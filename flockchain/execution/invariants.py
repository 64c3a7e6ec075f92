"""What must hold after every block (docs/protocol.md, section 7). A breach is our bug: an assert, never a refusal."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from flockchain.execution.epochs import find_epoch
from flockchain.execution.state import State
from flockchain.execution.validators import compute_power, is_eligible
from flockchain.types.delegation import compute_earned_uflk
from flockchain.types.rows import (
    Account,
    Chain,
    Delegation,
    DelegationPool,
    FinalSet,
    RecentBlock,
    Row,
    Stake,
    Task,
    Unbonding,
    UnbondingRef,
    ValidatorRow,
    ValidatorSet,
    Vesting,
)

_MONEY: dict[type, Callable[[Any], tuple[int, ...]]] = {
    Account: lambda row: (row.balance_uflk,),
    Stake: lambda row: (row.amount_uflk,),
    Unbonding: lambda row: (row.amount_uflk,),
    DelegationPool: lambda row: (row.amount_uflk, row.rewards_uflk),
    ValidatorRow: lambda row: (row.income_uflk,),
    RecentBlock: lambda row: tuple(signer.income_uflk for signer in row.absent),
    Task: lambda row: (row.pool_uflk, row.deposit_uflk),
    FinalSet: lambda row: (row.pay_uflk,),
    Vesting: lambda row: (row.amount_uflk,),
    Chain: lambda row: (row.community_pool_uflk, row.fee_pool_uflk),
}
"""Every place where money can be. A validator's `bond_uflk` and `delegated_uflk` repeat what others of these hold."""

Change = tuple[bytes, Row | None, Row | None]


def compute_money_uflk(row: Row | None) -> int:
    """Money held in a row; asserts that no part of it is negative."""
    parts = _MONEY[type(row)](row) if type(row) in _MONEY else ()
    assert all(part >= 0 for part in parts), f"negative money in {row}"
    return sum(parts)


def assert_changes(changes: Iterable[Change], supply_before_uflk: int, supply_uflk: int) -> None:
    """The cheap form, at the end of each block: only what changed can have broken a sum."""
    moved = 0
    for _, before, after in changes:
        moved += compute_money_uflk(after) - compute_money_uflk(before)
        if type(after) is ValidatorRow:
            assert after.bond_uflk >= 0
            assert not (after.tombstoned and after.jailed_until_ms == 0), "a tombstoned validator is jailed for ever"
    assert moved == supply_uflk - supply_before_uflk, (
        f"{moved} uflk appeared, {supply_uflk - supply_before_uflk} minted"
    )


def assert_all(state: State) -> None:
    """The full form, over every row: for tests, `verify` and the start of a node."""
    chain = state.get(Chain)
    total = sum(compute_money_uflk(row) for row in state.rows())
    assert total == chain.supply_uflk, f"rows hold {total} uflk, the supply is {chain.supply_uflk} uflk"
    assert_bonds(state)
    assert_pools(state)
    assert_vestings(state)
    _assert_newest_set(state, chain)
    epoch = find_epoch(state)
    assert epoch is None or epoch.params == chain.params, "the newest epoch has other parameters than the chain"


def assert_bonds(state: State) -> None:
    bonds: dict[str, int] = {}
    for stake in state.iterate(Stake):
        bonds[stake.target] = bonds.get(stake.target, 0) + stake.amount_uflk
        assert stake.amount_uflk or stake.unbonding, "an empty bond has no row"
        assert sum(lot.amount for lot in stake.recent) <= stake.amount_uflk, "more came in lately than there is"
    for validator in state.iterate(ValidatorRow):
        bonded = bonds.get(f"validator:{validator.address.hex()}", 0)
        assert bonded == validator.bond_uflk, f"bonds of {bonded} uflk, validator row says {validator.bond_uflk}"
    assert {_name_entry(entry) for entry in state.iterate(Unbonding)} == set(_iterate_references(state)), (
        "bonds and the unbonding queue disagree"
    )


EntryName = tuple[bytes, bytes, str, UnbondingRef]


def _name_entry(entry: Unbonding) -> EntryName:
    assert sum(lot.amount for lot in entry.recent) <= entry.amount_uflk, "more came in lately than there is"
    return entry.owner, entry.delegate, entry.target, UnbondingRef(entry.release_ms, entry.sequence)


def _iterate_references(state: State) -> Iterator[EntryName]:
    for stake in state.iterate(Stake):
        yield from ((stake.owner, b"", stake.target, reference) for reference in stake.unbonding)
    for row in state.iterate(Delegation):
        yield from ((row.delegator, row.delegate, row.target, reference) for reference in row.unbonding)


def assert_pools(state: State) -> None:
    """A pool covers what its shares are worth and what they have earned."""
    delegated: dict[str, int] = {}
    for pool in state.iterate(DelegationPool):
        rows = list(state.iterate(Delegation, pool.delegate, pool.target))
        assert pool.delegators == len(rows), f"{len(rows)} delegations, the pool says {pool.delegators}"
        assert pool.shares == sum(row.shares for row in rows), "the shares of a pool are those of its delegations"
        assert (pool.shares > 0) == (pool.amount_uflk > 0), f"{pool.shares} shares of {pool.amount_uflk} uflk"
        assert pool.amount_uflk <= pool.shares, "a share is worth at most one uflk"
        earned = sum(compute_earned_uflk(pool, row) for row in rows)
        assert earned + pool.pending_uflk <= pool.rewards_uflk, f"{earned} uflk earned, {pool.rewards_uflk} are there"
        assert all(sum(lot.amount for lot in row.recent) <= row.shares for row in rows)
        delegated[pool.target] = delegated.get(pool.target, 0) + pool.amount_uflk
    for validator in state.iterate(ValidatorRow):
        inside = delegated.get(f"validator:{validator.address.hex()}", 0)
        assert inside == validator.delegated_uflk, f"a pool of {inside} uflk, validator row says otherwise"


def assert_vestings(state: State) -> None:
    """Rewards wait only for a final set that was not judged, and all that ever did are there."""
    waiting: dict[int, int] = {}
    for row in state.iterate(Vesting):
        waiting[row.task] = waiting.get(row.task, 0) + row.amount_uflk
    for final in state.iterate(FinalSet):
        expected = 0 if final.phase == "closed" else final.vested_uflk
        assert waiting.pop(final.task, 0) == expected, f"task {final.task} vested {expected} uflk"
    assert not waiting, "a reward waits without a final set"


def _assert_newest_set(state: State, chain: Chain) -> None:
    """A jailed or tombstoned validator has no power, unless nobody else could sign either."""
    members = state.get(ValidatorSet, chain.height + 2).members
    rows = [state.get(ValidatorRow, member.address) for member in members]
    are_eligible = [is_eligible(row, chain.params.stake) for row in rows]
    anyone = any(is_eligible(row, chain.params.stake) for row in state.iterate(ValidatorRow))
    assert all(are_eligible) or not anyone, "a validator without the right to it has power"
    if anyone:
        assert all(m.power == compute_power(r, chain.params.stake) for m, r in zip(members, rows, strict=True)), (
            "power differs from the bond"
        )
    assert [m.address for m in members] == sorted(m.address for m in members)
