"""Lots: what of a bond came in lately, so that a slash or a reward reaches exactly the stake that stood at a height.

A bond keeps its newest arrivals apart, each with its height, for as long as something older may still surface. What
leaves is taken from the oldest first. Amounts are uflk, or shares of a delegation.
"""

from collections.abc import Iterable

from flockchain.execution.context import Context
from flockchain.params import PPM
from flockchain.types.rows import Lot

MAX_LOTS = 8
"""Per bond. With a ninth arrival the oldest lot counts as if it had always been there."""


def compute_forgotten_ms(context: Context) -> int:
    """Lots and moves from before this time are forgotten: what left then is paid out, what was done then is too old."""
    return context.time_ms - context.params.stake.unbonding_ms


def add_lot(context: Context, lots: tuple[Lot, ...], amount: int) -> tuple[Lot, ...]:
    """The lots after `amount` came in with this block."""
    kept = [lot for lot in lots if lot.time_ms >= compute_forgotten_ms(context)]
    if kept and kept[-1].height == context.height:
        amount += kept.pop().amount
    if amount:
        kept.append(Lot(context.height, context.time_ms, amount))
    return tuple(kept[-MAX_LOTS:])


def take_lots(lots: tuple[Lot, ...], total: int, amount: int) -> tuple[tuple[Lot, ...], tuple[Lot, ...]]:
    """(what stays, what goes) when `amount` of a bond of `total` leaves, oldest first."""
    wanted = max(0, amount - (total - sum(lot.amount for lot in lots)))
    stays, goes = [], []
    for lot in lots:
        part = min(wanted, lot.amount)
        wanted -= part
        goes.append(Lot(lot.height, lot.time_ms, part))
        stays.append(Lot(lot.height, lot.time_ms, lot.amount - part))
    assert wanted == 0
    return _drop_empty(stays), _drop_empty(goes)


def sum_after(lots: tuple[Lot, ...], as_of_height: int) -> int:
    """What came in after the end of block `as_of_height`."""
    return sum(lot.amount for lot in lots if lot.height > as_of_height)


def cut_lots(lots: tuple[Lot, ...], as_of_height: int, ppm: int) -> tuple[Lot, ...]:
    """The lots after a slash of what stood at `as_of_height`, rounded down so that they fit in what is left."""
    cut = (
        lot if lot.height > as_of_height else Lot(lot.height, lot.time_ms, lot.amount * (PPM - ppm) // PPM)
        for lot in lots
    )
    return _drop_empty(cut)


def grow_lots(lots: tuple[Lot, ...], as_of_height: int, more: int) -> tuple[Lot, ...]:
    """The lots with `more` added to those after `as_of_height`, in proportion; what does not divide, to the newest."""
    late, left = sum_after(lots, as_of_height), more
    grown = []
    for lot in lots:
        part = lot.amount * more // late if lot.height > as_of_height else 0
        left -= part
        grown.append(Lot(lot.height, lot.time_ms, lot.amount + part))
    newest = grown.pop()
    return (*grown, Lot(newest.height, newest.time_ms, newest.amount + left))


def _drop_empty(lots: Iterable[Lot]) -> tuple[Lot, ...]:
    return tuple(lot for lot in lots if lot.amount)
