"""`reveal-final`: the creator opens its hidden final set; the bytes go to a node and are checked there."""

from flockchain.codec import Canonical
from flockchain.errors import Refused
from flockchain.execution.context import Context
from flockchain.execution.final import freeze_judges, get_final_in_phase
from flockchain.types.ids import UInt
from flockchain.types.tx import Tx

KIND = "reveal-final"


class Body(Canonical, frozen=True):
    task: UInt


def check(body: Body, tx: Tx) -> None:
    """Nothing to check without the state."""


def apply(context: Context, tx: Tx, body: Body) -> None:
    task, final = get_final_in_phase(context.state, body.task, "reveal")
    if tx.sender != task.creator:
        raise Refused("not-creator", f"the final set of task {task.id} is its creator's to reveal")
    freeze_judges(context, task, final)
