"""Verdicts from votes: the table of decisions, its thresholds, screens, outliers, and malicious judges."""

import random
from collections.abc import Mapping, Sequence

import pytest
from msgspec.structs import replace

from flockchain.execution.draw import Judge
from flockchain.execution.figures import format_percent
from flockchain.execution.outliers import compute_outliers
from flockchain.execution.verdict import compute_verdicts
from flockchain.types.rows import Assignment, Verdict
from flockchain.types.task import AdapterFigures, JudgeSpec, Screen, TaskSpec
from tests.support.rounds import BAD, GOOD, entry, figure, make_root, make_spec

ROOT = make_root("adapter")
TRAINER = b"t" * 20
SPEC = make_spec()
ALL = (0, 1, 2)


def make_judges(seats: Sequence[int], domains: Sequence[tuple[int, ...]] = ()) -> tuple[Judge, ...]:
    covered = domains or [ALL] * len(seats)
    return tuple(Judge(bytes([i + 1]) * 20, count, covered[i]) for i, count in enumerate(seats))


def judge(
    entries: Sequence[AdapterFigures | None],
    judges: Sequence[Judge] | None = None,
    spec: TaskSpec = SPEC,
    published: bool = True,
) -> Verdict:
    """Verdict on one adapter from one entry per judge; None: did not reveal."""
    judges = judges or make_judges([1] * len(entries))
    ballots = {j.address: (said,) for j, said in zip(judges, entries, strict=True) if said is not None}
    (verdict,) = compute_verdicts(
        spec,
        submissions=[(ROOT, TRAINER)],
        published=[ROOT] if published else [],
        judges=judges,
        assignments=[Assignment(j.address, (ROOT,)) for j in judges],
        ballots=ballots,
    )
    return verdict


def say(*changes: int) -> AdapterFigures:
    return entry(ROOT, changes)


NEUTRAL = say(0, 0, 0)
HELPS, HARMS, MIXED = say(*GOOD), say(*BAD), say(-50_000, 60_000, 0)
ABSTAINS = entry(ROOT, status="abstain")


@pytest.mark.parametrize(
    ("entries", "outcome"),
    [
        ([HELPS, HELPS, HELPS], "accept"),
        ([HELPS, HELPS, None], "accept"),  # one of three may be absent
        ([HELPS, HELPS, HARMS], "accept"),  # and one may lie
        ([HELPS, HELPS, ABSTAINS], "accept"),
        ([HARMS, HARMS, HARMS], "reject"),
        ([HARMS, HARMS, None], "reject"),
        ([HARMS, HARMS, HELPS], "reject"),
        ([HARMS, HELPS, ABSTAINS], "undecided"),
        ([HARMS, ABSTAINS, ABSTAINS], "undecided"),
        ([HARMS, None, None], "undecided"),  # fewer than two thirds revealed
        ([HELPS, None, None], "undecided"),
        ([None, None, None], "undecided"),
        ([NEUTRAL, NEUTRAL, NEUTRAL], "undecided"),
        ([MIXED, MIXED, MIXED], "undecided"),  # helps one domain and harms another
        ([ABSTAINS, ABSTAINS, ABSTAINS], "undecided"),
    ],
)
def test_the_table_of_decisions(entries: list[AdapterFigures | None], outcome: str) -> None:
    assert judge(entries).outcome == outcome


def test_a_reason_can_be_read_by_a_person() -> None:
    verdict = judge([say(123_000, 0, 0)] * 3)
    assert verdict.reason == "harmed code: 3 of 3 seats, median +12.3 %, tolerance 2.0 %"
    assert (verdict.harmed, verdict.helped) == (("code",), ())
    assert judge([HELPS] * 3).reason == "helped code: 3 of 3 seats, median -5.0 %"
    assert judge([HELPS, None, None]).reason == "1 of 3 seats revealed a vote, two thirds are needed"


