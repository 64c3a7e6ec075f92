"""Paying a settled round and closing it: rewards out of the pool, receipts, then the next round or the refund."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from flockchain.execution.balances import increase_balance
from flockchain.execution.context import Context
from flockchain.execution.draw import Judge
from flockchain.execution.figures import clip_text
from flockchain.execution.rewards import Rewards, compute_rewards
from flockchain.execution.rounds import get_accepted, start_round
from flockchain.types.rows import OpenTask, Task, TaskStatus, TrainingRound


@dataclass(frozen=True, slots=True)
class Payees:
    """Who is paid in this round, and in what proportion."""

    trainers: tuple[bytes, ...] = ()
    trainer_shares: tuple[int, ...] = ()
    committee: tuple[bytes, ...] = ()
    committee_shares: tuple[int, ...] = ()


def pay_by_seats(judges: Sequence[Judge], worked: Mapping[bytes, object]) -> Payees:
    paid = [judge for judge in judges if judge.address in worked]
    return Payees(
        committee=tuple(judge.address for judge in paid), committee_shares=tuple(judge.seats for judge in paid)
    )


def close_round(
    context: Context,
    task: Task,
    training_round: TrainingRound,
    outcome: str,
    payees: Payees,
    *,
    previous: bool,
) -> None:
    """Pay, close the round once and for all, and start the next or end the task."""
    assert training_round.phase != "settled"
    state = context.state
    rewards = compute_rewards(
        pool_uflk=task.pool_uflk,
        rounds_left=task.spec.rounds - task.settled_rounds,
        committee_ppm=task.spec.rewards.committee_ppm,
        trainer_shares=payees.trainer_shares,
        committee_shares=payees.committee_shares,
    )
    rewarded = dict(zip(payees.trainers, rewards.trainers_uflk, strict=True))
    coefficients = {c.root: c.ppm for c in training_round.coefficients} if not previous else {}
    settled = msgspec.structs.replace(
        training_round,
        phase="settled",
        deadline_ms=context.time_ms,
        draw_height=0,
        acted=0,
        expected=0,
        verdicts=tuple(
            msgspec.structs.replace(
                verdict,
                reward_uflk=rewarded.get(verdict.trainer, 0),
                coefficient_ppm=coefficients.get(verdict.root, 0),
            )
            for verdict in training_round.verdicts
        ),
        result_root=training_round.base_root if previous else training_round.candidate_root,
        settled_ms=context.time_ms,
        outcome=clip_text(outcome),
    )
    state.put(settled)
    _pay(context, task, settled, payees, rewards)
    task = msgspec.structs.replace(
        task,
        pool_uflk=task.pool_uflk - rewards.paid_uflk,
        settled_rounds=task.settled_rounds + 1,
    )
    state.put(task)
    if task.settled_rounds == task.spec.rounds:
        close_task(context, task, "finished", f"all {task.spec.rounds} rounds are settled")
        return
    task = msgspec.structs.replace(task, round=task.round + 1)
    state.put(task)
    start_round(context, task)


def _pay(context: Context, task: Task, settled: TrainingRound, payees: Payees, rewards: Rewards) -> None:
    """Move each reward out of the pool (the caller lowers it) and explain it."""
    rule, number = task.spec.rewards.rule, settled.number
    split = {"pool_uflk": task.pool_uflk, "round_reward_uflk": rewards.round_reward_uflk}
    sides = (
        (f"trainer of an accepted adapter, rule {rule}", payees.trainers, payees.trainer_shares, rewards.trainers_uflk),
        (
            "committee, by seats that revealed and attested",
            payees.committee,
            payees.committee_shares,
            rewards.committee_uflk,
        ),
    )
    for reason, addresses, shares, amounts in sides:
        for address, share, amount in zip(addresses, shares, amounts, strict=True):
            increase_balance(context.state, address, amount)
            facts = {**split, "share": share, "of_shares": sum(shares)}
            context.add_receipt("reward", address, amount, reason, task=task.id, round=number, evidence=b"", **facts)
    context.add_receipt(
        "settlement",
        task.creator,
        rewards.paid_uflk,
        settled.outcome,
        task=task.id,
        round=number,
        evidence=settled.result_root,
        **split,
        rounds_left=task.spec.rounds - task.settled_rounds,
        trainers_uflk=sum(rewards.trainers_uflk),
        committee_uflk=sum(rewards.committee_uflk),
        accepted=len(get_accepted(settled)),
        submitted=len(settled.verdicts),
        seats=sum(member.seats for member in settled.committee),
    )


def cancel_task(context: Context, task: Task, training_round: TrainingRound, reason: str) -> None:
    """End the task because too few came: its round settles as it stands."""
    context.state.put(
        msgspec.structs.replace(
            training_round,
            phase="settled",
            settled_ms=context.time_ms,
            result_root=task.global_root,
            outcome=clip_text(f"cancelled in ENROLL: {reason}"),
        )
    )
    close_task(context, task, "cancelled", reason)


def close_task(context: Context, task: Task, status: TaskStatus, reason: str) -> None:
    """End the task: what is left of the pool and the deposit go back to the creator, bonds can be taken out."""
    state = context.state
    refund = task.pool_uflk + task.deposit_uflk
    state.put(msgspec.structs.replace(task, status=status, reason=clip_text(reason), pool_uflk=0, deposit_uflk=0))
    state.delete(OpenTask, task.id)
    increase_balance(state, task.creator, refund)
    context.add_receipt(
        "refund",
        task.creator,
        refund,
        f"task {task.id} is {status}: {reason}",
        task=task.id,
        round=task.round,
        pool_uflk=task.pool_uflk,
        deposit_uflk=task.deposit_uflk,
    )
