"""`leave-task`: not to be drawn again in a task. Who is drawn in the current round still owes it; `unstake` follows."""

import msgspec

from flockchain.codec import Canonical
from flockchain.errors import Refused
from flockchain.execution.context import Context
from flockchain.execution.staking import get_stake, make_task_target
from flockchain.types.ids import UInt
from flockchain.types.tx import Tx

KIND = "leave-task"


class Body(Canonical, frozen=True):
    task: UInt


def check(body: Body, tx: Tx) -> None:
    pass


def apply(context: Context, tx: Tx, body: Body) -> None:
    stake = get_stake(context.state, tx.sender, make_task_target(body.task))
    if stake is None or stake.amount_uflk == 0:
        raise Refused("no-bond", f"the sender has no bond in task {body.task}")
    if stake.leaving:
        raise Refused("left-task", f"the sender has already left task {body.task}")
    context.state.put(msgspec.structs.replace(stake, leaving=True))
    context.touched_tasks.add(body.task)
