"""Training rounds, phase by phase: everyone acts, or someone is silent; nothing hangs and every phase has a result."""

import re

import pytest
from msgspec.structs import replace

from flockchain.execution.tasks import compute_next_task_deadline_ms, is_draw_pending
from flockchain.params import TaskParams
from flockchain.txs import confirm_fetched, get_type, stake, unstake, vote
from flockchain.types.rows import Adapter, Chain, Draw, TaskParticipant
from flockchain.types.task import Ballot, JudgeSpec
from flockchain.types.tx import Tx
from tests.support.rounds import (
    BOND_UFLK,
    DOMAINS,
    PHASE_MS,
    POOL_UFLK,
    Story,
    entry,
    judge_honestly,
    leave,
    make_root,
    make_spec,
)


def at_train(**options: object) -> Story:
    story = Story(**options)  # type: ignore[arg-type]
    story.wait_draw()
    assert story.round.phase == "train"
    return story


def at_publish(**options: object) -> Story:
    story = at_train(**options)
    story.submit()
    story.wait_draw()
    assert story.round.phase == "publish"
    return story


def at_commit(**options: object) -> Story:
    story = at_publish(**options)
    story.confirm()
    assert story.round.phase == "commit"
    return story


def at_aggregate(**options: object) -> Story:
    story = at_commit(**options)
    story.vote()
    assert story.round.phase == "aggregate"
    return story


# The whole way


def test_three_rounds_with_a_poisoner_from_enroll_to_refund() -> None:
    story = Story()
    first = story.play_round(bad=("trainer3",))
    outcomes = {story.names[verdict.trainer]: verdict.outcome for verdict in first.verdicts}
    assert outcomes == {"trainer0": "accept", "trainer1": "accept", "trainer2": "accept", "trainer3": "reject"}
    assert story.bond("trainer3") == BOND_UFLK * 9 // 10
    second, third = story.play_round(bad=("trainer3",)), story.play_round()
    assert story.bond("trainer3") == BOND_UFLK * 9 // 10 * 8 // 10, "a repeated offence costs twice as much"
    assert (second.base_root, third.base_root) == (first.result_root, second.result_root)
    assert story.task.status == "finished"
    assert (story.task.pool_uflk, story.task.deposit_uflk) == (0, 0)
    assert story.task.global_root == story.task.best_root == third.result_root
    assert story.state.get(Adapter, third.result_root).kind == "global"
    for name in (*story.trainers[:3], *story.judges):
        assert story.bond(name) == BOND_UFLK, f"{name} is honest"
    kinds = [receipt.kind for receipt in story.receipts]
    assert (kinds.count("settlement"), kinds.count("refund"), kinds.count("slash")) == (3, 1, 2)


def test_a_round_in_which_all_act_ends_long_before_any_deadline() -> None:
    story = Story()
    started_ms = story.round.started_ms
    assert story.play_round().settled_ms - started_ms < PHASE_MS


def test_equal_stories_leave_equal_rows() -> None:
    first, second = Story(), Story()
    for story in (first, second):
        story.play_round(bad=("trainer1",))
    assert list(first.state.rows()) == list(second.state.rows())


def test_two_tasks_run_side_by_side() -> None:
    story = Story()
    story.wait_draw()
    story.submit(silent=("trainer0",))
    first, creator = story.task_id, story.addresses["creator"]
    story.must("creator", get_type("create-task").body(make_spec(), POOL_UFLK))
    story.task_id = story.state.get(Chain).next_task - 1
    story.enroll()
    second_round = story.play_round(bad=("trainer2",))
    assert [v.outcome for v in second_round.verdicts].count("accept") == 3
    assert story.task.creator == creator
    story.task_id = first
    assert story.round.phase == "train"
    assert all(story.bond(name) == BOND_UFLK for name in story.trainers)


# ENROLL


def test_enroll_waits_for_the_most_trainers_until_its_deadline_then_takes_fewer() -> None:
    story = Story(enroll=False)
    story.enroll(("trainer0", "trainer1", *story.judges))
    assert story.round.phase == "enroll"
    assert not is_draw_pending(story.state)
    story.pass_deadline()
    assert is_draw_pending(story.state)
    story.wait_draw()
    assert sorted(story.drawn_trainers()) == ["trainer0", "trainer1"]


