"""The end of unbonding: what has waited long enough goes back to its owner's balance."""

import msgspec

from flockchain.execution.balances import increase_balance
from flockchain.execution.context import Context
from flockchain.execution.delegation import drop_delegation_entry, drop_idle_pool
from flockchain.execution.staking import put_stake
from flockchain.execution.state import State
from flockchain.execution.unbonding import drop_reference
from flockchain.types.rows import Stake, Unbonding

MAX_RELEASES_PER_BLOCK = 1_000


def process_unbonding(context: Context) -> None:
    """Pay out what has waited long enough, at most `MAX_RELEASES_PER_BLOCK` entries; the rest is due at once again."""
    state = context.state
    for _ in range(MAX_RELEASES_PER_BLOCK):
        entry = state.first(Unbonding)
        if entry is None or entry.release_ms > context.time_ms:
            return
        state.delete(Unbonding, entry.release_ms, entry.owner, entry.target, entry.sequence)
        if entry.delegate:
            drop_delegation_entry(context, entry)
        else:
            _drop_bond_entry(state, entry)
        drop_idle_pool(state, entry.delegate or entry.owner, entry.target)
        increase_balance(state, entry.owner, entry.amount_uflk)
        context.add_receipt("unbonded", entry.owner, entry.amount_uflk, f"unbonding of {entry.target} is complete")


def _drop_bond_entry(state: State, entry: Unbonding) -> None:
    stake = state.get(Stake, entry.owner, entry.target)
    put_stake(state, msgspec.structs.replace(stake, unbonding=drop_reference(stake.unbonding, entry)))
