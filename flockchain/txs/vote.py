"""`vote`: a committee member judges its round's adapters, sealed in COMMIT and opened in REVEAL.

The seal is ``compute_seal(genesis_hash, ballot, voter, salt)``. An opening that does not match its seal is refused,
and counts as not revealed at the deadline.
"""

from flockchain.codec import Canonical
from flockchain.crypto import HASH_BYTES
from flockchain.errors import Refused
from flockchain.execution.ballots import check_ballot, compute_seal
from flockchain.execution.context import Context
from flockchain.execution.rounds import get_assigned, get_judge, get_round_in_phase, note_acted
from flockchain.execution.state import State
from flockchain.types.ids import OptionalHash, UInt
from flockchain.types.rows import Chain, OpenVote, SealedVote, TrainingRound
from flockchain.types.task import Ballot
from flockchain.types.tx import Tx

__all__ = ["KIND", "Body", "apply", "check", "compute_seal", "is_due"]

KIND = "vote"


class Body(Canonical, frozen=True):
    """Either `seal`, or `ballot` and `salt`."""

    task: UInt
    round: UInt
    seal: OptionalHash = b""
    ballot: Ballot | None = None
    salt: OptionalHash = b""


def check(body: Body, tx: Tx) -> None:
    if body.ballot is None:
        if len(body.seal) != HASH_BYTES or body.salt:
            raise Refused("bad-vote", f"a sealed vote holds a seal of {HASH_BYTES} bytes and nothing else")
        return
    if body.seal or len(body.salt) != HASH_BYTES:
        raise Refused("bad-vote", f"an open vote holds a ballot, its salt of {HASH_BYTES} bytes, and no seal")
    if (body.ballot.task, body.ballot.round) != (body.task, body.round):
        raise Refused(
            "bad-vote",
            f"the ballot is for round {body.ballot.round} of task {body.ballot.task}, "
            f"the vote for round {body.round} of task {body.task}",
        )


def apply(context: Context, tx: Tx, body: Body) -> None:
    state = context.state
    training_round = _check_state(state, tx.sender, body)
    if body.ballot is None:
        state.put(SealedVote(body.task, body.round, tx.sender, body.seal))
    else:
        state.put(OpenVote(body.task, body.round, tx.sender, body.ballot.figures, body.salt))
    note_acted(state, training_round)


def is_due(state: State, tx: Tx, body: Body) -> bool:
    try:
        _check_state(state, tx.sender, body)
    except Refused:
        return False
    return True


def _check_state(state: State, sender: bytes, body: Body) -> TrainingRound:
    if body.ballot is None:
        return _check_sealed(state, sender, body)
    return _check_open(state, sender, body, body.ballot)


def _check_sealed(state: State, sender: bytes, body: Body) -> TrainingRound:
    if state.find(SealedVote, body.task, body.round, sender) is not None:
        raise Refused("already-voted", f"the sender has sealed its vote for round {body.round} of task {body.task}")
    _, training_round = get_round_in_phase(state, body.task, body.round, "commit")
    get_judge(state, training_round, sender)
    return training_round


def _check_open(state: State, sender: bytes, body: Body, ballot: Ballot) -> TrainingRound:
    if state.find(OpenVote, body.task, body.round, sender) is not None:
        raise Refused("already-voted", f"the sender has opened its vote for round {body.round} of task {body.task}")
    _, training_round = get_round_in_phase(state, body.task, body.round, "reveal")
    judge = get_judge(state, training_round, sender)
    sealed = state.find(SealedVote, body.task, body.round, sender)
    if sealed is None:
        raise Refused("not-sealed", f"the sender did not seal a vote for round {body.round} of task {body.task}")
    seal = compute_seal(state.get(Chain).genesis_hash, ballot, sender, body.salt)
    if seal != sealed.seal:
        raise Refused("wrong-seal", f"ballot and salt give seal {seal.hex()}, the sender sealed {sealed.seal.hex()}")
    check_ballot(ballot, get_assigned(training_round, sender), judge.domains)
    return training_round