def test_round_one_waits_for_as_many_judges_as_there_are_seats_until_its_deadline() -> None:
    """Three judges could fill six seats, two each; until the deadline there is time for others to come."""
    spec = make_spec(judge=JudgeSpec(seats=6, judge_tokens=1_000, slowest_tokens_per_s=1_000))
    story = Story(spec=spec, judges=3)
    assert not is_draw_pending(story.state)
    story.pass_deadline()
    assert is_draw_pending(story.state)


def test_enroll_waits_for_judges_of_every_domain() -> None:
    story = Story(enroll=False)
    story.enroll((*story.trainers, "judge0", "judge1"))
    story.must("judge2", story.stake_body("judge2", domains=DOMAINS[:2]))
    story.pass_deadline()
    assert story.round.phase == "enroll"
    assert not is_draw_pending(story.state)


def test_a_task_that_nobody_joins_is_cancelled_and_refunded() -> None:
    story = Story(enroll=False)
    before = story.balance("creator")
    story.pass_deadline()
    assert story.round.deadline_ms == story.round.started_ms + 3 * PHASE_MS
    story.pass_deadline()
    assert story.task.status == "cancelled"
    assert story.task.reason == "0 of 2 trainers and too few judges for 3 seats after 180000 ms of waiting"
    assert story.balance("creator") == before + POOL_UFLK + 10_000_000
    assert compute_next_task_deadline_ms(story.state) is None


def test_whoever_comes_past_the_deadline_starts_the_round_at_once() -> None:
    story = Story(enroll=False)
    story.pass_deadline()
    story.enroll()
    assert story.round.phase == "train" or story.round.draw_height


def test_the_draw_is_made_at_the_end_of_the_second_block_after_the_freeze() -> None:
    story = Story(enroll=False)
    story.enroll(story.trainers)
    story.enroll(("judge0", "judge1"))
    frozen_at = story.height + 1
    story.enroll(("judge2",))
    assert story.round.draw_height == frozen_at + 2
    story.block()
    assert story.round.phase == "enroll"
    story.block()
    assert story.round.phase == "train"
    draw = story.state.get(Draw, story.task_id, 1, "trainer")
    assert draw.beacon == story.state.get(Chain).beacon


def test_a_candidate_of_a_pending_draw_cannot_take_its_bond_out() -> None:
    story = Story()
    assert story.block(("trainer0", unstake.Body(story.target, BOND_UFLK))) == [
        "the owner is drawn in the current round of task 1: unstake when it has settled"
    ]


def test_who_left_or_fell_below_the_minimum_is_not_drawn() -> None:
    story = Story()
    story.wait_draw()
    leave(story, "trainer0")
    story.submit()
    story.wait_draw()
    story.confirm()
    story.vote()
    story.attest()
    story.wait_draw()
    assert sorted(story.drawn_trainers()) == ["trainer1", "trainer2", "trainer3"]


# TRAIN


def test_a_silent_trainer_is_unpaid_and_not_slashed() -> None:
    story = at_train()
    story.submit(silent=("trainer0",))
    assert story.round.phase == "train"
    story.pass_deadline()
    story.wait_draw()
    story.confirm()
    story.vote()
    story.attest()
    assert len(story.last_round.verdicts) == 3
    assert story.bond("trainer0") == BOND_UFLK
    assert story.stake_of("trainer0").missed_rounds == 1


def test_a_trainer_that_misses_two_rounds_in_a_row_is_jailed_in_the_task() -> None:
    story = Story(spec=make_spec(rounds=6))
    for _ in range(2):
        story.wait_draw()
        story.submit(silent=("trainer0",))
        story.pass_deadline()
        story.wait_draw()
        story.confirm()
        story.vote()
        story.attest()
    assert story.stake_of("trainer0").benched_until_round == 5
    drawn = []
    for _ in range(3):
        story.wait_draw()
        drawn.append("trainer0" in story.drawn_trainers())
        story.play_round()
    assert drawn == [False, False, True]


def test_when_no_trainer_submits_the_round_settles_with_the_previous_adapter() -> None:
    story = at_train()
    story.pass_deadline()
    settled = story.round_at(1)
    assert (settled.phase, settled.outcome) == ("settled", "none of 4 trainers submitted")
    assert settled.result_root == settled.base_root
    assert story.task.pool_uflk == POOL_UFLK, "nobody is paid: the reward waits for the rounds left"
    assert story.round.number == 2


