"""The unbonding queue: stake on its way out, in the order in which it is released, slashable until then.

The bond that it left points at each entry (`UnbondingRef`), so that a slash never scans the queue.
"""

import msgspec

from flockchain.execution.context import Context
from flockchain.execution.lots import cut_lots, sum_after
from flockchain.execution.state import State
from flockchain.params import PPM
from flockchain.types.rows import Lot, Unbonding, UnbondingRef


def add_entry(
    context: Context, owner: bytes, target: str, amount_uflk: int, recent: tuple[Lot, ...], delegate: bytes = b""
) -> UnbondingRef:
    """Queue stake that its caller has taken out of a bond, or out of the pool of `delegate`."""
    chain = context.chain
    entry = Unbonding(
        release_ms=context.time_ms + chain.params.stake.unbonding_ms,
        owner=owner,
        target=target,
        sequence=chain.next_sequence,
        amount_uflk=amount_uflk,
        created_ms=context.time_ms,
        created_height=context.height,
        delegate=delegate,
        recent=recent,
    )
    context.state.put(entry)
    context.state.put(msgspec.structs.replace(chain, next_sequence=chain.next_sequence + 1))
    return UnbondingRef(entry.release_ms, entry.sequence)


def cut_entries(
    state: State, owner: bytes, target: str, references: tuple[UnbondingRef, ...], ppm: int, as_of_height: int
) -> int:
    """Take `ppm` of the stake that stood at `as_of_height` and left afterwards; returns the uflk taken.

    Entries that left before are untouched, and so is what came in afterwards. Each entry is rounded down.
    """
    taken = 0
    for reference in references:
        entry = state.get(Unbonding, reference.release_ms, owner, target, reference.sequence)
        if entry.created_height > as_of_height:
            cut = (entry.amount_uflk - sum_after(entry.recent, as_of_height)) * ppm // PPM
            recent = cut_lots(entry.recent, as_of_height, ppm)
            state.put(msgspec.structs.replace(entry, amount_uflk=entry.amount_uflk - cut, recent=recent))
            taken += cut
    return taken


def drop_reference(references: tuple[UnbondingRef, ...], entry: Unbonding) -> tuple[UnbondingRef, ...]:
    """The references of a bond without that of a released entry."""
    rest = tuple(reference for reference in references if reference.sequence != entry.sequence)
    assert len(rest) == len(references) - 1
    return rest


def compute_next_release_ms(state: State) -> int | None:
    entry = state.first(Unbonding)
    return entry.release_ms if entry else None
