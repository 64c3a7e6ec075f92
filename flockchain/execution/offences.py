"""Penalties that the chain sees by itself in a training round, without anyone sending evidence."""

from flockchain.execution.context import Context
from flockchain.execution.epochs import get_task_params
from flockchain.execution.rounds import get_freeze_height
from flockchain.execution.slashing import slash_bond
from flockchain.execution.staking import get_stake, make_task_target
from flockchain.types.rows import Task, TrainingRound


def penalise(
    context: Context,
    task: Task,
    training_round: TrainingRound,
    owner: bytes,
    base_ppm: int,
    reason: str,
    *,
    evidence: bytes = b"",
    **facts: int,
) -> int:
    """Take `base_ppm` of the owner's bond in the task, times the number of its offences with this one, up to the
    chain's cap; returns the uflk taken. It reaches the stake that was frozen for the draw, delegations included.
    What falls below the minimum bond is not drawn again.
    """
    as_of_height = get_freeze_height(context.state, training_round, owner)
    return penalise_as_of(
        context, task, training_round.number, as_of_height, owner, base_ppm, reason, evidence=evidence, **facts
    )


def penalise_as_of(
    context: Context,
    task: Task,
    number: int,
    as_of_height: int,
    owner: bytes,
    base_ppm: int,
    reason: str,
    *,
    evidence: bytes = b"",
    **facts: int,
) -> int:
    """As `penalise`, for the stake at the end of block `as_of_height`; `number` is the round's."""
    target = make_task_target(task.id)
    stake = get_stake(context.state, owner, target)
    if base_ppm == 0:
        return 0
    offence = stake.offences + 1 if stake else 1
    ppm = min(base_ppm * offence, get_task_params(context.state, task).max_penalty_ppm)
    return slash_bond(
        context,
        owner,
        target,
        ppm,
        reason=reason,
        reporter=None,
        evidence=evidence,
        as_of_height=as_of_height,
        task=task.id,
        round=number,
        offence=offence,
        base_penalty_ppm=base_ppm,
        **facts,
    )