def test_judges_that_left_during_train_leave_the_round_void() -> None:
    story = at_train()
    leave(story, "judge0")
    story.submit()
    assert story.round_at(1).outcome == "no committee could be drawn: 2 judges cannot fill 3 seats in every domain"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"round": 2}, "task 1 is in round 1, not in round 2"),
        ({"task": 9}, "there is no task 9"),
        ({"base_root": make_root("foreign")}, "the adapter was trained from .*, round 1 starts from the base"),
        ({"size_bytes": 2_000_000}, "an adapter of 2000000 bytes exceeds the task's 1048576 bytes"),
        ({"size_bytes": 0}, "an adapter has at least 1 byte"),
    ],
)
def test_a_submission_with_one_deviation_is_refused(changes: dict[str, object], message: str) -> None:
    story = at_train()
    (said,) = story.block(("trainer0", story.submit_body("trainer0", **changes)))
    assert re.fullmatch(message, said), said


def test_submissions_are_one_per_drawn_trainer_and_never_equal() -> None:
    story = at_train()
    body = story.submit_body("trainer0")
    assert "is not a trainer" in story.block(("judge0", body))[0]
    story.must("trainer0", body)
    assert "this adapter is recorded" in story.block(("trainer0", body))[0]
    assert "was submitted" in story.block(("trainer0", replace(body, root=make_root("other"))))[0]
    assert "was recorded in round 1 of task 1" in story.block(("trainer1", body))[0]
    story.pass_deadline()
    assert "is closed: a draw is due" in story.block(("trainer2", story.submit_body("trainer2")))[0]


# PUBLISH


