"""Rows of tasks and their training rounds: finding them, starting a round, entering a phase, freezing a draw."""

from typing import Any, Literal

import msgspec

from flockchain.errors import Refused
from flockchain.execution.context import Context
from flockchain.execution.delegation import get_pool
from flockchain.execution.draw import Judge, compute_draw, compute_tickets, get_judges
from flockchain.execution.epochs import get_task_params
from flockchain.execution.staking import make_task_target
from flockchain.execution.state import State
from flockchain.execution.validators import count_bond_uflk
from flockchain.types.rows import (
    Attestation,
    Candidate,
    Chain,
    Draw,
    FetchedRow,
    OpenVote,
    Phase,
    SealedVote,
    Stake,
    Submission,
    Task,
    TaskParticipant,
    TrainingRound,
)
from flockchain.types.task import AdapterFigures, AttestationBody, Role, TaskSpec

DRAW_DELAY_BLOCKS = 2
"""A draw is made at the end of the second block after its candidates were frozen."""


def get_open_task(state: State, task_id: int) -> Task:
    """The open task; raises `Refused` for one that does not exist or is over."""
    task = state.find(Task, task_id)
    if task is None:
        raise Refused("unknown-task", f"there is no task {task_id}")
    if task.status != "open":
        raise Refused("task-closed", f"task {task_id} is {task.status}: {task.reason}")
    return task


def get_current_round(state: State, task: Task) -> TrainingRound:
    return state.get(TrainingRound, task.id, task.round)


def get_round_in_phase(state: State, task_id: int, number: int, phase: Phase) -> tuple[Task, TrainingRound]:
    """An open task and its current round, which must be `number` and in `phase` with no draw pending."""
    task = get_open_task(state, task_id)
    if number != task.round:
        raise Refused("wrong-round", f"task {task_id} is in round {task.round}, not in round {number}")
    training_round = get_current_round(state, task)
    if training_round.phase != phase:
        raise Refused(
            "wrong-phase", f"round {number} of task {task_id} is in phase {training_round.phase}, not in {phase}"
        )
    if training_round.draw_height:
        raise Refused(
            "wrong-phase",
            f"phase {phase} of round {number} of task {task_id} is closed: "
            f"a draw is due at the end of block {training_round.draw_height}",
        )
    return task, training_round


def get_judge(state: State, training_round: TrainingRound, address: bytes) -> Judge:
    """The drawn committee member; raises `Refused` for anyone else."""
    if all(member.address != address for member in training_round.committee):
        raise Refused(
            "not-drawn",
            f"the sender is not in the committee of round {training_round.number} of task {training_round.task}",
        )
    judges = get_committee(state, training_round)
    return next(judge for judge in judges if judge.address == address)


def get_committee(state: State, training_round: TrainingRound) -> tuple[Judge, ...]:
    """The drawn judges, sorted by address; empty before the draw."""
    draw = state.find(Draw, training_round.task, training_round.number, "voter")
    return get_judges(draw) if draw is not None and training_round.committee else ()


def get_submissions(state: State, training_round: TrainingRound) -> list[Submission]:
    return list(state.iterate(Submission, training_round.task, training_round.number))


def get_fetched(state: State, training_round: TrainingRound) -> list[FetchedRow]:
    return list(state.iterate(FetchedRow, training_round.task, training_round.number))


def get_sealed_voters(state: State, training_round: TrainingRound) -> set[bytes]:
    return {vote.voter for vote in state.iterate(SealedVote, training_round.task, training_round.number)}


def get_ballots(state: State, training_round: TrainingRound) -> dict[bytes, tuple[AdapterFigures, ...]]:
    """Revealed entries by voter."""
    votes = state.iterate(OpenVote, training_round.task, training_round.number)
    return {vote.voter: vote.figures for vote in votes}


def get_attestations(state: State, training_round: TrainingRound) -> dict[bytes, AttestationBody]:
    rows = state.iterate(Attestation, training_round.task, training_round.number)
    return {row.attester: row.body for row in rows}


def get_assigned(training_round: TrainingRound, voter: bytes) -> tuple[bytes, ...]:
    """Roots that a committee member judges in this round."""
    return next((a.roots for a in training_round.assignments if a.voter == voter), ())


def get_accepted(training_round: TrainingRound) -> tuple[bytes, ...]:
    """Roots with verdict accept, sorted: what is aggregated."""
    return tuple(verdict.root for verdict in training_round.verdicts if verdict.outcome == "accept")


def start_round(context: Context, task: Task) -> None:
    """Open ENROLL of the task's current round."""
    context.state.put(
        TrainingRound(
            task=task.id,
            number=task.round,
            phase="enroll",
            deadline_ms=context.time_ms + task.spec.phases.enroll_ms,
            started_ms=context.time_ms,
            draw_height=0,
            acted=0,
            expected=0,
            trainers=(),
            committee=(),
            base_root=task.global_root,
            second_deadline=False,
            published=(),
            assignments=(),
            verdicts=(),
            candidate_root=b"",
            candidate_size_bytes=0,
            coefficients=(),
            result_root=b"",
            settled_ms=0,
            outcome="",
        )
    )
    context.touched_tasks.add(task.id)


