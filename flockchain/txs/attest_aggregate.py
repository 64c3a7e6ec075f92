"""`attest-aggregate`: having computed the candidate for the next global adapter, name its root and what it measures.

The committee owes it in AGGREGATE. After the committee's deadline any bonded participant may attest the root, without
figures.
"""

from flockchain.errors import Refused
from flockchain.execution.ballots import check_attestation
from flockchain.execution.context import Context
from flockchain.execution.draw import compute_tickets
from flockchain.execution.epochs import get_task_params
from flockchain.execution.rounds import get_accepted, get_judge, get_round_in_phase, note_acted
from flockchain.execution.staking import get_bond_uflk, make_task_target
from flockchain.execution.state import State
from flockchain.types.rows import Attestation, Task, TrainingRound
from flockchain.types.task import AttestationBody as Body
from flockchain.types.tx import Tx

__all__ = ["KIND", "Body", "apply", "check", "is_due"]

KIND = "attest-aggregate"


def check(body: Body, tx: Tx) -> None:
    roots = [coefficient.root for coefficient in body.coefficients]
    if not roots or roots != sorted(set(roots)):
        raise Refused("bad-attestation", "coefficients are listed by root, at least one, none twice")


def apply(context: Context, tx: Tx, body: Body) -> None:
    training_round = _check_state(context.state, tx.sender, body)
    context.state.put(Attestation(body.task, body.round, tx.sender, body, context.height))
    note_acted(context.state, training_round)


def is_due(state: State, tx: Tx, body: Body) -> bool:
    """Free for the committee alone."""
    try:
        training_round = _check_state(state, tx.sender, body)
    except Refused:
        return False
    return any(member.address == tx.sender for member in training_round.committee)


def _check_state(state: State, sender: bytes, body: Body) -> TrainingRound:
    if state.find(Attestation, body.task, body.round, sender) is not None:
        raise Refused("already-attested", f"the sender has attested round {body.round} of task {body.task}")
    task, training_round = get_round_in_phase(state, body.task, body.round, "aggregate")
    is_judge = any(member.address == sender for member in training_round.committee)
    if is_judge or not training_round.second_deadline:
        covered = get_judge(state, training_round, sender).domains
    else:
        _check_bonded(state, task, sender)
        covered = ()
    most = get_task_params(state, task).max_adapter_bytes
    check_attestation(body, get_accepted(training_round), covered, most)
    return training_round


def _check_bonded(state: State, task: Task, sender: bytes) -> None:
    bond = get_bond_uflk(state, sender, make_task_target(task.id))
    if not compute_tickets(bond, task.spec.min_bond_uflk, 1):
        raise Refused(
            "no-bond", f"a bond of {bond} uflk in task {task.id} is below its minimum of {task.spec.min_bond_uflk} uflk"
        )
