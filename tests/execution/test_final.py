"""The hidden final set: vested pay, revealed and judged at the end; who withholds or lies gains nothing."""

from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from msgspec.structs import replace

from flockchain.execution.audit import find_final_problems
from flockchain.execution.draw import Judge
from flockchain.execution.final_verdict import compute_final_outcome
from flockchain.execution.invariants import assert_vestings
from flockchain.execution.tasks import compute_next_task_deadline_ms, is_draw_pending
from flockchain.params import UFLK_PER_FLK
from flockchain.txs import commit_final, create_task, judge_final, leave_task, reveal_final
from flockchain.types.final import FinalTerms
from flockchain.types.rows import Adapter, Chain, FinalPledge, FinalSet, FinalVote, Vesting
from flockchain.types.task import AdapterFigures
from tests.support.rounds import BOND_UFLK, PHASE_MS, POOL_UFLK, Story, entry, make_root, make_spec

DEPOSIT_UFLK = 10 * UFLK_PER_FLK
PAY_UFLK = 30 * UFLK_PER_FLK
TERMS = FinalTerms(make_root("final set"), 5_000, 400_000, PHASE_MS, PHASE_MS, PAY_UFLK)
TRAINERS_UFLK = POOL_UFLK * 7 // 10
"""What two rounds pay to four trainers in equal parts."""
GAIN, NO_GAIN, HARM = (-50_000, -20_000, 10_000), (-10_000, 4_000, 7_000), (-90_000, 40_000, 0)
Said = Mapping[str, AdapterFigures | None]


class FinalStory(Story):
    """A task of two rounds with a final set."""

    def __init__(self) -> None:
        super().__init__(spec=make_spec(rounds=2), final=TERMS)
        self.before_uflk = self.balance("creator") + POOL_UFLK + DEPOSIT_UFLK + PAY_UFLK

    @property
    def final(self) -> FinalSet:
        return self.state.get(FinalSet, self.task_id)

    def play(self, **options: Any) -> None:
        for _ in range(2):
            self.play_round(**options)

    def reveal(self) -> None:
        self.must("creator", reveal_final.Body(self.task_id))
        while self.final.phase == "draw":
            self.block()

    def say(self, name: str, changes_ppm: Iterable[int], status: str = "scored") -> judge_final.Body:
        said = entry(self.task.global_root, tuple(changes_ppm), status, reason="a sentence")
        return judge_final.Body(self.task_id, said)

    def judge(self, changes_ppm: Iterable[int], status: str = "scored", *, silent: Iterable[str] = ()) -> None:
        """Every judge says the same; the silent let it time out."""
        for name in self.judges:
            if name not in silent:
                self.must(name, self.say(name, () if status != "scored" else changes_ppm, status))
        if silent:
            self.block(elapsed_ms=PHASE_MS)

    def earned(self, name: str) -> int:
        """Paid so far."""
        return sum(r.amount_uflk for r in self.receipts if r.kind == "reward" and r.account == self.addresses[name])

    def _check_rows(self) -> None:
        super()._check_rows()
        assert_vestings(self.state)