def test_an_adapter_that_two_thirds_cannot_get_is_unavailable_and_its_author_penalised() -> None:
    story = at_publish()
    withheld = next(row for row in story.submissions() if row.trainer == story.addresses["trainer0"])
    story.confirm(unavailable={"judge0": [withheld.root], "judge1": [withheld.root]})
    assert story.round.phase == "publish", "reports of missing bytes do not end the phase early"
    story.pass_deadline()
    assert withheld.root not in story.round.published
    story.vote()
    story.attest()
    verdict = next(v for v in story.last_round.verdicts if v.root == withheld.root)
    assert (verdict.outcome, verdict.slashed_uflk) == ("unavailable", BOND_UFLK * 2 // 100)


def test_one_judge_cannot_make_an_adapter_unavailable() -> None:
    story = at_publish()
    story.confirm(unavailable={"judge0": [row.root for row in story.submissions()]})
    story.pass_deadline()
    assert len(story.round.published) == 4


def test_when_nobody_confirms_the_phase_ends_at_its_deadline() -> None:
    story = at_publish()
    story.pass_deadline()
    assert story.round.phase == "commit"


def test_when_nothing_was_published_the_round_settles_at_once() -> None:
    story = at_publish()
    roots = [row.root for row in story.submissions()]
    story.confirm(unavailable=dict.fromkeys(story.judges, roots))
    story.pass_deadline()
    assert story.last_round.outcome == "none of the submitted adapters was published"
    assert {verdict.outcome for verdict in story.last_round.verdicts} == {"unavailable"}
    assert all(story.bond(name) == BOND_UFLK for name in story.judges), "there was nothing to vote on"


def test_confirmations_are_once_per_member_about_this_rounds_adapters() -> None:
    story = at_publish()
    body = confirm_fetched.Body(story.task_id, 1, ())
    assert "is not drawn" in story.block(("stranger", body))[0]
    assert "was not submitted" in story.block(("judge0", replace(body, unavailable=(make_root(1),))))[0]
    story.must("trainer0", body)
    story.must("judge0", body)
    assert "has confirmed" in story.block(("judge0", body))[0]


# COMMIT and REVEAL


def test_a_judge_that_does_not_commit_is_absent_and_the_others_decide() -> None:
    story = at_commit()
    story.vote(silent=("judge2",))
    assert story.round.phase == "aggregate"
    assert story.bond("judge2") == BOND_UFLK * 99 // 100
    assert story.slashes("judge2")[0].reason == "absent: no sealed vote by the end of COMMIT"


def test_a_judge_that_does_not_reveal_pays_more() -> None:
    story = at_commit()
    story.vote(hiding=("judge2",))
    assert story.round.phase == "reveal"
    story.pass_deadline()
    assert story.round.phase == "aggregate"
    assert story.bond("judge2") == BOND_UFLK * 95 // 100


def test_when_nobody_commits_nothing_is_decided_and_all_judges_are_absent() -> None:
    story = at_commit()
    story.pass_deadline()
    assert story.last_round.outcome == "none of 4 adapters was accepted"
    assert {verdict.outcome for verdict in story.last_round.verdicts} == {"undecided"}
    assert all(story.bond(name) == BOND_UFLK * 99 // 100 for name in story.judges)
    assert all(story.bond(name) == BOND_UFLK for name in story.trainers)
    assert story.task.pool_uflk == POOL_UFLK


def test_when_two_of_three_are_silent_nothing_is_decided() -> None:
    story = at_commit()
    story.vote(silent=("judge1", "judge2"))
    assert {verdict.outcome for verdict in story.last_round.verdicts} == {"undecided"}
    assert story.bond("judge0") == BOND_UFLK


def test_a_reveal_that_does_not_match_its_seal_is_refused_and_counts_as_none() -> None:
    story = at_commit()
    ballots = {name: story.make_ballot(name, judge_honestly) for name in story.committee()}
    for name, ballot in ballots.items():
        story.must(name, story.seal(name, ballot))
    forged = story.make_ballot("judge0", lambda name, row: entry(row.root, (900_000, 900_000, 900_000)))
    body = vote.Body(story.task_id, 1, ballot=forged, salt=story.salt("judge0"))
    (said,) = story.block(("judge0", body))
    assert said.startswith("ballot and salt give seal ")
    for name in ("judge1", "judge2"):
        story.must(name, vote.Body(story.task_id, 1, ballot=ballots[name], salt=story.salt(name)))
    story.pass_deadline()
    assert story.slashes("judge0")[0].reason.startswith("unrevealed")


@pytest.mark.parametrize(
    ("deviation", "message"),
    [
        (lambda ballot: replace(ballot, figures=ballot.figures[1:]), "and 1 are missing"),
        (lambda ballot: replace(ballot, figures=ballot.figures[::-1]), "sorted by root"),
        (lambda b: _change_first(b, status="abstain"), "must hold no figures"),
        (lambda b: _change_first(b, status="malformed", domains=()), "must give a reason"),
        (lambda b: _change_first(b, domains=b.figures[0].domains[::-1]), "list domains in order"),
        (lambda b: _change_first(b, domains=(replace(b.figures[0].domains[0], domain=7),)), "figure on domain 7"),
        (lambda b: _change_first(b, domains=(replace(b.figures[0].domains[0], se_ppm=0),)), "standard error of 0 ppm"),
    ],
)
def test_a_ballot_with_one_deviation_is_refused_when_opened(deviation: object, message: str) -> None:
    story = at_commit()
    ballot = deviation(story.make_ballot("judge0", judge_honestly))  # type: ignore[operator]
    for name in story.committee():
        story.must(name, story.seal(name, ballot if name == "judge0" else story.make_ballot(name, judge_honestly)))
    (said,) = story.block(("judge0", vote.Body(story.task_id, 1, ballot=ballot, salt=story.salt("judge0"))))
    assert message in said


def _change_first(ballot: Ballot, **changes: object) -> Ballot:
    return replace(ballot, figures=(replace(ballot.figures[0], **changes), *ballot.figures[1:]))


def test_votes_are_sealed_once_by_the_committee_in_its_phase() -> None:
    story = at_commit()
    body = vote.Body(story.task_id, 1, seal=make_root("seal"))
    assert "is not in the committee" in story.block(("trainer0", body))[0]
    story.must("judge0", body)
    assert "has sealed its vote" in story.block(("judge0", replace(body, seal=make_root("other"))))[0]
    opened = vote.Body(story.task_id, 1, ballot=story.make_ballot("judge0", judge_honestly), salt=make_root("s"))
    assert "is in phase commit, not in reveal" in story.block(("judge0", opened))[0]
    both = replace(opened, seal=make_root("seal"))
    assert story.block(("judge0", both)) == ["an open vote holds a ballot, its salt of 32 bytes, and no seal"]


def test_a_due_transaction_is_free_once_and_only_while_it_would_be_done() -> None:
    story = at_commit()
    body = vote.Body(story.task_id, 1, seal=make_root("seal"))
    module = get_type("vote").module

    def is_due(name: str) -> bool:
        tx = Tx("flock-test", "vote", story.addresses[name], 0, 0, 0, b"")
        return bool(module.is_due(story.state, tx, body))

    assert is_due("judge0")
    assert not is_due("trainer0")
    story.must("judge0", body)
    assert not is_due("judge0")


# AGGREGATE


def test_a_missing_attestation_costs_like_an_absence_and_two_thirds_settle() -> None:
    story = at_aggregate()
    story.attest(silent=("judge1",))
    assert story.round.phase == "aggregate"
    story.pass_deadline()
    assert story.last_round.outcome == "aggregated 4 of 4 adapters, attested by 2 seats"
    assert story.bond("judge1") == BOND_UFLK * 99 // 100
    paid = {story.names[r.account] for r in story.receipts if r.kind == "reward"}
    assert paid == {*story.trainers, "judge0", "judge2"}


def test_a_losing_attestation_is_penalised_and_unpaid() -> None:
    story = at_aggregate()
    story.must("judge0", story.attest_body("judge0", candidate=make_root("wrong")))
    story.attest(silent=("judge0",))
    assert story.last_round.phase == "settled"
    assert "the agreed one has another root" in story.slashes("judge0")[0].reason


def test_without_a_quorum_any_bonded_participant_may_attest_until_a_second_deadline() -> None:
    story = at_aggregate()
    assert "not in the committee" in story.block(("trainer0", story.attest_body("trainer0")))[0]
    story.attest(silent=("judge1", "judge2"))
    story.pass_deadline()
    assert story.round.second_deadline
    assert "is below its minimum" in story.block(("stranger", story.attest_body("stranger")))[0]
    for name in ("trainer0", "trainer1", "trainer2"):
        story.must(name, story.attest_body(name))
    assert story.round.phase == "aggregate", "4 of 7 accounts are not two thirds"
    story.must("trainer3", story.attest_body("trainer3"))
    assert story.last_round.outcome == "aggregated 4 of 4 adapters, attested by 1 seats"
    assert story.last_round.result_root != story.last_round.base_root


def test_when_nobody_attests_the_previous_adapter_stays_and_payment_waits() -> None:
    story = at_aggregate()
    story.pass_deadline()
    story.pass_deadline()
    assert story.last_round.outcome.startswith("no candidate was attested")
    assert story.last_round.result_root == story.last_round.base_root
    assert story.task.pool_uflk == POOL_UFLK
    assert all(story.bond(name) == BOND_UFLK for name in story.trainers)
    assert {verdict.outcome for verdict in story.last_round.verdicts} == {"accept"}, "the verdicts stand"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coefficients": ()}, "at least one, none twice"),
        ({"size_bytes": 0}, "a candidate of 0 bytes"),
        ({"round": 2}, "is in round 1, not in round 2"),
    ],
)
def test_an_attestation_with_one_deviation_is_refused(changes: dict[str, object], message: str) -> None:
    story = at_aggregate()
    assert message in story.block(("judge0", story.attest_body("judge0", **changes)))[0]


