"""What a history may do to its own parameters. Upgrades lie too far ahead to come; they can be cancelled."""

from typing import Any

from flockchain.params import get_param
from flockchain.txs import approve_change, propose_change
from flockchain.types.change import Setting, Upgrade
from flockchain.types.rows import Approval, Change, OpenChange, ScheduledChange
from tests.ledger.choices import pick_validator
from tests.ledger.dice import Dice
from tests.ledger.world import World

FAR_HEIGHT, FAR_MS = 10**9, 2**50
SETTINGS = {
    "fees.min_fee_uflk": (50, 100, 400),
    "stake.max_validators": (4, 6, 8),
    "stake.min_validator_bond_uflk": (1_000_000_000, 5_000_000_000, 2**60),
    "stake.unbonding_ms": (100_000, 110_000, 90_000),
    "stake.evidence_age_ms": (80_000, 105_000, 40_000),
    "stake.jail_ms": (10_000, 20_000),
    "stake.inflation_ppm_per_year": (0, 20_000, 2_000_000),
    "tasks.max_open_tasks": (1, 2, 3),
    "tasks.max_penalty_ppm": (10_000, 500_000),
    "tasks.max_tickets_per_account": (1, 100),
    "tasks.missed_rounds": (1, 2),
}
"""Some values are refused: out of range, lower than they may be, or in contradiction with others."""


def make_propose_change(world: World, dice: Dice) -> tuple[str, propose_change.Body]:
    validator = pick_validator(world, dice)
    deadline_ms = world.time_ms + dice.pick([60_000, 3_600_000, 10_000, 10**12, -1])
    waiting = [row.change for row in world.state.iterate(ScheduledChange)]
    content: dict[str, Any] = {"settings": _pick_settings(world, dice)}
    choice = dice.below(8)
    if choice == 6:
        height, time_ms = dice.pick([(FAR_HEIGHT, 0), (0, FAR_MS), (1, 0), (0, 1)])
        content = {"upgrade": Upgrade(dice.pick([2, 2, 3]), "", height, time_ms)}
    elif choice == 7:
        content = {"cancels": dice.pick(waiting) if waiting else 1 + dice.below(9)}
    body = propose_change.Body(validator=validator.address, deadline_ms=deadline_ms, **content)
    return world.names[validator.owner], body


def _pick_settings(world: World, dice: Dice) -> tuple[Setting, ...]:
    """Values of one or two parameters, mostly other ones than now."""
    paths = sorted({dice.pick(list(SETTINGS)) for _ in range(1 + dice.below(2))})
    params = world.ledger.chain.params
    settings = []
    for path in paths:
        others = [value for value in SETTINGS[path] if value != get_param(params, path)]
        settings.append(Setting(path, dice.pick(others or [1])))
    return tuple(settings)


def make_approve_change(world: World, dice: Dice) -> tuple[str, approve_change.Body]:
    """Mostly of an open change, by a validator that has not approved it."""
    numbers = [row.change for row in world.state.iterate(OpenChange)]
    validator = pick_validator(world, dice)
    if not numbers or dice.is_one_in(8):
        known = [row.id for row in world.state.iterate(Change)]
        number = dice.pick(known) if known and dice.below(2) else 1 + dice.below(9)
    else:
        missing = [n for n in numbers if world.state.find(Approval, n, validator.address) is None]
        number = dice.pick(missing or numbers)
    return world.names[validator.owner], approve_change.Body(validator.address, number)
