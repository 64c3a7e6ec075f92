"""Paying a settled round and closing it: rewards out of the pool, receipts, then the next round or the refund."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from flockchain.execution.balances import increase_balance
from flockchain.execution.candidate import Claim, get_claim, get_gains
from flockchain.execution.closeness import compute_closeness
from flockchain.execution.context import Context
from flockchain.execution.draw import Judge
from flockchain.execution.figures import clip_text
from flockchain.execution.final import begin_final
from flockchain.execution.rewards import (
    Rewards,
    compute_arena_shares,
    compute_flalliance_shares,
    compute_merit_shares,
    compute_rewards,
)
from flockchain.execution.rounds import (
    get_accepted,
    get_attestations,
    get_ballots,
    get_committee,
    start_round,
)
from flockchain.execution.state import State
from flockchain.execution.vesting import keep_vested, pay_reward
from flockchain.types.rows import Draw, FinalSet, OpenTask, Task, TaskStatus, TrainingRound, Verdict


@dataclass(frozen=True, slots=True)
class Payees:
    """Who is paid in this round, and in what proportion."""

    trainers: tuple[bytes, ...] = ()
    trainer_shares: tuple[int, ...] = ()
    committee: tuple[bytes, ...] = ()
    committee_shares: tuple[int, ...] = ()


def find_payees(state: State, task: Task, training_round: TrainingRound, *, settles: bool) -> Payees:
    """Judges that revealed and, if a candidate was agreed on, attested it; authors of what was accepted if it settles.

    Nobody is paid when adapters were accepted and no candidate was agreed on, nor in a round without votes.
    """
    judges, worked = get_committee(state, training_round), set(get_ballots(state, training_round))
    attestations = get_attestations(state, training_round)
    claim = Claim(training_round.candidate_root, training_round.candidate_size_bytes, training_round.coefficients)
    if get_accepted(training_round):
        worked &= {attester for attester, body in attestations.items() if get_claim(body) == claim}
    paid = [judge for judge in judges if judge.address in worked]
    accepted = [verdict for verdict in training_round.verdicts if verdict.outcome == "accept"] if settles else []
    gains = get_gains(judges, attestations, claim)
    return Payees(
        tuple(verdict.trainer for verdict in accepted),
        _compute_trainer_shares(state, task, training_round, accepted, gains),
        tuple(judge.address for judge in paid),
        _compute_committee_shares(state, task, training_round, judges, paid),
    )


def _compute_trainer_shares(
    state: State,
    task: Task,
    training_round: TrainingRound,
    accepted: Sequence[Verdict],
    gains: Mapping[tuple[bytes, int], Sequence[int]],
) -> tuple[int, ...]:
    """None where nobody is paid; gains were attested all the same when the committee objects to its candidate."""
    if not accepted:
        return ()
    if task.spec.rewards.rule == "flalliance":
        return _compute_bond_shares(state, training_round, accepted)
    merits = compute_merit_shares([verdict.root for verdict in accepted], gains)
    return compute_arena_shares(merits) if task.spec.rewards.rule == "arena" else merits


def _compute_bond_shares(state: State, training_round: TrainingRound, accepted: Sequence[Verdict]) -> tuple[int, ...]:
    draw = state.get(Draw, training_round.task, training_round.number, "trainer")
    bonds = {candidate.address: candidate.bond_uflk for candidate in draw.candidates}
    return compute_flalliance_shares([bonds[verdict.trainer] for verdict in accepted])


def _compute_committee_shares(
    state: State, task: Task, training_round: TrainingRound, judges: Sequence[Judge], paid: Sequence[Judge]
) -> tuple[int, ...]:
    """By seats; under rule `arena` by seats times closeness to the committee's consensus."""
    if task.spec.rewards.rule != "arena":
        return tuple(judge.seats for judge in paid)
    closeness = compute_closeness(task.spec, judges, training_round.assignments, get_ballots(state, training_round))
    return tuple(judge.seats * closeness[judge.address] for judge in paid)


