"""Tasks: opening one, its refusals, and the front door of training rounds for the block transition.

process_tasks(context)                at the end of every block
compute_next_task_deadline_ms(state)  when the next phase ends by time
is_draw_pending(state)                whether the next blocks are wanted for a draw
"""

from collections.abc import Iterator

import msgspec

from flockchain.crypto import tagged_hash
from flockchain.errors import Refused
from flockchain.execution.balances import decrease_balance
from flockchain.execution.ballots import compute_ballot_bytes
from flockchain.execution.context import Context
from flockchain.execution.draw import compute_adapter_load
from flockchain.execution.final import adopt_pledge
from flockchain.execution.phases import process_task
from flockchain.execution.rounds import get_current_round, start_round
from flockchain.execution.staking import is_drawn_in_open_round
from flockchain.execution.state import State
from flockchain.params import PPM, Params
from flockchain.types.rows import FinalSet, OpenTask, Task, TrainingRound
from flockchain.types.task import BUILT_AGGREGATORS, BUILT_MODES, TaskSpec

__all__ = [
    "check_spec",
    "check_spec_limits",
    "compute_commit_need_ms",
    "compute_next_task_deadline_ms",
    "is_draw_pending",
    "is_drawn_in_open_round",
    "open_task",
    "process_tasks",
]

GRID_LIMIT = 2**24
"""Integers below it are exact in float32."""
UPDATE_MAX = 127
GRID_FACTOR = 2**8
"""The global adapter's grid is so much finer than the update's."""
REFERENCE_ADAPTERS = 2
"""Beside the submissions a judge measures the current global adapter and the best one so far."""


def process_tasks(context: Context) -> None:
    """Move every open task as far as this block's time and transactions allow, in the order of their ids."""
    for entry in context.state.iterate(OpenTask):
        process_task(context, entry.task)


def compute_next_task_deadline_ms(state: State) -> int | None:
    """Earliest deadline of an open phase; a pending draw waits for blocks, not for time."""
    deadlines = [r.deadline_ms for r in _iterate_open_rounds(state) if not r.draw_height]
    deadlines += [final.deadline_ms for final in _iterate_open_finals(state) if final.phase in ("reveal", "judge")]
    return min(deadlines, default=None)


def is_draw_pending(state: State) -> bool:
    return any(training_round.draw_height for training_round in _iterate_open_rounds(state)) or any(
        final.phase == "draw" for final in _iterate_open_finals(state)
    )


def _iterate_open_rounds(state: State) -> Iterator[TrainingRound]:
    for entry in state.iterate(OpenTask):
        training_round = get_current_round(state, state.get(Task, entry.task))
        if training_round.phase != "settled":
            yield training_round


def _iterate_open_finals(state: State) -> Iterator[FinalSet]:
    for entry in state.iterate(OpenTask):
        final = state.find(FinalSet, entry.task)
        if final is not None:
            yield final


def open_task(context: Context, creator: bytes, nonce: int, spec: TaskSpec, pool_uflk: int) -> Task:
    """Lock pool and deposit, take up the creator's final set, open round 1; the caller refused what cannot be paid."""
    state, chain = context.state, context.chain
    deposit_uflk = chain.params.tasks.create_deposit_uflk
    decrease_balance(state, creator, pool_uflk + deposit_uflk)
    task = Task(
        id=chain.next_task,
        creator=creator,
        seed=tagged_hash("flockchain/task-seed", (chain.genesis_hash, creator, nonce.to_bytes(8, "big"))),
        spec=spec,
        status="open",
        reason="",
        pool_uflk=pool_uflk,
        deposit_uflk=deposit_uflk,
        round=1,
        settled_rounds=0,
        global_root=spec.initial_adapter,
        best_root=spec.initial_adapter,
        best_loss_ubpb=(),
        created_ms=context.time_ms,
    )
    assert task.id >= 1
    assert state.find(Task, task.id) is None
    state.put(msgspec.structs.replace(chain, next_task=chain.next_task + 1))
    state.put(task)
    state.put(OpenTask(task.id))
    adopt_pledge(context, task)
    start_round(context, task)
    return task


def _check_built(what: str, name: str, built: tuple[str, ...]) -> None:
    """Refuse what no learner of this version can run: the task would open and then stall."""
    if name not in built:
        raise Refused("bad-task", f"{what} {name!r} is not built in this version; there are: {', '.join(built)}")