# Time and bounds


def test_the_next_deadline_is_that_of_the_open_phase_and_draws_wait_for_blocks() -> None:
    story = Story()
    assert is_draw_pending(story.state)
    assert compute_next_task_deadline_ms(story.state) is None
    story.wait_draw()
    assert compute_next_task_deadline_ms(story.state) == story.round.deadline_ms == story.time_ms + PHASE_MS


def test_a_long_silence_ends_one_phase_per_deadline_and_never_loops() -> None:
    story = Story(spec=make_spec(rounds=2))
    for _ in range(60):
        if story.task.status != "open":
            break
        story.block(elapsed_ms=10 * PHASE_MS)
    assert story.task.status == "finished"


def test_participants_are_indexed_while_they_have_a_bond() -> None:
    story = Story(params=TaskParams(max_participants=7))
    assert len(list(story.state.iterate(TaskParticipant, story.task_id))) == 7
    full = stake.Body(story.target, BOND_UFLK, "trainer")
    assert story.block(("stranger", full)) == ["task 1 has 7 participants, the most that are allowed"]


def test_nine_adapters_are_judged_by_panels_and_all_decided() -> None:
    spec = make_spec(
        trainers_max=9, rounds=1, judge=JudgeSpec(seats=12, judge_tokens=1_000, slowest_tokens_per_s=1_000)
    )
    story = Story(trainers=9, judges=12, spec=spec)
    settled = story.play_round(bad=("trainer4",))
    assert [v.outcome for v in settled.verdicts].count("reject") == 1
    assert [v.outcome for v in settled.verdicts].count("accept") == 8
    assert min(len(a.roots) for a in settled.assignments) < 9


def test_every_drawn_account_gets_a_receipt_with_its_tickets_and_the_beacon() -> None:
    story = Story()
    story.wait_draw()
    assert [(r.kind, r.account) for r in story.receipts] == [("draw", address) for address in story.round.trainers]
    facts = {amount.name: amount.value for amount in story.receipts[0].facts}
    assert (facts["tickets"], facts["of_tickets"], facts["seats"]) == (10, 40, 1)
    assert story.receipts[0].evidence == story.state.get(Chain).beacon