@pytest.mark.parametrize(
    ("change_ppm", "se_ppm", "outcome"),
    [
        (23_600, 1_000, "undecided"),  # lower bound 20 000 is not above the tolerance
        (23_601, 1_000, "reject"),
        (-3_600, 1_000, "undecided"),  # upper bound 0 is not below zero
        (-3_601, 1_000, "accept"),
        (500_000, 200_000, "undecided"),  # a large change measured badly says nothing
    ],
)
def test_bounds_stand_z_standard_errors_from_the_figure(change_ppm: int, se_ppm: int, outcome: str) -> None:
    said = replace(entry(ROOT), status="scored", domains=(figure(0, change_ppm, se_ppm),))
    assert judge([said] * 3).outcome == outcome


def test_harm_against_the_best_adapter_so_far_is_harm() -> None:
    said = replace(entry(ROOT), status="scored", domains=(figure(0, -5_000, best_change_ppm=30_000),))
    verdict = judge([said] * 3)
    assert verdict.outcome == "reject"
    assert "harm is against the best adapter so far" in verdict.reason


def test_a_domain_is_judged_by_the_seats_that_cover_it() -> None:
    """Two of the three seats that cover law find harm; the four that do not cover it have no say."""
    judges = make_judges([1] * 7, [ALL] * 3 + [(0,)] * 4)
    only_code = entry(ROOT, (0,))
    verdict = judge([HARMS, HARMS, NEUTRAL, only_code, only_code, only_code, only_code], judges)
    assert verdict.harmed == ("law", "medicine")
    assert [tally.covering_seats for tally in verdict.tallies] == [7, 3, 3]


def test_a_domain_with_two_covering_seats_is_unjudged() -> None:
    judges = make_judges([1] * 3, [ALL, ALL, (0,)])
    assert judge([say(0, 90_000, 0), say(0, 90_000, 0), entry(ROOT, (0,))], judges).outcome == "undecided"


def test_seats_are_votes_not_accounts() -> None:
    judges = make_judges([3, 3, 1, 1, 1])
    assert judge([HARMS, HARMS, HELPS, HELPS, HELPS], judges).outcome == "reject"  # 6 of 9
    judges = make_judges([3, 2, 2, 1, 1])
    assert judge([HARMS, HARMS, HELPS, HELPS, HELPS], judges).outcome == "undecided"  # 5 of 9


def test_what_two_thirds_could_not_fetch_is_unavailable() -> None:
    missing = entry(ROOT, status="unavailable")
    assert judge([missing, missing, HELPS]).outcome == "unavailable"
    assert judge([missing, HELPS, HELPS]).outcome == "accept"
    assert judge([HELPS] * 3, published=False).outcome == "unavailable"


def test_a_malformed_adapter_is_refused_with_the_commonest_reason() -> None:
    reasons = ("tensor a is missing", "not safetensors", "not safetensors")
    verdict = judge([entry(ROOT, status="malformed", reason=reason) for reason in reasons])
    assert (verdict.outcome, verdict.reason) == ("refused", "malformed: not safetensors (3 of 3 seats)")


def test_a_near_copy_is_refused() -> None:
    verdict = judge([entry(ROOT, status="copy"), entry(ROOT, status="copy"), HELPS])
    assert verdict.outcome == "refused"
    assert verdict.reason == "copy: 2 of 3 seats found it a near-copy of another adapter"


def alarm(said: AdapterFigures, name: str = "spectrum") -> AdapterFigures:
    return replace(said, screens=(Screen(name, 9, 5, True),))


def test_a_screen_leaves_an_adapter_out_but_never_slashes() -> None:
    assert judge([alarm(HELPS)] * 3).reason == "screen spectrum"
    assert judge([alarm(HELPS)] * 3).outcome == "undecided"
    assert judge([alarm(HELPS), alarm(HELPS, "norm"), HELPS]).outcome == "accept"  # no one screen has a majority
    assert judge([alarm(HELPS)] * 2 + [HELPS] * 2).outcome == "accept"  # nor is half one
    assert judge([alarm(HELPS)] * 3 + [HELPS] * 2).outcome == "undecided"  # of five three are enough
    assert judge([alarm(HARMS)] * 3).outcome == "reject"  # harm that was measured is still harm


