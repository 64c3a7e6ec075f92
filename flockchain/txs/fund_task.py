"""`fund-task`: add to the reward pool of an open task. What is left at its end is refunded to the task's creator."""

import msgspec

from flockchain.codec import Canonical
from flockchain.errors import Refused
from flockchain.execution.balances import check_balance, decrease_balance
from flockchain.execution.context import Context
from flockchain.execution.rounds import get_open_task
from flockchain.types.ids import Uflk, UInt
from flockchain.types.tx import Tx

KIND = "fund-task"


class Body(Canonical, frozen=True):
    task: UInt
    amount_uflk: Uflk


def check(body: Body, tx: Tx) -> None:
    if body.amount_uflk == 0:
        raise Refused("zero-amount", "a task is funded with at least 1 uflk")


def apply(context: Context, tx: Tx, body: Body) -> None:
    task = get_open_task(context.state, body.task)
    check_balance(context.state, tx.sender, body.amount_uflk, f"funding of task {body.task}")
    decrease_balance(context.state, tx.sender, body.amount_uflk)
    context.state.put(msgspec.structs.replace(task, pool_uflk=task.pool_uflk + body.amount_uflk))