def check_spec(spec: TaskSpec) -> None:
    """Refuse a task that contradicts itself, whatever the chain's parameters."""
    _check_names("domains", spec.domains)
    _check_names("target_modules", spec.model.target_modules)
    if spec.trainers_min > spec.trainers_max:
        raise Refused("bad-task", f"trainers_min {spec.trainers_min} is above trainers_max {spec.trainers_max}")
    if spec.min_bond_uflk < 1:
        raise Refused("bad-task", "min_bond_uflk is at least 1: tickets are counted in it")
    reach = spec.rounds * UPDATE_MAX * GRID_FACTOR
    if reach >= GRID_LIMIT:
        raise Refused(
            "bad-task",
            f"{spec.rounds} rounds of updates up to {UPDATE_MAX} on a grid {GRID_FACTOR} times finer reach {reach}, "
            f"and must stay below {GRID_LIMIT} to be exact in float32",
        )
    _check_built("LoRA mode", spec.model.mode, BUILT_MODES)
    _check_built("aggregator", spec.model.aggregator, BUILT_AGGREGATORS)
    if len(spec.initial_adapter) not in (0, 32):
        raise Refused(
            "bad-task", f"initial_adapter is a root of 32 bytes or empty, not {len(spec.initial_adapter)} bytes"
        )
    if spec.rewards.committee_ppm > PPM or spec.judge.tolerance_ppm > PPM or spec.judge.copy_cosine_ppm > PPM:
        raise Refused("bad-task", f"committee_ppm, tolerance_ppm and copy_cosine_ppm are at most {PPM}")
    if spec.judge.slowest_tokens_per_s < 1 or spec.judge.judge_tokens < 1 or spec.max_adapter_bytes < 1:
        raise Refused("bad-task", "slowest_tokens_per_s, judge_tokens and max_adapter_bytes are at least 1")
    if spec.phases.enroll_limit_ms < spec.phases.enroll_ms:
        raise Refused(
            "bad-task", f"enroll_limit_ms {spec.phases.enroll_limit_ms} is below enroll_ms {spec.phases.enroll_ms}"
        )
    _check_budget(spec)


def _check_names(field: str, names: tuple[str, ...]) -> None:
    if not names or list(names) != sorted(set(names)):
        raise Refused("bad-task", f"{field} must be at least one name, sorted, none twice, got {list(names)[:20]}")


def _check_budget(spec: TaskSpec) -> None:
    need_ms = compute_commit_need_ms(spec)
    if need_ms > spec.phases.commit_ms:
        judge = spec.judge
        load = compute_adapter_load(spec.trainers_max, judge.seats) + REFERENCE_ADAPTERS
        raise Refused(
            "bad-task",
            f"judging {load} adapters ({REFERENCE_ADAPTERS} of them references) of "
            f"{judge.judge_tokens + judge.screen_tokens} tokens at {judge.slowest_tokens_per_s} tokens/s takes "
            f"{need_ms} ms, and phase commit lasts {spec.phases.commit_ms} ms",
        )


def compute_commit_need_ms(spec: TaskSpec) -> int:
    """Time that the slowest judge admitted needs for its share of a full round, rounded up."""
    load = compute_adapter_load(spec.trainers_max, spec.judge.seats) + REFERENCE_ADAPTERS
    tokens = load * (spec.judge.judge_tokens + spec.judge.screen_tokens)
    return -(-tokens * 1000 // spec.judge.slowest_tokens_per_s)


def check_spec_limits(spec: TaskSpec, params: Params) -> None:
    """Refuse a task that goes beyond the chain's parameters."""
    limits = params.tasks
    for what, value, most in (
        ("rounds", spec.rounds, limits.max_rounds),
        ("trainers_max", spec.trainers_max, limits.max_participants),
        ("domains", len(spec.domains), limits.max_domains),
        ("judge.seats", spec.judge.seats, limits.max_seats),
        ("max_adapter_bytes", spec.max_adapter_bytes, limits.max_adapter_bytes),
        *(
            (f"penalties.{f}", getattr(spec.penalties, f), limits.max_penalty_ppm)
            for f in spec.penalties.__struct_fields__
        ),
    ):
        if value > most:
            raise Refused("bad-task", f"{what} is {value}, at most {most} is possible on this chain")
    for field in spec.phases.__struct_fields__:
        value = getattr(spec.phases, field)
        if not limits.min_phase_ms <= value <= limits.max_phase_ms:
            raise Refused("bad-task", f"{field} is {value}, possible is {limits.min_phase_ms}..{limits.max_phase_ms}")
    load = compute_adapter_load(spec.trainers_max, spec.judge.seats)
    ballot_bytes, most = compute_ballot_bytes(load, len(spec.domains)), params.consensus.max_tx_bytes
    if ballot_bytes > most:
        raise Refused(
            "bad-task",
            f"a ballot over {load} adapters and {len(spec.domains)} domains may need {ballot_bytes} bytes, "
            f"a transaction holds {most}: lower trainers_max",
        )