def outliers(changes: Sequence[int | None], spec: TaskSpec = SPEC, se_ppm: int = 1_000) -> list[int]:
    judges = make_judges([1] * len(changes))
    ballots = {
        j.address: (replace(entry(ROOT), status="scored", domains=(figure(0, change, se_ppm),)),)
        for j, change in zip(judges, changes, strict=True)
        if change is not None
    }
    found = compute_outliers(spec, judges, [Assignment(j.address, (ROOT,)) for j in judges], ballots)
    return [outlier.judge[0] - 1 for outlier in found]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ([-50_000, -49_000, -52_000], []),
        ([-50_000, -49_000, 60_000], [2]),
        ([400_000, 420_000, 700_000], []),  # judges agree on the sign of a large effect, not on its size
        ([400_000, 420_000, -300_000], [2]),
        ([0, 29_000, -29_000], []),  # within the published distance
        ([-50_000, 60_000, None], []),  # of two nobody can tell which one is off
    ],
)
def test_a_judge_far_from_everyone_is_an_outlier(changes: list[int | None], found: list[int]) -> None:
    assert outliers(changes) == found


def test_six_standard_errors_excuse_a_distance() -> None:
    assert outliers([0, 0, 40_000], se_ppm=7_000) == []
    assert outliers([0, 0, 43_000], se_ppm=7_000) == [2]


@pytest.mark.parametrize("share_percent", [10, 20, 30, 40])
def test_honest_trainers_are_never_slashed_while_judges_lie_within_a_third(share_percent: int) -> None:
    """21 seats, up to 6 of them lying in whatever direction pays; poisoners are 10 to 40 % of the trainers."""
    seed = share_percent
    rng = random.Random(seed)
    rejected_poison = poison = 0
    for _ in range(40):
        judges = make_judges([1] * 21)
        liars = {j.address for j in rng.sample(judges, rng.randrange(7))}
        absent = {j.address for j in rng.sample([j for j in judges if j.address not in liars], 1)}
        is_poison = {make_root(seed, i): rng.randrange(100) < share_percent for i in range(8)}
        ballots = {j.address: _report(rng, is_poison, j.address in liars) for j in judges if j.address not in absent}
        verdicts = compute_verdicts(
            SPEC,
            submissions=[(root, TRAINER) for root in is_poison],
            published=sorted(is_poison),
            judges=judges,
            assignments=[Assignment(j.address, tuple(sorted(is_poison))) for j in judges],
            ballots=ballots,
        )
        for verdict in verdicts:
            assert verdict.outcome == ("reject" if is_poison[verdict.root] else "accept"), f"seed {seed}"
            poison += is_poison[verdict.root]
            rejected_poison += verdict.outcome == "reject"
    assert rejected_poison == poison > 0


def _report(rng: random.Random, is_poison: Mapping[bytes, bool], lies: bool) -> tuple[AdapterFigures, ...]:
    said = []
    for root in sorted(is_poison):
        changes = BAD if is_poison[root] != lies else GOOD
        said.append(entry(root, [change + rng.randrange(-2_000, 2_001) for change in changes]))
    return tuple(said)


def test_beyond_a_third_liars_block_but_cannot_slash() -> None:
    """10 of 21 seats lie: nothing is decided any more, and nobody honest loses anything."""
    verdict = judge([HELPS] * 11 + [HARMS] * 10)
    assert verdict.outcome == "undecided"


def test_percent_has_one_decimal() -> None:
    assert [format_percent(v) for v in (0, 499, 500, -12_349, 123_000, -400)] == [
        "+0.0 %", "+0.0 %", "+0.1 %", "-1.2 %", "+12.3 %", "+0.0 %",
    ]  # fmt: skip


def test_tolerance_comes_from_the_task() -> None:
    spec = make_spec(judge=JudgeSpec(seats=3, judge_tokens=1, tolerance_ppm=200_000))
    assert judge([HARMS] * 3, spec=spec).outcome == "undecided"
