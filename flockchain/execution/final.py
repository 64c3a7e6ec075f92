"""The hidden final set (decision 34): what the creator committed to is revealed and judged after the last round.

hidden -> reveal -> draw -> judge -> closed. Who withholds loses: the trainers' vested pay is released, and the deposit
goes to the community pool. Called at the end of every block; each phase ends by header time, or when all have acted.
"""

import msgspec

from flockchain.errors import Refused
from flockchain.execution.balances import decrease_balance, increase_balance, increase_community_pool
from flockchain.execution.context import Context
from flockchain.execution.draw import Judge, is_seatable
from flockchain.execution.figures import clip_text
from flockchain.execution.final_verdict import compute_final_outcome, compute_final_outliers, compute_final_shares
from flockchain.execution.offences import penalise_as_of
from flockchain.execution.rewards import split_uflk
from flockchain.execution.rounds import DRAW_DELAY_BLOCKS, find_candidates, get_open_task, make_draw
from flockchain.execution.state import State
from flockchain.execution.vesting import forfeit_vested, release_vested
from flockchain.params import Params
from flockchain.types.final import FinalOutcome, FinalPhase, FinalTerms
from flockchain.types.rows import Adapter, Draw, FinalPledge, FinalSet, FinalVote, Task, TaskStatus
from flockchain.types.task import AdapterFigures, TaskSpec

MAX_VESTINGS = 2_000
"""Rewards that may wait in one task: all of them are released in one block."""


def check_terms(state: State, terms: FinalTerms, params: Params) -> None:
    """Refuse terms that no task of this chain could have."""
    limits = params.tasks
    if terms.size_bytes > limits.max_adapter_bytes:
        raise Refused("bad-final", f"a final set of {terms.size_bytes} bytes exceeds {limits.max_adapter_bytes}")
    for name, value in (("reveal_ms", terms.reveal_ms), ("judge_ms", terms.judge_ms)):
        if not limits.min_phase_ms <= value <= limits.max_phase_ms:
            raise Refused("bad-final", f"{name} is {value}, possible is {limits.min_phase_ms}..{limits.max_phase_ms}")
    if state.find(Adapter, terms.root) is not None:
        raise Refused("bad-final", f"root {terms.root.hex()} is recorded already: write the file with another salt")


