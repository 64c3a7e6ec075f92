"""Rule `arena`: golden figures of committee pay by distance to consensus, and what a liar earns."""

import math
import random

import pytest

from flockchain.execution.audit import find_round_problems
from flockchain.execution.closeness import FARTHEST_PPM, LAMBDA, compute_closeness, compute_decay
from flockchain.execution.draw import Judge
from flockchain.params import PPM
from flockchain.types.rows import Assignment, Submission
from flockchain.types.task import AdapterFigures, JudgeSpec, RewardSpec
from tests.support.rounds import BAD, GOOD, POOL_UFLK, Judging, Story, entry, judge_honestly, make_spec

A, B = b"a" * 32, b"b" * 32
JUDGES = tuple(Judge(bytes([number]) * 20, 1, (0, 1, 2)) for number in range(5))
ASSIGNMENTS = tuple(Assignment(judge.address, (A, B)) for judge in JUDGES)


@pytest.mark.parametrize(
    ("distance_ppm", "decay_ppm"),
    [
        (0, 1_000_000),
        (83_333, 846_482),
        (250_000, 606_530),
        (500_000, 367_879),
        (1_000_000, 135_335),
        (3_000_000, 2_478),
    ],
)
def test_decay_is_the_exponential(distance_ppm: int, decay_ppm: int) -> None:
    assert compute_decay(distance_ppm) == decay_ppm


def test_decay_in_integers_stays_within_one_ppm() -> None:
    for distance_ppm in range(0, FARTHEST_PPM, 7_919):
        exact = math.exp(-LAMBDA * distance_ppm / PPM) * PPM
        assert exact - 1.000_1 <= compute_decay(distance_ppm) <= exact + 1e-4
    assert compute_decay(FARTHEST_PPM) == 0


def find_closeness(*ballots: tuple[AdapterFigures, ...]) -> list[int]:
    """Of five judges of adapters A and B, in their order."""
    revealed = {judge.address: ballot for judge, ballot in zip(JUDGES, ballots, strict=False)}
    found = compute_closeness(make_spec(), JUDGES, ASSIGNMENTS, revealed)
    return [found[judge.address] for judge in JUDGES if judge.address in found]


def test_the_farthest_figure_decides() -> None:
    """One figure 45,000 ppm off: the limit is 3/4 of the median 60,000, so it lies exactly at the limit."""
    honest = (entry(A, (-60_000, 0, 0)), entry(B, (0, 0, 0)))
    off = (entry(A, (-15_000, 0, 0)), entry(B, (0, 0, 0)))
    assert find_closeness(honest, honest, honest, honest, off) == [PPM] * 4 + [135_335]


def test_an_abstention_costs_its_part_and_no_more() -> None:
    honest = (entry(A, (-60_000, 0, 0)), entry(B, (0, 0, 0)))
    half = (honest[0], entry(B, (), "abstain"))
    assert find_closeness(honest, honest, honest, honest, half) == [PPM] * 4 + [PPM // 2]


def test_who_scores_what_all_others_refuse_is_far_from_them() -> None:
    honest = (entry(A, (-60_000, 0, 0)), entry(B, (), "malformed", reason="a sentence"))
    credulous = (honest[0], entry(B, (-60_000, 0, 0)))
    assert find_closeness(honest, honest, honest, honest, credulous) == [PPM] * 4 + [PPM * 3 // 4]


def test_where_nothing_can_be_compared_all_are_equal() -> None:
    silent = (entry(A, (), "abstain"), entry(B, (), "abstain"))
    assert find_closeness(silent, silent) == [PPM, PPM]


def lie_about(which: str, changes_ppm: tuple[int, ...]) -> Judging:
    """judge0 says `changes_ppm` of adapters whose author wrote `which`, everybody else measures."""

    def judge(voter: str, submission: Submission) -> AdapterFigures:
        if voter == "judge0" and submission.versions == which:
            return entry(submission.root, changes_ppm)
        return judge_honestly(voter, submission)

    return judge


@pytest.mark.parametrize(
    ("judging", "what"),
    [
        (lie_about("bad", GOOD), "covers up for the one poisoner"),
        (lie_about("good", BAD), "accuses the honest"),
        (lie_about("good", (0, 0, 0)), "says nothing happened"),
    ],
)
def test_one_liar_in_five_earns_less_than_half(judging: Judging, what: str) -> None:
    spec = make_spec(
        judge=JudgeSpec(seats=5, judge_tokens=1_000, slowest_tokens_per_s=1_000), rewards=RewardSpec(rule="arena")
    )
    story = Story(judges=5, spec=spec)
    story.play_round(bad=("trainer0",), judging=judging)
    paid = {story.names[r.account]: r.amount_uflk for r in story.receipts if r.kind == "reward"}
    honest = [paid[name] for name in story.judges[1:]]
    assert paid["judge0"] * 2 < min(honest), what
    assert sum(paid[name] for name in story.judges) <= POOL_UFLK // 3 * 3 // 10
    settlement = next(r for r in story.receipts if r.kind == "settlement")
    assert find_round_problems(story.state, story.task, story.last_round, settlement.facts[0].value) == []


def test_honest_noise_costs_little() -> None:
    """Five honest judges whose figures scatter by 4,000 ppm, a limit of 30,000 and more: the
    unluckiest in a hundred keeps 45 %, the one in the middle two thirds of what perfect agreement would earn.
    """
    seed = 11
    rng = random.Random(seed)
    shares: list[int] = []
    for _ in range(200):
        ballots = [
            tuple(entry(root, [round(rng.gauss(mean, 4_000)) for mean in GOOD], "scored") for root in (A, B))
            for _ in JUDGES
        ]
        shares += find_closeness(*ballots)
    shares.sort()
    assert shares[len(shares) // 100] > PPM * 2 // 5, f"seed {seed}"
    assert shares[len(shares) // 2] > PPM * 6 // 10, f"seed {seed}"