def test_a_part_of_the_pay_waits_and_is_released_when_the_work_holds() -> None:
    """Golden: 630 FLK for trainers, 40 % of it vested; 30 FLK for three judges; pool and deposit refunded."""
    story = FinalStory()
    story.play()
    assert story.task.status == "open"
    assert story.earned("trainer0") == TRAINERS_UFLK // 4 * 6 // 10
    assert sum(row.amount_uflk for row in story.state.iterate(Vesting)) == TRAINERS_UFLK * 4 // 10
    judges_before = {name: story.earned(name) for name in story.judges}
    story.reveal()
    story.judge(GAIN)
    assert (story.final.outcome, story.task.status) == ("passed", "finished")
    assert story.final.reason == "code -5.0 %, law -2.0 %, medicine +1.0 %; 0 of 3 seats find no gain, or harm"
    assert all(story.earned(name) == TRAINERS_UFLK // 4 for name in story.trainers)
    assert all(story.earned(name) - judges_before[name] == PAY_UFLK // 3 for name in story.judges)
    assert story.balance("creator") == story.before_uflk - POOL_UFLK - PAY_UFLK
    assert find_final_problems(story.state, story.task, story.final) == []


@pytest.mark.parametrize("changes_ppm", [NO_GAIN, HARM])
def test_work_that_does_not_hold_forfeits_what_was_vested_and_the_creator_gains_nothing(
    changes_ppm: tuple[int, ...],
) -> None:
    """No gain in sum, or harm on one domain whatever the others gained: to the community pool, not to the creator."""
    story = FinalStory()
    community_uflk = story.state.get(Chain).community_pool_uflk
    story.play()
    story.reveal()
    story.judge(changes_ppm)
    assert story.final.outcome == "failed"
    assert all(story.earned(name) == TRAINERS_UFLK // 4 * 6 // 10 for name in story.trainers)
    assert story.state.get(Chain).community_pool_uflk - community_uflk == TRAINERS_UFLK * 4 // 10
    assert story.balance("creator") == story.before_uflk - POOL_UFLK - PAY_UFLK
    assert [r.amount_uflk for r in story.receipts if r.kind == "forfeit"] == [TRAINERS_UFLK // 20] * 8


def test_a_creator_that_does_not_reveal_pays_the_trainers_and_loses_its_deposit() -> None:
    story = FinalStory()
    story.play()
    story.block(elapsed_ms=PHASE_MS)
    assert story.final.outcome == "withheld"
    assert story.final.reason == f"the creator did not reveal the final set within {PHASE_MS} ms"
    assert all(story.earned(name) == TRAINERS_UFLK // 4 for name in story.trainers)
    assert story.balance("creator") == story.before_uflk - POOL_UFLK - PAY_UFLK - DEPOSIT_UFLK
    assert find_final_problems(story.state, story.task, story.final) == []


@pytest.mark.parametrize("status", ["unavailable", "malformed"])
def test_a_reveal_without_usable_bytes_is_none_and_its_judges_are_paid(status: str) -> None:
    story = FinalStory()
    story.play()
    story.reveal()
    before = story.earned("judge0")
    story.judge((), status)
    assert story.final.outcome == "withheld"
    assert all(story.earned(name) == TRAINERS_UFLK // 4 for name in story.trainers)
    assert story.earned("judge0") - before == PAY_UFLK // 3
    assert story.balance("creator") == story.before_uflk - POOL_UFLK - PAY_UFLK - DEPOSIT_UFLK


def test_silent_judges_decide_nothing_and_pay_for_it() -> None:
    """Two of three: the trainers are paid, the deposit comes back, absence costs 1 %."""
    story = FinalStory()
    story.play()
    story.reveal()
    story.judge(NO_GAIN, silent=("judge1", "judge2"))
    assert (story.final.outcome, story.final.reason) == ("undecided", "1 of 3 seats measured, two thirds are needed")
    assert all(story.earned(name) == TRAINERS_UFLK // 4 for name in story.trainers)
    assert [story.bond(name) for name in story.judges] == [BOND_UFLK, BOND_UFLK * 99 // 100, BOND_UFLK * 99 // 100]


def test_one_lying_judge_changes_nothing_and_pays_as_an_outlier() -> None:
    story = FinalStory()
    story.play()
    story.reveal()
    before = {name: story.earned(name) for name in story.judges}
    for name in story.judges:
        story.must(name, story.say(name, (300_000, 300_000, 300_000) if name == "judge1" else GAIN))
    assert story.final.outcome == "passed"
    assert story.bond("judge1") == BOND_UFLK * 99 // 100
    assert story.earned("judge1") == before["judge1"]
    assert story.earned("judge0") - before["judge0"] == PAY_UFLK // 2


def test_a_cancelled_task_is_judged_too() -> None:
    """Else trainers who fear the judgement would leave before the last round."""
    story = Story(spec=make_spec(rounds=3), final=TERMS)
    story.play_round()
    story.wait_draw()
    for name in story.trainers[:3]:
        story.must(name, leave_task.Body(story.task_id))
    story.pass_deadline()  # TRAIN of round 2: nobody submits
    while story.state.get(FinalSet, story.task_id).phase == "hidden":
        story.pass_deadline()  # ENROLL of round 3: one trainer is left
    assert story.round.outcome.startswith("cancelled in ENROLL: 1 of 2 trainers")
    assert story.task.status == "open"
    story.block(elapsed_ms=PHASE_MS)
    assert story.state.get(FinalSet, story.task_id).outcome == "withheld"
    assert story.task.status == "cancelled"


def test_a_task_without_vested_pay_ends_at_once() -> None:
    story = FinalStory()
    story.play(bad=story.trainers)
    assert (story.task.status, story.final.phase, story.final.reason) == ("finished", "closed", "no reward was vested")
    assert story.balance("creator") >= story.before_uflk - POOL_UFLK


def test_too_few_judges_leave_it_undecided() -> None:
    story = FinalStory()
    story.play()
    story.must("judge2", leave_task.Body(story.task_id))
    story.must("creator", reveal_final.Body(story.task_id))
    assert (story.final.outcome, story.task.status) == ("undecided", "finished")
    assert all(story.earned(name) == TRAINERS_UFLK // 4 for name in story.trainers)


def test_blocks_are_due_while_it_waits() -> None:
    """Reveal and judgement end by time; the draw waits for blocks; nothing else is due."""
    story = FinalStory()
    story.play()

    def find_due() -> tuple[int | None, bool]:
        return compute_next_task_deadline_ms(story.state), is_draw_pending(story.state)

    assert find_due() == (story.final.deadline_ms, False)
    story.must("creator", reveal_final.Body(story.task_id))
    assert find_due() == (None, True)
    story.block()
    story.block()
    assert story.final.phase == "judge"
    assert find_due() == (story.final.deadline_ms, False)


def test_a_tie_of_harm_and_help_needs_two_thirds_to_fail() -> None:
    """The table of outcomes: of three seats two must fail it; a figure exactly at no change is no gain."""
    judges = tuple(Judge(bytes([number]) * 20, 1, (0, 1, 2)) for number in range(3))
    good, bad, still = entry(b"g" * 32, GAIN), entry(b"g" * 32, HARM), entry(b"g" * 32, (0, 0, 0))
    gone, broken = entry(b"g" * 32, (), "unavailable"), entry(b"g" * 32, (), "malformed")
    for said, outcome in (
        ((good, good, bad), "passed"),
        ((good, bad, bad), "failed"),
        ((good, still, still), "failed"),
        ((good, bad, gone), "passed"),
        ((bad, gone, broken), "withheld"),
        ((good, gone, None), "undecided"),
    ):
        entries = {judge.address: item for judge, item in zip(judges, said, strict=True) if item is not None}
        assert compute_final_outcome(make_spec(), judges, entries)[0] == outcome


def refuse(story: Story, sender: str, body: Any) -> str:
    (message,) = story.block((sender, body))
    return message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size_bytes": 1 << 40}, "a final set of 1099511627776 bytes exceeds"),
        ({"reveal_ms": 1}, "reveal_ms is 1, possible is"),
        ({"judge_ms": 1}, "judge_ms is 1, possible is"),
    ],
)
def test_terms_with_one_deviation_are_refused(changes: dict[str, int], message: str) -> None:
    story = Story(enroll=False)
    assert refuse(story, "creator", commit_final.Body(replace(TERMS, **changes))).startswith(message)
    assert story.state.find(FinalPledge, story.addresses["creator"]) is None


def test_a_task_whose_final_set_could_not_be_judged_or_paid_is_refused() -> None:
    story = Story(enroll=False)
    story.must("creator", commit_final.Body(replace(TERMS, judge_pay_uflk=2**62)))
    message = refuse(story, "creator", create_task.Body(story.spec, POOL_UFLK))
    assert message.startswith(f"pool, deposit and {2**62} uflk for the final set's judges, together of")
    story.must("creator", commit_final.Body(TERMS))
    long = create_task.Body(make_spec(rounds=501), POOL_UFLK)
    assert refuse(story, "creator", long) == "501 rounds of 4 trainers are more than 2000 vested rewards"
    slow = make_spec(
        judge=replace(story.spec.judge, judge_tokens=9_000), phases=replace(story.spec.phases, commit_ms=600_000)
    )
    assert "takes 18000 ms" not in refuse(story, "creator", create_task.Body(slow, POOL_UFLK))


def test_a_pledge_serves_one_task_and_its_root_no_other() -> None:
    story = FinalStory()
    story.must("creator", create_task.Body(story.spec, 0))
    assert story.state.find(FinalSet, story.task_id + 1) is None
    assert story.state.get(Adapter, TERMS.root).kind == "final"
    assert "is recorded already: write the file with another salt" in refuse(
        story, "stranger", commit_final.Body(TERMS)
    )


def test_who_may_reveal_and_judge_and_when() -> None:
    story = FinalStory()
    story.must("stranger", create_task.Body(story.spec, 0))
    assert refuse(story, "stranger", reveal_final.Body(2)) == "task 2 has no hidden final set"
    reveal = reveal_final.Body(story.task_id)
    assert refuse(story, "creator", reveal).endswith("is in phase hidden, not in reveal")
    story.play()
    assert refuse(story, "trainer0", reveal).endswith("is its creator's to reveal")
    story.reveal()
    assert refuse(story, "trainer0", story.say("trainer0", GAIN)).startswith("the sender is no judge")
    other = judge_final.Body(story.task_id, entry(make_root("another"), GAIN))
    assert "one entry for each" in refuse(story, "judge0", other)
    story.must("judge0", story.say("judge0", GAIN))
    assert "has judged the final set" in refuse(story, "judge0", story.say("judge0", GAIN))
    assert [vote.judge for vote in story.state.iterate(FinalVote, story.task_id)] == [story.addresses["judge0"]]


def test_a_judgement_that_does_not_follow_from_the_votes_is_named() -> None:
    story = FinalStory()
    story.play()
    story.reveal()
    story.judge(GAIN)
    forged = replace(story.final, outcome="failed")
    (problem,) = find_final_problems(story.state, story.task, forged)
    assert problem.startswith("the judges' figures say passed")
