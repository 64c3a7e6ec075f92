"""`create-task`: open a task for anyone to join, with its reward pool and a deposit; both are refunded at the end.

A final set that the sender committed to before (`commit-final`) belongs to it from here on.
"""

from flockchain.codec import Canonical
from flockchain.errors import Refused
from flockchain.execution.balances import check_balance
from flockchain.execution.context import Context
from flockchain.execution.final import check_final
from flockchain.execution.state import State
from flockchain.execution.tasks import check_spec, check_spec_limits, open_task
from flockchain.types.ids import Uflk
from flockchain.types.rows import FinalPledge, OpenTask
from flockchain.types.task import TaskSpec
from flockchain.types.tx import Tx

KIND = "create-task"


class Body(Canonical, frozen=True):
    spec: TaskSpec
    pool_uflk: Uflk


def check(body: Body, tx: Tx) -> None:
    check_spec(body.spec)


def apply(context: Context, tx: Tx, body: Body) -> None:
    params = context.params
    check_spec_limits(body.spec, params)
    open_tasks = count_open_tasks(context.state)
    if open_tasks >= params.tasks.max_open_tasks:
        raise Refused("too-many-tasks", f"{open_tasks} tasks are open, the most that are allowed: wait for one to end")
    pledge = context.state.find(FinalPledge, tx.sender)
    if pledge is not None:
        check_final(context.state, pledge.terms, body.spec, params)
    judge_pay_uflk = pledge.terms.judge_pay_uflk if pledge is not None else 0
    total = body.pool_uflk + params.tasks.create_deposit_uflk + judge_pay_uflk
    what = f"pool of {body.pool_uflk} uflk and deposit of {params.tasks.create_deposit_uflk} uflk, together"
    if pledge is not None:
        what = f"pool, deposit and {judge_pay_uflk} uflk for the final set's judges, together"
    check_balance(context.state, tx.sender, total, what)
    open_task(context, tx.sender, tx.nonce, body.spec, body.pool_uflk)


def count_open_tasks(state: State) -> int:
    return sum(1 for _ in state.iterate(OpenTask))
