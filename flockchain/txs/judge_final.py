"""`judge-final`: a drawn judge measures the last global adapter against the first on the revealed final set.

The entry is that of a ballot: scored with a figure for each domain, or why it could not be measured. It is not sealed:
all judges measure the same public text, so that everyone can measure again what a judge says.
"""

from flockchain.codec import Canonical
from flockchain.errors import Refused
from flockchain.execution.context import Context
from flockchain.execution.final import get_final_in_phase, get_final_judges
from flockchain.execution.final_verdict import check_entry
from flockchain.execution.state import State
from flockchain.types.ids import UInt
from flockchain.types.rows import FinalVote, Task
from flockchain.types.task import AdapterFigures
from flockchain.types.tx import Tx

KIND = "judge-final"


class Body(Canonical, frozen=True):
    task: UInt
    entry: AdapterFigures
    """`change_ppm` is against the adapter with which the task began; the figures against the best repeat it."""


def check(body: Body, tx: Tx) -> None:
    """Its form depends on the task's domains: see `apply`."""


def apply(context: Context, tx: Tx, body: Body) -> None:
    task = _check_state(context.state, tx.sender, body)
    check_entry(task, body.entry)
    context.state.put(FinalVote(task.id, tx.sender, body.entry))
    context.touched_tasks.add(task.id)


def is_due(state: State, tx: Tx, body: Body) -> bool:
    try:
        task = _check_state(state, tx.sender, body)
        check_entry(task, body.entry)
    except Refused:
        return False
    return True


def _check_state(state: State, sender: bytes, body: Body) -> Task:
    task, _ = get_final_in_phase(state, body.task, "judge")
    if all(judge.address != sender for judge in get_final_judges(state, task)):
        raise Refused("not-drawn", f"the sender is no judge of the final set of task {task.id}")
    if state.find(FinalVote, task.id, sender) is not None:
        raise Refused("already-voted", f"the sender has judged the final set of task {task.id}")
    return task
