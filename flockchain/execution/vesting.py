"""Rewards: paid at once, or in a task with a hidden final set partly kept until that was judged."""

import msgspec

from flockchain.execution.balances import increase_balance, increase_community_pool
from flockchain.execution.context import Context
from flockchain.execution.delegation import get_pool, give_delegators_part
from flockchain.execution.lots import sum_after
from flockchain.execution.rounds import get_freeze_height
from flockchain.execution.staking import get_stake, make_task_target
from flockchain.params import PPM
from flockchain.types.rows import FinalSet, Task, TrainingRound, Vesting

RELEASED = "vested reward, released"


def pay_reward(
    context: Context, training_round: TrainingRound, address: bytes, amount_uflk: int, reason: str, **facts: int
) -> None:
    """To the participant, with its delegators' part of it; the caller has taken it from where it was."""
    passed_on = _pass_on(context, training_round, address, amount_uflk)
    increase_balance(context.state, address, amount_uflk - passed_on)
    place = {"task": training_round.task, "round": training_round.number}
    facts = {**facts, "delegators_uflk": passed_on}
    context.add_receipt("reward", address, amount_uflk, reason, **place, evidence=b"", **facts)


def _pass_on(context: Context, training_round: TrainingRound, address: bytes, amount_uflk: int) -> int:
    """The delegators' part of a reward, by the stake that was frozen for the draw and is still there; returns it."""
    target = make_task_target(training_round.task)
    stake, pool = get_stake(context.state, address, target), get_pool(context.state, address, target)
    if stake is None or pool is None:
        return 0
    as_of_height = get_freeze_height(context.state, training_round, address)
    own_uflk = stake.amount_uflk - sum_after(stake.recent, as_of_height)
    return give_delegators_part(context, pool, own_uflk, amount_uflk, as_of_height)


def keep_vested(context: Context, training_round: TrainingRound, trainer: bytes, reward_uflk: int) -> int:
    """What of a trainer's reward waits for the final judgement; 0 in a task without a final set."""
    final = context.state.find(FinalSet, training_round.task)
    vested = reward_uflk * final.terms.vested_ppm // PPM if final is not None else 0
    if vested:
        assert final is not None
        context.state.put(Vesting(training_round.task, training_round.number, trainer, vested))
        context.state.put(msgspec.structs.replace(final, vested_uflk=final.vested_uflk + vested))
    return vested


def release_vested(context: Context, task: Task) -> None:
    """Pay every vested reward, each with the delegators of its own round."""
    for row in list(context.state.iterate(Vesting, task.id)):
        context.state.delete(Vesting, task.id, row.round, row.trainer)
        training_round = context.state.get(TrainingRound, task.id, row.round)
        pay_reward(context, training_round, row.trainer, row.amount_uflk, RELEASED)


def forfeit_vested(context: Context, task: Task, reason: str) -> None:
    """To the community pool, never to the creator: it must gain nothing by a final set that nobody could pass."""
    for row in list(context.state.iterate(Vesting, task.id)):
        context.state.delete(Vesting, task.id, row.round, row.trainer)
        increase_community_pool(context.state, row.amount_uflk)
        text = f"vested reward, forfeited: {reason}"[:256]
        context.add_receipt("forfeit", row.trainer, row.amount_uflk, text, task=task.id, round=row.round)