def enter_phase(
    context: Context, training_round: TrainingRound, phase: Phase, duration_ms: int, expected: int, **changes: Any
) -> TrainingRound:
    """The round at the start of `phase`, of whose members `expected` have something to do."""
    entered = msgspec.structs.replace(
        training_round,
        phase=phase,
        deadline_ms=context.time_ms + duration_ms,
        draw_height=0,
        acted=0,
        expected=expected,
        **changes,
    )
    context.state.put(entered)
    return entered


def note_acted(state: State, training_round: TrainingRound) -> None:
    """One more member has done what this phase expects."""
    state.put(msgspec.structs.replace(training_round, acted=training_round.acted + 1))


def has_everyone_acted(training_round: TrainingRound) -> bool:
    return training_round.expected > 0 and training_round.acted >= training_round.expected


def find_candidates(context: Context, task: Task, role: Role) -> tuple[Candidate, ...]:
    """Who could be drawn in the current round, sorted by address."""
    return tuple(
        Candidate(stake.owner, counted_uflk, tickets, get_covered_domains(task.spec, stake))
        for stake, counted_uflk, tickets in _iterate_bonds(context, task)
        if stake.role == role and not stake.leaving and stake.benched_until_round <= task.round
        if role == "trainer" or get_covered_domains(task.spec, stake)
    )


def get_freeze_height(state: State, training_round: TrainingRound, owner: bytes) -> int:
    """The block at whose end the stake of a drawn participant was frozen for its draw: that stake stands for the round.

    Before any draw of this participant's role: the newest block.
    """
    role = "trainer" if owner in training_round.trainers else "voter"
    draw = state.find(Draw, training_round.task, training_round.number, role)
    return draw.draw_height - DRAW_DELAY_BLOCKS if draw is not None else state.get(Chain).height


def count_bonded_accounts(context: Context, task: Task) -> int:
    """Participants, of either role, whose bond is at least the task's minimum."""
    return len(_iterate_bonds(context, task))


def _iterate_bonds(context: Context, task: Task) -> list[tuple[Stake, int, int]]:
    """(own bond, uflk that count with its delegations, tickets) of every participant with a ticket, sorted by owner.

    The task's minimum bond must be the participant's own.
    """
    state, params, minimum = context.state, context.params, task.spec.min_bond_uflk
    target = make_task_target(task.id)
    most = get_task_params(state, task).max_tickets_per_account
    bonds = []
    for participant in state.iterate(TaskParticipant, task.id):
        stake, pool = state.get(Stake, participant.owner, target), get_pool(state, participant.owner, target)
        counted = count_bond_uflk(stake.amount_uflk, pool.amount_uflk if pool else 0, params.stake)
        tickets = compute_tickets(counted, minimum, most)
        if tickets and stake.amount_uflk >= minimum:
            bonds.append((stake, counted, tickets))
    return bonds


def get_covered_domains(spec: TaskSpec, stake: Stake) -> tuple[int, ...]:
    """Indexes of the domains for which the committed holdout has the task's fewest blocks."""
    blocks = {holdout.domain: holdout.blocks for holdout in stake.holdouts}
    if stake.role != "voter":
        return ()
    return tuple(i for i, name in enumerate(spec.domains) if blocks.get(name, 0) >= max(1, spec.judge.min_blocks))


def freeze_draw(
    context: Context,
    training_round: TrainingRound,
    role: Literal["trainer", "voter"],
    candidates: tuple[Candidate, ...],
    *,
    seats: int,
    account_seats: int,
) -> None:
    """Fix who is in the draw, before anyone knows the beacon that will make it."""
    draw_height = context.height + DRAW_DELAY_BLOCKS
    context.state.put(
        Draw(
            task=training_round.task,
            round=training_round.number,
            role=role,
            draw_height=draw_height,
            seats=seats,
            account_seats=account_seats,
            candidates=candidates,
            beacon=b"",
            attempts=0,
            drawn=(),
        )
    )
    context.state.put(msgspec.structs.replace(training_round, draw_height=draw_height, deadline_ms=context.time_ms))


def make_draw(context: Context, task: Task, draw: Draw) -> Draw:
    """Draw with the beacon of this block, record what came out, and tell each drawn account why."""
    beacon = context.chain.beacon
    domains = len(task.spec.domains) if draw.role == "voter" else 0
    attempts_most = get_task_params(context.state, task).max_draw_attempts
    attempts, drawn = compute_draw(draw, beacon, domains=domains, max_attempts=attempts_most)
    made = msgspec.structs.replace(draw, beacon=beacon, attempts=attempts, drawn=drawn)
    context.state.put(made)
    tickets = {candidate.address: candidate.tickets for candidate in draw.candidates}
    for member in drawn:
        context.add_receipt(
            "draw",
            member.address,
            0,
            f"drawn as {draw.role}",
            task=task.id,
            round=draw.round,
            evidence=beacon,
            seats=member.seats,
            of_seats=draw.seats,
            tickets=tickets[member.address],
            of_tickets=sum(tickets.values()),
            candidates=len(tickets),
            attempts=attempts,
        )
    return made
