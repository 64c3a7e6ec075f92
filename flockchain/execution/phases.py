"""The phases of a training round, ENROLL to SETTLED: each ends when everyone expected has acted or at its deadline.

Called at the end of every block; a deadline acts in the first block whose header time reaches it, after that block's
transactions. Every phase has a defined result when nobody comes (docs/protocol.md, "Tasks and training rounds").
"""

import msgspec

from flockchain.execution.context import Context
from flockchain.execution.draw import compute_assignments, get_judges, is_seatable
from flockchain.execution.epochs import get_task_params
from flockchain.execution.final import step_final
from flockchain.execution.payout import cancel_task, close_task
from flockchain.execution.rounds import (
    count_bonded_accounts,
    enter_phase,
    find_candidates,
    freeze_draw,
    get_accepted,
    get_committee,
    get_current_round,
    get_fetched,
    get_sealed_voters,
    get_submissions,
    has_everyone_acted,
    make_draw,
)
from flockchain.execution.settlement import (
    find_agreement,
    record_verdicts,
    settle_aggregated,
    settle_judged,
    settle_void,
)
from flockchain.execution.staking import get_stake, make_task_target
from flockchain.execution.verdict import compute_published, limit_assignments
from flockchain.types.rows import Draw, FinalSet, Task, TrainingRound

MAX_STEPS_PER_BLOCK = 8
"""A round passes each of its phases at most once in a block; nothing else may loop."""


def process_task(context: Context, task_id: int) -> None:
    """Take one open task as far as this block's time and transactions allow."""
    for _ in range(MAX_STEPS_PER_BLOCK):
        task, final = context.state.get(Task, task_id), context.state.find(FinalSet, task_id)
        if task.status != "open":
            return
        if final is not None and final.ending != "open":
            _step_final(context, task, final)
            return
        if not _step(context, task, get_current_round(context.state, task)):
            return


def _step_final(context: Context, task: Task, final: FinalSet) -> None:
    """The last round has settled; the task ends once its final set is judged."""
    step_final(context, task, final)
    final = context.state.get(FinalSet, task.id)
    if final.phase == "closed":
        close_task(context, context.state.get(Task, task.id), final.ending, final.ending_reason)


def _step(context: Context, task: Task, training_round: TrainingRound) -> bool:
    """Leave the current phase if it is over; whether it was."""
    if training_round.draw_height:
        if context.height < training_round.draw_height:
            return False
        draw = _draw_trainers if training_round.phase == "enroll" else _draw_committee
        draw(context, task, training_round)
        return True
    if training_round.phase == "enroll":
        return _step_enroll(context, task, training_round)
    if training_round.phase == "aggregate":
        return _step_aggregate(context, task, training_round)
    if not has_everyone_acted(training_round) and context.time_ms < training_round.deadline_ms:
        return False
    close = {"train": _close_train, "publish": _close_publish, "commit": _close_commit, "reveal": _close_reveal}
    close[training_round.phase](context, task, training_round)
    return True