def check_final(state: State, terms: FinalTerms, spec: TaskSpec, params: Params) -> None:
    """Refuse a task whose final set could not be judged in time, or not be paid out in one block."""
    check_terms(state, terms, params)
    if spec.rounds * spec.trainers_max > MAX_VESTINGS:
        raise Refused(
            "bad-final",
            f"{spec.rounds} rounds of {spec.trainers_max} trainers are more than {MAX_VESTINGS} vested rewards",
        )
    need_ms = -(-2 * spec.judge.judge_tokens * 1000 // spec.judge.slowest_tokens_per_s)
    if need_ms > terms.judge_ms:
        raise Refused("bad-final", f"measuring two adapters takes {need_ms} ms, and judge_ms is {terms.judge_ms}")


def adopt_pledge(context: Context, task: Task) -> None:
    """The creator's pledge becomes the new task's final set; the caller has checked it, and the balance."""
    state, pledge = context.state, context.state.find(FinalPledge, task.creator)
    if pledge is None:
        return
    terms = pledge.terms
    state.delete(FinalPledge, task.creator)
    decrease_balance(state, task.creator, terms.judge_pay_uflk)
    state.put(Adapter(terms.root, "final", task.id, 0, task.creator, terms.size_bytes))
    state.put(FinalSet(task.id, terms, "hidden", 0, 0, terms.judge_pay_uflk, 0, "open", "", "none", ""))


def get_final_in_phase(state: State, task_id: int, phase: FinalPhase) -> tuple[Task, FinalSet]:
    """An open task with its final set, which must be in `phase`."""
    task = get_open_task(state, task_id)
    final = state.find(FinalSet, task_id)
    if final is None:
        raise Refused("no-final", f"task {task_id} has no hidden final set")
    if final.phase != phase:
        raise Refused("wrong-phase", f"the final set of task {task_id} is in phase {final.phase}, not in {phase}")
    return task, final


def get_final_round(task: Task) -> int:
    """The number under which the judges of the final set are drawn: that of a round which there is not."""
    return task.round + 1


def get_final_judges(state: State, task: Task) -> tuple[Judge, ...]:
    """The drawn judges, sorted by address; the text is public, so each of them covers every domain."""
    draw = state.find(Draw, task.id, get_final_round(task), "voter")
    everywhere = tuple(range(len(task.spec.domains)))
    return tuple(Judge(member.address, member.seats, everywhere) for member in draw.drawn) if draw else ()


def get_final_entries(state: State, task: Task) -> dict[bytes, AdapterFigures]:
    return {vote.judge: vote.entry for vote in state.iterate(FinalVote, task.id)}


def begin_final(context: Context, task: Task, status: TaskStatus, reason: str) -> bool:
    """Whether the task's end, with this status, waits for its final set; a cancelled one's too, or who fears the
    judgement would leave before the last round.
    """
    final = context.state.find(FinalSet, task.id)
    if final is None or final.phase != "hidden":
        return False
    if not final.vested_uflk:
        context.state.put(msgspec.structs.replace(final, phase="closed", reason="no reward was vested"))
        return False
    deadline_ms = context.time_ms + final.terms.reveal_ms
    context.state.put(
        msgspec.structs.replace(final, phase="reveal", deadline_ms=deadline_ms, ending=status, ending_reason=reason)
    )
    return True


def freeze_judges(context: Context, task: Task, final: FinalSet) -> None:
    """The text is out: freeze who may be drawn to judge it, before anyone knows the beacon of the draw."""
    seats = task.spec.judge.seats
    voters, draw_height = find_candidates(context, task, "voter"), 0
    if is_seatable(voters, seats, seats // 3, len(task.spec.domains)):
        draw_height = context.height + DRAW_DELAY_BLOCKS
        number = get_final_round(task)
        context.state.put(Draw(task.id, number, "voter", draw_height, seats, seats // 3, voters, b"", 0, ()))
    context.state.put(msgspec.structs.replace(final, phase="draw", draw_height=draw_height))


def step_final(context: Context, task: Task, final: FinalSet) -> None:
    """Take the final set as far as this block's time and transactions allow; phase `closed` ends it."""
    is_over = context.time_ms >= final.deadline_ms
    if final.phase == "reveal" and is_over:
        reason = f"the creator did not reveal the final set within {final.terms.reveal_ms} ms"
        _settle(context, task, final, "withheld", reason)
    elif final.phase == "draw" and not final.draw_height:
        _settle(context, task, final, "undecided", f"too few judges are left for {task.spec.judge.seats} seats")
    elif final.phase == "draw" and context.height >= final.draw_height:
        make_draw(context, task, context.state.get(Draw, task.id, get_final_round(task), "voter"))
        deadline_ms = context.time_ms + final.terms.judge_ms
        context.state.put(msgspec.structs.replace(final, phase="judge", draw_height=0, deadline_ms=deadline_ms))
    elif final.phase == "judge":
        judges, entries = get_final_judges(context.state, task), get_final_entries(context.state, task)
        if is_over or len(entries) == len(judges):
            outcome, reason = compute_final_outcome(task.spec, judges, entries)
            _penalise(context, task, judges, entries)
            final = _pay_judges(context, task, final, judges, entries)
            _settle(context, task, final, outcome, reason)


def _settle(context: Context, task: Task, final: FinalSet, outcome: FinalOutcome, reason: str) -> None:
    """Vested pay is forfeited only if the work failed; whoever withheld the text loses deposit and judges' pay."""
    state, reason = context.state, clip_text(reason)
    vested = final.vested_uflk
    if outcome == "failed":
        forfeit_vested(context, task, reason)
    else:
        release_vested(context, task)
    lost = 0
    if outcome == "withheld":
        lost = task.deposit_uflk + final.pay_uflk
        increase_community_pool(state, lost)
        state.put(msgspec.structs.replace(task, deposit_uflk=0))
        final = msgspec.structs.replace(final, pay_uflk=0)
    state.put(msgspec.structs.replace(final, phase="closed", deadline_ms=0, outcome=outcome, reason=reason))
    context.add_receipt(
        "final",
        task.creator,
        lost,
        f"{outcome}: {reason}"[:256],
        task=task.id,
        evidence=final.terms.root,
        vested_uflk=vested,
        lost_uflk=lost,
    )


def _penalise(context: Context, task: Task, judges: tuple[Judge, ...], entries: dict[bytes, AdapterFigures]) -> None:
    """Like an absent or outlying judge of a training round."""
    number = get_final_round(task)
    draw = context.state.get(Draw, task.id, number, "voter")
    as_of = draw.draw_height - DRAW_DELAY_BLOCKS
    for judge in judges:
        if judge.address not in entries:
            absent_ppm = task.spec.penalties.absent_ppm
            reason = "absent: did not judge the final set in time"
            penalise_as_of(context, task, number, as_of, judge.address, absent_ppm, reason, seats=judge.seats)
    for outlier in compute_final_outliers(task.spec, task.global_root, judges, entries):
        reason = "outlier: its figure of the final set is farther from its peers' than the task allows"
        penalise_as_of(
            context,
            task,
            number,
            as_of,
            outlier.judge,
            task.spec.penalties.outlier_ppm,
            reason,
            change_ppm=outlier.change_ppm,
            median_ppm=outlier.median_ppm,
            limit_ppm=outlier.limit_ppm,
        )


def _pay_judges(
    context: Context, task: Task, final: FinalSet, judges: tuple[Judge, ...], entries: dict[bytes, AdapterFigures]
) -> FinalSet:
    """By seats times closeness, out of what the creator locked; what does not divide goes back with the deposit."""
    payees = compute_final_shares(task.spec, task.global_root, judges, entries)
    parts = split_uflk(final.pay_uflk, [share for _, share in payees])
    for (address, share), amount in zip(payees, parts, strict=True):
        increase_balance(context.state, address, amount)
        context.add_receipt(
            "reward",
            address,
            amount,
            "judge of the final set, by seats times closeness",
            task=task.id,
            round=get_final_round(task),
            share=share,
            of_shares=sum(share for _, share in payees),
        )
    return msgspec.structs.replace(final, pay_uflk=final.pay_uflk - sum(parts))
