"""`confirm-fetched`: a drawn member has the round's adapters, or says at the end which of them it could not get.

A committee member's list counts with its seats: what two thirds could not get is left out as unavailable. PUBLISH ends
early when the whole committee has confirmed with nothing missing. A trainer may confirm too; nobody waits for it.
"""

from flockchain.codec import Canonical
from flockchain.errors import Refused
from flockchain.execution.context import Context
from flockchain.execution.rounds import get_round_in_phase, note_acted
from flockchain.execution.state import State
from flockchain.types.ids import Hash, UInt
from flockchain.types.rows import FetchedRow, Submission, TrainingRound
from flockchain.types.tx import Tx

KIND = "confirm-fetched"


class Body(Canonical, frozen=True):
    task: UInt
    round: UInt
    unavailable: tuple[Hash, ...]
    """Roots whose bytes could not be had, sorted; empty: all are here."""


def check(body: Body, tx: Tx) -> None:
    if list(body.unavailable) != sorted(set(body.unavailable)):
        raise Refused("bad-list", "unavailable lists roots in order, none twice")


def apply(context: Context, tx: Tx, body: Body) -> None:
    state = context.state
    training_round = _check_state(state, tx.sender, body)
    state.put(FetchedRow(body.task, body.round, tx.sender, body.unavailable))
    is_judge = any(member.address == tx.sender for member in training_round.committee)
    if is_judge and not body.unavailable:
        note_acted(state, training_round)


def is_due(state: State, tx: Tx, body: Body) -> bool:
    try:
        _check_state(state, tx.sender, body)
    except Refused:
        return False
    return True


def _check_state(state: State, sender: bytes, body: Body) -> TrainingRound:
    _, training_round = get_round_in_phase(state, body.task, body.round, "publish")
    is_judge = any(member.address == sender for member in training_round.committee)
    if not is_judge and sender not in training_round.trainers:
        raise Refused("not-drawn", f"the sender is not drawn in round {body.round} of task {body.task}")
    if state.find(FetchedRow, body.task, body.round, sender) is not None:
        raise Refused("already-confirmed", f"the sender has confirmed round {body.round} of task {body.task}")
    roots = {row.root for row in state.iterate(Submission, body.task, body.round)}
    for root in body.unavailable:
        if root not in roots:
            raise Refused("unknown-adapter", f"adapter {root.hex()} was not submitted in round {body.round}")
    return training_round
