"""Penalties that the chain sees by itself in a training round, without anyone sending evidence."""

from flockchain.execution.context import Context
from flockchain.execution.staking import get_stake, make_task_target, slash_bond
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
    chain's cap; returns the uflk taken. What falls below the minimum bond is not drawn again.
    """
    target = make_task_target(task.id)
    stake = get_stake(context.state, owner, target)
    if stake is None or base_ppm == 0:
        return 0
    offence = stake.offences + 1
    ppm = min(base_ppm * offence, context.params.tasks.max_penalty_ppm)
    return slash_bond(
        context,
        owner,
        target,
        ppm,
        reason=reason,
        reporter=None,
        evidence=evidence,
        offence_ms=training_round.started_ms,
        task=task.id,
        round=training_round.number,
        offence=offence,
        base_penalty_ppm=base_ppm,
        **facts,
    )
