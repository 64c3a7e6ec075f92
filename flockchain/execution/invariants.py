"""What must hold after every block (docs/protocol.md, section 7). A breach is our bug: an assert, never a refusal."""

from collections.abc import Callable, Iterable
from typing import Any

from flockchain.execution.state import State
from flockchain.execution.validators import is_eligible
from flockchain.types.rows import (
    Account,
    Chain,
    RecentBlock,
    Row,
    Stake,
    Task,
    Unbonding,
    UnbondingRef,
    ValidatorRow,
    ValidatorSet,
)

_MONEY: dict[type, Callable[[Any], tuple[int, ...]]] = {
    Account: lambda row: (row.balance_uflk,),
    Stake: lambda row: (row.amount_uflk,),
    Unbonding: lambda row: (row.amount_uflk,),
    ValidatorRow: lambda row: (row.income_uflk,),
    RecentBlock: lambda row: tuple(signer.income_uflk for signer in row.absent),
    Task: lambda row: (row.pool_uflk, row.deposit_uflk),
    Chain: lambda row: (row.community_pool_uflk, row.fee_pool_uflk),
}
"""Every place where money can be. A validator's `bond_uflk` is the sum of its `Stake` rows, not money of its own."""

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
    _assert_bonds(state)
    _assert_newest_set(state, chain)


def _assert_bonds(state: State) -> None:
    bonds: dict[str, int] = {}
    references: set[tuple[bytes, str, UnbondingRef]] = set()
    for stake in state.iterate(Stake):
        bonds[stake.target] = bonds.get(stake.target, 0) + stake.amount_uflk
        references.update((stake.owner, stake.target, reference) for reference in stake.unbonding)
        assert stake.amount_uflk or stake.unbonding, "an empty bond has no row"
    for validator in state.iterate(ValidatorRow):
        bonded = bonds.get(f"validator:{validator.address.hex()}", 0)
        assert bonded == validator.bond_uflk, f"bonds of {bonded} uflk, validator row says {validator.bond_uflk}"
    queue = {(u.owner, u.target, UnbondingRef(u.release_ms, u.sequence)) for u in state.iterate(Unbonding)}
    assert queue == references, "bonds and the unbonding queue disagree"


def _assert_newest_set(state: State, chain: Chain) -> None:
    """A jailed or tombstoned validator has no power, unless nobody else could sign either."""
    members = state.get(ValidatorSet, chain.height + 2).members
    rows = [state.get(ValidatorRow, member.address) for member in members]
    are_eligible = [is_eligible(row, chain.params.stake) for row in rows]
    anyone = any(is_eligible(row, chain.params.stake) for row in state.iterate(ValidatorRow))
    assert all(are_eligible) or not anyone, "a validator without the right to it has power"
    if anyone:
        assert all(m.power == r.bond_uflk for m, r in zip(members, rows, strict=True)), "power differs from the bond"
    assert [m.address for m in members] == sorted(m.address for m in members)
