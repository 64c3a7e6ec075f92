"""`submit-adapter`: a drawn trainer records the root of its update. The bytes stay private until submissions close."""

from flockchain.codec import Canonical
from flockchain.errors import Refused
from flockchain.execution.context import Context
from flockchain.execution.rounds import get_round_in_phase, note_acted
from flockchain.execution.state import State
from flockchain.types.ids import Hash, OptionalHash, Text, UInt
from flockchain.types.rows import Adapter, Submission, TrainingRound
from flockchain.types.tx import Tx

KIND = "submit-adapter"


class Body(Canonical, frozen=True):
    task: UInt
    round: UInt
    root: Hash
    """Merkle root over the file's 256 KiB chunks."""
    size_bytes: UInt
    base_root: OptionalHash
    """Global adapter from which it was trained; empty: the base itself."""
    examples: UInt
    """As the trainer reports it; never used for rewards or coefficients."""
    versions: Text
    """Of the software that trained it, for people."""


def check(body: Body, tx: Tx) -> None:
    if body.size_bytes == 0:
        raise Refused("bad-adapter", "an adapter has at least 1 byte")


def apply(context: Context, tx: Tx, body: Body) -> None:
    state = context.state
    training_round = _check_state(state, tx.sender, body)
    state.put(
        Submission(
            task=body.task,
            round=body.round,
            trainer=tx.sender,
            root=body.root,
            size_bytes=body.size_bytes,
            base_root=body.base_root,
            examples=body.examples,
            versions=body.versions,
            height=context.height,
            tx_hash=context.tx_hash,
        )
    )
    state.put(Adapter(body.root, "update", body.task, body.round, tx.sender, body.size_bytes))
    note_acted(state, training_round)


def is_due(state: State, tx: Tx, body: Body) -> bool:
    try:
        _check_state(state, tx.sender, body)
    except Refused:
        return False
    return True


def _check_state(state: State, sender: bytes, body: Body) -> TrainingRound:
    known = state.find(Submission, body.task, body.round, sender)
    if known is not None:
        same = "this adapter is recorded" if known.root == body.root else f"adapter {known.root.hex()} was submitted"
        raise Refused("already-submitted", f"{same} for round {body.round} of task {body.task}: one adapter a round")
    task, training_round = get_round_in_phase(state, body.task, body.round, "train")
    if sender not in training_round.trainers:
        raise Refused("not-drawn", f"the sender is not a trainer of round {body.round} of task {body.task}")
    if body.base_root != training_round.base_root:
        raise Refused(
            "wrong-base",
            f"the adapter was trained from {body.base_root.hex() or 'the base'}, "
            f"round {body.round} starts from {training_round.base_root.hex() or 'the base'}",
        )
    if body.size_bytes > task.spec.max_adapter_bytes:
        most = task.spec.max_adapter_bytes
        raise Refused("adapter-too-large", f"an adapter of {body.size_bytes} bytes exceeds the task's {most} bytes")
    earlier = state.find(Adapter, body.root)
    if earlier is not None:
        raise Refused(
            "equal-adapter", f"adapter {body.root.hex()} was recorded in round {earlier.round} of task {earlier.task}"
        )
    return training_round