def _step_enroll(context: Context, task: Task, training_round: TrainingRound) -> bool:
    """Close ENROLL once enough are bonded.

    Until its deadline round 1 waits for `trainers_max`, and for as many judges as there are seats; afterwards and in
    later rounds `trainers_min` is enough. Either way there must be tickets for every seat and for three seats of every
    domain. Past the deadline the task waits on, and at the limit it is cancelled.
    """
    is_past_deadline = context.time_ms >= training_round.deadline_ms
    if task.id not in context.touched_tasks and not is_past_deadline:
        return False
    context.touched_tasks.discard(task.id)
    spec = task.spec
    is_patient = training_round.number == 1 and context.time_ms < training_round.started_ms + spec.phases.enroll_ms
    wanted = spec.trainers_max if is_patient else spec.trainers_min
    trainers, voters = find_candidates(context, task, "trainer"), find_candidates(context, task, "voter")
    can_judge = is_seatable(voters, spec.judge.seats, spec.judge.seats // 3, len(spec.domains))
    is_crowded = not is_patient or len(voters) >= spec.judge.seats
    if len(trainers) >= wanted and can_judge and is_crowded:
        seats = min(spec.trainers_max, len(trainers))
        freeze_draw(context, training_round, "trainer", trainers, seats=seats, account_seats=1)
        return True
    limit_ms = training_round.started_ms + spec.phases.enroll_limit_ms
    if context.time_ms >= limit_ms:
        judges_text = "enough judges" if can_judge else f"too few judges for {spec.judge.seats} seats"
        waited_ms = spec.phases.enroll_limit_ms
        reason = f"{len(trainers)} of {wanted} trainers and {judges_text} after {waited_ms} ms of waiting"
        cancel_task(context, task, training_round, reason)
        return True
    if is_past_deadline:
        context.state.put(msgspec.structs.replace(training_round, deadline_ms=limit_ms))
    return False


def _draw_trainers(context: Context, task: Task, training_round: TrainingRound) -> None:
    draw = make_draw(context, task, context.state.get(Draw, task.id, training_round.number, "trainer"))
    trainers = tuple(member.address for member in draw.drawn)
    enter_phase(context, training_round, "train", task.spec.phases.train_ms, len(trainers), trainers=trainers)


def _close_train(context: Context, task: Task, training_round: TrainingRound) -> None:
    submitted = {row.trainer for row in get_submissions(context.state, training_round)}
    for trainer in training_round.trainers:
        _note_attendance(context, task, trainer, trainer in submitted)
    if not submitted:
        settle_void(context, task, training_round, f"none of {len(training_round.trainers)} trainers submitted")
        return
    judge, voters = task.spec.judge, find_candidates(context, task, "voter")
    if not is_seatable(voters, judge.seats, judge.seats // 3, len(task.spec.domains)):
        text = f"no committee could be drawn: {len(voters)} judges cannot fill {judge.seats} seats in every domain"
        settle_void(context, task, training_round, text)
        return
    freeze_draw(context, training_round, "voter", voters, seats=judge.seats, account_seats=judge.seats // 3)


def _note_attendance(context: Context, task: Task, trainer: bytes, submitted: bool) -> None:
    """Count rounds missed in a row; after too many the trainer is jailed in the task for some rounds."""
    stake = get_stake(context.state, trainer, make_task_target(task.id))
    if stake is None:
        return
    params = get_task_params(context.state, task)
    missed = 0 if submitted else stake.missed_rounds + 1
    changed = msgspec.structs.replace(stake, missed_rounds=missed)
    if missed >= params.missed_rounds:
        until = task.round + 1 + params.benched_rounds
        changed = msgspec.structs.replace(changed, missed_rounds=0, benched_until_round=until)
        reason = f"jailed in the task until round {until}: missed {missed} rounds in a row"
        context.add_receipt("jail", trainer, 0, reason, task=task.id, round=task.round, missed_rounds=missed)
    context.state.put(changed)


def _draw_committee(context: Context, task: Task, training_round: TrainingRound) -> None:
    draw = make_draw(context, task, context.state.get(Draw, task.id, training_round.number, "voter"))
    roots = sorted(row.root for row in get_submissions(context.state, training_round))
    enter_phase(
        context,
        training_round,
        "publish",
        task.spec.phases.publish_ms,
        len(draw.drawn),
        committee=draw.drawn,
        assignments=compute_assignments(draw, get_judges(draw), roots, len(task.spec.domains)),
    )


def _close_publish(context: Context, task: Task, training_round: TrainingRound) -> None:
    """Leave out what two thirds of the seats could not get."""
    roots = [row.root for row in get_submissions(context.state, training_round)]
    missing = {row.member: row.unavailable for row in get_fetched(context.state, training_round)}
    published = compute_published(roots, get_committee(context.state, training_round), missing)
    assignments = limit_assignments(training_round.assignments, published)
    commit_ms, expected = task.spec.phases.commit_ms, len(training_round.committee)
    entered = enter_phase(
        context, training_round, "commit", commit_ms, expected, published=published, assignments=assignments
    )
    if not published:
        judged = record_verdicts(context, task, entered, voted=False)
        settle_void(context, task, judged, "none of the submitted adapters was published")


def _close_commit(context: Context, task: Task, training_round: TrainingRound) -> None:
    sealed = len(get_sealed_voters(context.state, training_round))
    entered = enter_phase(context, training_round, "reveal", task.spec.phases.reveal_ms, sealed)
    if not sealed:
        _close_reveal(context, task, entered)


def _close_reveal(context: Context, task: Task, training_round: TrainingRound) -> None:
    judged = record_verdicts(context, task, training_round, voted=True)
    if get_accepted(judged):
        enter_phase(context, judged, "aggregate", task.spec.phases.aggregate_ms, len(judged.committee))
    else:
        settle_judged(context, task, judged, f"none of {len(judged.verdicts)} adapters was accepted")


def _step_aggregate(context: Context, task: Task, training_round: TrainingRound) -> bool:
    """The committee has until its deadline; without a quorum any bonded participant has as long again."""
    is_over = context.time_ms >= training_round.deadline_ms
    if not training_round.second_deadline:
        if not has_everyone_acted(training_round) and not is_over:
            return False
        agreement = find_agreement(context, training_round, 0)
        if agreement is None:
            enter_phase(context, training_round, "aggregate", task.spec.phases.aggregate_ms, 0, second_deadline=True)
        else:
            settle_aggregated(context, task, training_round, agreement)
        return True
    agreement = find_agreement(context, training_round, count_bonded_accounts(context, task))
    if agreement is None and not is_over:
        return False
    settle_aggregated(context, task, training_round, agreement)
    return True
