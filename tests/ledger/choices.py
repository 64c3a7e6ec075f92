"""What rules choose among: validators, tasks, rounds and their members, mostly those that fit."""

from flockchain.types.rows import OpenTask, TrainingRound, ValidatorRow
from tests.ledger.dice import Dice
from tests.ledger.duties import Duty, find_duties
from tests.ledger.world import World
from tests.support.ledger import make_address


def pick_validator(world: World, dice: Dice) -> ValidatorRow:
    """Mostly one that is bonded."""
    rows = list(world.state.iterate(ValidatorRow))
    bonded = [row for row in rows if row.bond_uflk]
    return dice.pick(rows if dice.is_one_in(8) or not bonded else bonded)


def pick_task(world: World, dice: Dice) -> int:
    """Number of a task, mostly an open one; some do not exist."""
    numbers = [row.task for row in world.state.iterate(OpenTask)]
    return dice.pick(numbers) if numbers and not dice.is_one_in(8) else 1 + dice.below(9)


def pick_duty(world: World, dice: Dice, phase: str) -> Duty:
    """A member with something to do in this phase; where there is none, anybody in any round."""
    due = find_duties(world, phase)
    if due and not dice.is_one_in(10):
        return dice.pick(due)
    return pick_round(world, dice), make_address(dice.pick(world.actors))


def pick_member(world: World, dice: Dice, role: str) -> tuple[TrainingRound, str]:
    """Somebody drawn in this role in an open round; where nobody is, anybody."""
    members = [
        (training, world.names[address])
        for _, training in world.open_rounds()
        for address in (training.trainers if role == "trainer" else [seat.address for seat in training.committee])
    ]
    return dice.pick(members) if members else (pick_round(world, dice), dice.pick(world.actors))


def pick_round(world: World, dice: Dice) -> TrainingRound:
    """Of an open task, or else any round at all: a history opens its first task in its first block."""
    rounds = [training for _, training in world.open_rounds()]
    return dice.pick(rounds or list(world.state.iterate(TrainingRound)))