def compute_round_rewards(task: Task, training_round: TrainingRound, payees: Payees, pool_uflk: int) -> Rewards:
    """What each payee gets; every round so far has settled, so `rounds_left` follows from the round's number."""
    return compute_rewards(
        pool_uflk=pool_uflk,
        rounds_left=task.spec.rounds - training_round.number + 1,
        committee_ppm=task.spec.rewards.committee_ppm,
        trainer_shares=payees.trainer_shares,
        committee_shares=payees.committee_shares,
    )


def close_round(context: Context, task: Task, training_round: TrainingRound, outcome: str, *, settles: bool) -> None:
    """Pay, close the round once and for all, and start the next or end the task. `settles`: the candidate does."""
    assert training_round.phase != "settled"
    assert task.settled_rounds == training_round.number - 1
    state = context.state
    payees = find_payees(state, task, training_round, settles=settles)
    rewards = compute_round_rewards(task, training_round, payees, task.pool_uflk)
    rewarded = dict(zip(payees.trainers, rewards.trainers_uflk, strict=True))
    coefficients = {c.root: c.ppm for c in training_round.coefficients} if settles else {}
    verdicts = tuple(
        msgspec.structs.replace(
            verdict,
            reward_uflk=rewarded.get(verdict.trainer, 0),
            coefficient_ppm=coefficients.get(verdict.root, 0),
        )
        for verdict in training_round.verdicts
    )
    settled = msgspec.structs.replace(
        training_round,
        phase="settled",
        deadline_ms=context.time_ms,
        draw_height=0,
        acted=0,
        expected=0,
        verdicts=verdicts,
        result_root=training_round.candidate_root if settles else training_round.base_root,
        settled_ms=context.time_ms,
        outcome=clip_text(outcome),
    )
    state.put(settled)
    _pay(context, task, settled, payees, rewards)
    pool_uflk, settled_rounds = task.pool_uflk - rewards.paid_uflk, task.settled_rounds + 1
    task = msgspec.structs.replace(task, pool_uflk=pool_uflk, settled_rounds=settled_rounds)
    if settled_rounds == task.spec.rounds:
        close_task(context, task, "finished", f"all {task.spec.rounds} rounds are settled")
        return
    task = msgspec.structs.replace(task, round=task.round + 1)
    state.put(task)
    start_round(context, task)


def _pay(context: Context, task: Task, settled: TrainingRound, payees: Payees, rewards: Rewards) -> None:
    """Move each reward out of the pool (the caller lowers it) and explain it; delegators have their part of it.

    In a task with a hidden final set a part of each trainer's reward waits for its judgement.
    """
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
    vested = {
        address: keep_vested(context, settled, address, amount)
        for address, amount in zip(payees.trainers, rewards.trainers_uflk, strict=True)
    }
    waiting_uflk = sum(vested.values())
    for reason, addresses, shares, amounts in sides:
        for address, share, amount in zip(addresses, shares, amounts, strict=True):
            kept = vested.get(address, 0)
            facts = {**split, "share": share, "of_shares": sum(shares), **({"vested_uflk": kept} if kept else {})}
            pay_reward(context, settled, address, amount - kept, reason, **facts)
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
        **({"vested_uflk": waiting_uflk} if waiting_uflk else {}),
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
    """End the task, after its hidden final set was judged if it has one: what is left of the pool and the deposit go
    back to the creator, bonds can be taken out.
    """
    state = context.state
    if begin_final(context, task, status, reason):
        state.put(task)
        return
    final = state.find(FinalSet, task.id)
    judge_pay_uflk = final.pay_uflk if final is not None else 0
    if final is not None:
        state.put(msgspec.structs.replace(final, pay_uflk=0))
    refund = task.pool_uflk + task.deposit_uflk + judge_pay_uflk
    state.put(msgspec.structs.replace(task, status=status, reason=clip_text(reason), pool_uflk=0, deposit_uflk=0))
    state.delete(OpenTask, task.id)
    increase_balance(state, task.creator, refund)
    pays = {"judge_pay_uflk": judge_pay_uflk} if judge_pay_uflk else {}
    context.add_receipt(
        "refund",
        task.creator,
        refund,
        f"task {task.id} is {status}: {reason}",
        task=task.id,
        round=task.round,
        evidence=b"",
        **{"pool_uflk": task.pool_uflk, "deposit_uflk": task.deposit_uflk, **pays},
    )
