"""Tasks: what is refused at creation, funding, leaving, refunds."""

from typing import Any

import pytest
from msgspec.structs import replace

from flockchain.execution.tasks import compute_commit_need_ms
from flockchain.params import PPM, TaskParams
from flockchain.txs import create_task, fund_task, leave_task, unstake
from flockchain.types.rows import Chain, OpenTask, Task
from flockchain.types.task import JudgeSpec, TaskSpec
from tests.support.rounds import BOND_UFLK, POOL_UFLK, Story, leave, make_spec


def change(spec: TaskSpec, path: str, value: Any) -> TaskSpec:
    """`path` is a field, or part.field."""
    part, _, field = path.rpartition(".")
    if not part:
        return replace(spec, **{field: value})
    return replace(spec, **{part: replace(getattr(spec, part), **{field: value})})


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("domains", ("law", "code"), "domains must be at least one name, sorted, none twice, got ['law', 'code']"),
        ("domains", ("law", "law"), "sorted, none twice"),
        ("domains", (), "at least one name"),
        ("model.target_modules", ("v_proj", "q_proj"), "target_modules must be"),
        ("model.mode", "stacked", "is not built in this version"),
        ("model.aggregator", "best_friend", "is not built in this version"),
        ("trainers_min", 5, "trainers_min 5 is above trainers_max 4"),
        ("min_bond_uflk", 0, "min_bond_uflk is at least 1"),
        ("rounds", 517, "reach 16808704, and must stay below 16777216"),
        ("initial_adapter", b"short", "of 32 bytes or empty, not 5 bytes"),
        ("rewards.committee_ppm", PPM + 1, "are at most 1000000"),
        ("judge.slowest_tokens_per_s", 0, "are at least 1"),
        ("phases.enroll_limit_ms", 10, "enroll_limit_ms 10 is below enroll_ms 60000"),
        ("judge.judge_tokens", 10_001, "takes 60006 ms, and phase commit lasts 60000 ms"),
        ("phases.train_ms", 10, "train_ms is 10, possible is 200..2592000000"),
        ("phases.train_ms", 2_592_000_001, "train_ms is 2592000001"),
        ("penalties.rejected_ppm", 500_001, "penalties.rejected_ppm is 500001, at most 500000 is possible"),
        ("max_adapter_bytes", 2**33, "max_adapter_bytes is 8589934592, at most 4294967296"),
        ("domains", tuple(f"d{i:02}" for i in range(17)), "domains is 17, at most 16"),
    ],
)
def test_a_task_with_one_deviation_is_refused(path: str, value: Any, message: str) -> None:
    story = Story(enroll=False)
    (said,) = story.block(("creator", create_task.Body(change(make_spec(), path, value), 1)))
    assert message in said


@pytest.mark.parametrize("precision", ["bf16", "fp32", "nf4"])
def test_a_task_may_be_judged_in_every_precision(precision: str) -> None:
    """The chain counts in integers and only carries the word."""
    story = Story(enroll=False, spec=change(make_spec(), "model.precision", precision))
    assert story.task.status == "open"
    assert story.task.spec.model.precision == precision


def test_the_largest_exact_number_of_rounds_is_allowed() -> None:
    story = Story(enroll=False, spec=make_spec(rounds=516))
    assert story.task.status == "open"


def test_a_ballot_must_fit_a_transaction() -> None:
    spec = make_spec(trainers_max=1000, judge=JudgeSpec(seats=3, judge_tokens=1, slowest_tokens_per_s=1_000))
    story = Story(enroll=False)
    (said,) = story.block(("creator", create_task.Body(spec, 1)))
    assert said.endswith("a transaction holds 65536: lower trainers_max")


def test_judging_must_fit_commit_for_all_adapters_and_both_references() -> None:
    assert compute_commit_need_ms(make_spec()) == (4 + 2) * 1_000


def test_pool_and_deposit_are_locked_and_the_seed_is_the_creators_own() -> None:
    story = Story(enroll=False)
    first = story.task
    assert (first.id, first.pool_uflk, first.deposit_uflk) == (1, POOL_UFLK, 10_000_000)
    story.must("stranger", create_task.Body(make_spec(), 0))
    second = story.state.get(Task, 2)
    assert (second.pool_uflk, second.creator) == (0, story.addresses["stranger"])
    assert first.seed != second.seed


def test_who_cannot_pay_pool_and_deposit_creates_nothing() -> None:
    story = Story(enroll=False)
    balance = story.balance("stranger")
    (said,) = story.block(("stranger", create_task.Body(make_spec(), balance)))
    assert "exceeds balance" in said
    assert story.state.get(Chain).next_task == 2
    assert story.balance("stranger") == balance


def test_open_tasks_are_bounded() -> None:
    story = Story(enroll=False, params=TaskParams(max_open_tasks=1))
    (said,) = story.block(("stranger", create_task.Body(make_spec(), 1)))
    assert said == "1 tasks are open, the most that are allowed: wait for one to end"


def test_anyone_may_fund_an_open_task_and_nobody_a_closed_one() -> None:
    story = Story(enroll=False)
    story.must("stranger", fund_task.Body(1, 5))
    assert story.task.pool_uflk == POOL_UFLK + 5
    assert story.block(("stranger", fund_task.Body(1, 0))) == ["a task is funded with at least 1 uflk"]
    assert story.block(("stranger", fund_task.Body(7, 1))) == ["there is no task 7"]
    story.pass_deadline()
    story.pass_deadline()
    (said,) = story.block(("stranger", fund_task.Body(1, 5)))
    assert said.startswith("task 1 is cancelled: ")


def test_leaving_needs_a_bond_and_is_said_once() -> None:
    story = Story()
    assert story.block(("stranger", leave_task.Body(1))) == ["the sender has no bond in task 1"]
    leave(story, "trainer0")
    assert story.block(("trainer0", leave_task.Body(1))) == ["the sender has already left task 1"]


def test_when_a_task_is_finished_bonds_can_be_taken_out() -> None:
    story = Story(spec=make_spec(rounds=1))
    story.play_round()
    assert story.task.status == "finished"
    story.must("trainer0", unstake.Body(story.target, BOND_UFLK))
    assert story.bond("trainer0") == 0
    assert list(story.state.iterate(OpenTask)) == []
