"""A trainer or committee member falls silent in a phase: each phase has a defined result, and nothing hangs.

Docs: docs/protocol-rounds.md, "Phases" and "Verdicts". Only the phase in which somebody is silent is short.
"""

from pathlib import Path

import pytest

from flockchain.client import Json
from tests.devnet.network import JUDGES, TRAINERS, Network
from tests.devnet.scripted import BOND_UFLK, POOL_UFLK, Cast, make_task_spec

pytestmark = pytest.mark.devnet
SHORT_MS = 3_000
PPM = 1_000_000


def paid(cast: Cast, settled: Json) -> set[str]:
    names = {member.me: name for name, member in cast.members.items()}
    return {names[reward["account"]] for reward in settled["rewards"]}


def slashed(cast: Cast, settled: Json) -> dict[str, int]:
    """Name -> ppm of the bond that was taken."""
    names = {member.me: name for name, member in cast.members.items()}
    return {names[item["account"]]: item["amount_uflk"] * PPM // BOND_UFLK for item in settled["slashes"]}


def outcome_of(cast: Cast, settled: Json, name: str) -> str:
    me = cast.members[name].me
    return str(next(verdict["outcome"] for verdict in settled["verdicts"] if verdict["trainer"] == me))


def test_a_trainer_silent_in_train_is_unpaid_and_the_others_settle(network: Network, tmp_path: Path) -> None:
    with Cast(network, tmp_path, make_task_spec(train_ms=SHORT_MS)) as cast:
        cast.play_to("train")
        settled = cast.finish_round(silent=["trainer1"])
        assert settled["outcome"].startswith("aggregated")
        assert len(settled["submissions"]) == 3
        assert paid(cast, settled) == {"trainer0", "trainer2", "trainer3", *JUDGES}
        assert not slashed(cast, settled)


def test_a_trainer_silent_in_publish_is_unavailable_and_penalised(network: Network, tmp_path: Path) -> None:
    with Cast(network, tmp_path, make_task_spec(publish_ms=SHORT_MS)) as cast:
        cast.play_to("publish")
        settled = cast.finish_round(silent=["trainer1"])
        assert settled["outcome"].startswith("aggregated")
        assert outcome_of(cast, settled, "trainer1") == "unavailable"
        mine = next(v for v in settled["verdicts"] if v["outcome"] == "unavailable")
        assert mine["reason"] == "two thirds of the seats could not get its bytes"
        assert paid(cast, settled) == {"trainer0", "trainer2", "trainer3", *JUDGES}
        assert slashed(cast, settled) == {"trainer1": cast.spec.penalties.unpublished_ppm}


def test_a_trainer_silent_after_publish_is_paid_all_the_same(network: Network, tmp_path: Path) -> None:
    with Cast(network, tmp_path, make_task_spec()) as cast:
        cast.play_to("commit")
        settled = cast.finish_round(silent=["trainer1"])
        assert paid(cast, settled) == {*TRAINERS[:4], *JUDGES}
        assert not slashed(cast, settled)


def test_a_judge_silent_in_publish_only_delays(network: Network, tmp_path: Path) -> None:
    with Cast(network, tmp_path, make_task_spec(publish_ms=SHORT_MS)) as cast:
        cast.play_to("publish")
        cast.play_to("commit", silent=["judge1"])
        settled = cast.finish_round()
        assert paid(cast, settled) == {*TRAINERS[:4], *JUDGES}
        assert not slashed(cast, settled)


@pytest.mark.parametrize(
    ("phase", "penalty"), [("commit", "absent_ppm"), ("reveal", "unrevealed_ppm"), ("aggregate", "absent_ppm")]
)
def test_a_judge_silent_in_a_phase_loses_and_the_other_two_decide(
    network: Network, tmp_path: Path, phase: str, penalty: str
) -> None:
    spec = make_task_spec(**{f"{phase}_ms": SHORT_MS, "aggregate_ms": SHORT_MS})
    with Cast(network, tmp_path, spec) as cast:
        cast.play_to(phase)
        settled = cast.finish_round(silent=["judge1"])
        assert settled["outcome"].startswith("aggregated")
        assert {outcome_of(cast, settled, name) for name in TRAINERS[:4]} == {"accept"}
        assert slashed(cast, settled) == {"judge1": getattr(cast.spec.penalties, penalty)}
        assert paid(cast, settled) == {*TRAINERS[:4], "judge0", "judge2"}


def test_nobody_trains_and_the_round_is_void(network: Network, tmp_path: Path) -> None:
    with Cast(network, tmp_path, make_task_spec(train_ms=SHORT_MS)) as cast:
        cast.play_to("train")
        settled = cast.finish_round(silent=list(cast.members))
        assert settled["outcome"] == "none of 4 trainers submitted"
        assert not settled["rewards"]
        assert not slashed(cast, settled)


def test_nobody_publishes_and_the_round_is_void(network: Network, tmp_path: Path) -> None:
    with Cast(network, tmp_path, make_task_spec(publish_ms=SHORT_MS)) as cast:
        cast.play_to("publish")
        settled = cast.finish_round(silent=TRAINERS)
        assert settled["outcome"] == "none of the submitted adapters was published"
        assert slashed(cast, settled) == dict.fromkeys(TRAINERS[:4], cast.spec.penalties.unpublished_ppm)


@pytest.mark.parametrize(("phase", "penalty"), [("commit", "absent_ppm"), ("reveal", "unrevealed_ppm")])
def test_no_judge_votes_and_all_is_undecided(network: Network, tmp_path: Path, phase: str, penalty: str) -> None:
    with Cast(network, tmp_path, make_task_spec(**{f"{phase}_ms": SHORT_MS})) as cast:
        cast.play_to(phase)
        settled = cast.finish_round(silent=JUDGES)
        assert settled["outcome"] == "none of 4 adapters was accepted"
        assert {outcome_of(cast, settled, name) for name in TRAINERS[:4]} == {"undecided"}
        assert slashed(cast, settled) == dict.fromkeys(JUDGES, getattr(cast.spec.penalties, penalty))
        assert not settled["rewards"]


def test_no_judge_attests_and_too_few_others_leave_the_previous_adapter(network: Network, tmp_path: Path) -> None:
    with Cast(network, tmp_path, make_task_spec(aggregate_ms=SHORT_MS)) as cast:
        cast.play_to("aggregate")
        settled = cast.finish_round(silent=JUDGES)
        assert len(settled["attestations"]) == 4
        assert settled["second_deadline"]
        assert settled["result_root"] == settled["base_root"]
        assert not settled["rewards"]
        assert slashed(cast, settled) == dict.fromkeys(JUDGES, cast.spec.penalties.absent_ppm)


def test_no_judge_attests_and_two_thirds_of_all_bonded_settle_instead(network: Network, tmp_path: Path) -> None:
    spec = make_task_spec(trainers=8, aggregate_ms=SHORT_MS)
    with Cast(network, tmp_path, spec, trainer_names=TRAINERS) as cast:
        cast.play_to("aggregate")
        settled = cast.finish_round(silent=JUDGES)
        assert settled["outcome"].startswith("aggregated")
        assert settled["second_deadline"]
        assert settled["result_root"] == settled["candidate_root"] != settled["base_root"]
        assert paid(cast, settled) == set(TRAINERS)


def test_too_few_enrol_and_the_pool_is_refunded(network: Network, tmp_path: Path) -> None:
    spec = make_task_spec(enroll_ms=SHORT_MS // 2, enroll_limit_ms=SHORT_MS)
    with Cast(network, tmp_path, spec, judge_names=JUDGES[:2]) as cast:
        cast.play(lambda task, _: task["status"] != "open")
        task = cast.task()
        assert task["status"] == "cancelled"
        assert "too few judges for 3 seats" in task["reason"]
        refunds = list(cast.watcher.pages("/receipts", kind="refund", task=cast.task_id))
        assert next(refund["amount_uflk"] for refund in refunds) >= POOL_UFLK
