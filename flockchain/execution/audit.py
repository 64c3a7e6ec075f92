"""Make a settled training round again from its rows, with the pure functions that execution itself uses.

A replay of all blocks already recomputes everything; this names, for one round, which draw, verdict or payment differs.
"""

from collections.abc import Iterator

import msgspec

from flockchain.execution.candidate import compute_agreement, find_objection
from flockchain.execution.draw import compute_assignments, compute_draw
from flockchain.execution.epochs import get_task_params
from flockchain.execution.final import get_final_entries, get_final_judges, get_final_round
from flockchain.execution.final_verdict import compute_final_outcome
from flockchain.execution.payout import compute_round_rewards, find_payees
from flockchain.execution.rounds import (
    get_accepted,
    get_attestations,
    get_ballots,
    get_committee,
    get_fetched,
    get_submissions,
)
from flockchain.execution.state import State
from flockchain.execution.verdict import compute_published, compute_verdicts, limit_assignments
from flockchain.types.rows import Draw, FinalSet, Task, TrainingRound, Verdict


def find_round_problems(state: State, task: Task, training_round: TrainingRound, pool_uflk: int) -> list[str]:
    """What in the settled round does not follow from its votes and draws, as sentences; empty: nothing.

    `pool_uflk` is the task's pool just before settlement, from the round's settlement receipt.
    """
    assert training_round.phase == "settled"
    return [
        *_check_draws(state, task, training_round),
        *_check_judging(state, task, training_round),
        *_check_candidate(state, task, training_round, pool_uflk),
    ]


def find_final_problems(state: State, task: Task, final: FinalSet) -> list[str]:
    """What in the end of the task's hidden final set does not follow from what its judges said; empty: nothing."""
    assert final.phase == "closed"
    draw = state.find(Draw, task.id, get_final_round(task), "voter")
    if draw is None:
        return [] if final.outcome in ("withheld", "undecided") else [f"{final.outcome} without judges"]
    if not draw.beacon:
        return [f"{final.outcome} before its judges were drawn"]
    judges, entries = get_final_judges(state, task), get_final_entries(state, task)
    outcome, reason = compute_final_outcome(task.spec, judges, entries)
    return [] if outcome == final.outcome else [f"the judges' figures say {outcome}: {reason}"]


def _check_draws(state: State, task: Task, training_round: TrainingRound) -> Iterator[str]:
    attempts_most = get_task_params(state, task).max_draw_attempts
    for draw in state.iterate(Draw, task.id, training_round.number):
        if not draw.beacon:
            continue
        domains = len(task.spec.domains) if draw.role == "voter" else 0
        if compute_draw(draw, draw.beacon, domains=domains, max_attempts=attempts_most) != (draw.attempts, draw.drawn):
            yield f"the draw of {draw.role}s gives other seats"
        is_voter = draw.role == "voter"
        if is_voter and draw.drawn != training_round.committee:
            yield "the committee is not the one that was drawn"
        if not is_voter and tuple(member.address for member in draw.drawn) != training_round.trainers:
            yield "the trainers are not those that were drawn"


def _check_judging(state: State, task: Task, training_round: TrainingRound) -> Iterator[str]:
    draw = state.find(Draw, task.id, training_round.number, "voter")
    if draw is None or not training_round.committee:
        return
    judges, submissions = get_committee(state, training_round), get_submissions(state, training_round)
    roots = sorted(row.root for row in submissions)
    missing = {row.member: row.unavailable for row in get_fetched(state, training_round)}
    published = compute_published(roots, judges, missing)
    if published != training_round.published:
        yield "other adapters were published than the committee confirmed"
    assignments = limit_assignments(compute_assignments(draw, judges, roots, len(task.spec.domains)), published)
    if assignments != training_round.assignments:
        yield "the assignment of adapters to judges is another"
    verdicts = compute_verdicts(
        task.spec,
        submissions=[(row.root, row.trainer) for row in submissions],
        published=published,
        judges=judges,
        assignments=assignments,
        ballots=get_ballots(state, training_round),
    )
    for computed, recorded in zip(verdicts, training_round.verdicts, strict=False):
        if _strip(computed) != _strip(recorded):
            yield f"the votes give adapter {computed.root.hex()[:12]} the verdict {computed.outcome}: {computed.reason}"
    if len(verdicts) != len(training_round.verdicts):
        yield f"{len(training_round.verdicts)} verdicts are recorded for {len(verdicts)} submissions"


def _strip(verdict: Verdict) -> Verdict:
    """Without what settlement filled in."""
    return msgspec.structs.replace(verdict, slashed_uflk=0, reward_uflk=0, coefficient_ppm=0)


def _check_candidate(state: State, task: Task, training_round: TrainingRound, pool_uflk: int) -> Iterator[str]:
    judges, attestations = get_committee(state, training_round), get_attestations(state, training_round)
    settles = training_round.result_root != training_round.base_root
    if settles and training_round.result_root != training_round.candidate_root:
        yield "the result is neither the base nor the candidate"
    agreement = compute_agreement(judges, attestations, 0) if get_accepted(training_round) else None
    if agreement is not None:
        objection = find_objection(task.spec, judges, attestations, agreement.claim)
        expected = training_round.base_root if objection else agreement.claim.root
        if training_round.result_root != expected:
            yield f"the attestations lead to result {expected.hex()[:12] or 'base'}"
    elif settles and not training_round.second_deadline:
        yield "a candidate settled without two thirds of the seats"
    payees = find_payees(state, task, training_round, settles=settles)
    rewards = compute_round_rewards(task, training_round, payees, pool_uflk)
    rewarded = dict(zip(payees.trainers, rewards.trainers_uflk, strict=True))
    for verdict in training_round.verdicts:
        if verdict.reward_uflk != rewarded.get(verdict.trainer, 0):
            yield (
                f"adapter {verdict.root.hex()[:12]} earned {rewarded.get(verdict.trainer, 0)} uflk, "
                f"{verdict.reward_uflk} uflk are recorded"
            )
