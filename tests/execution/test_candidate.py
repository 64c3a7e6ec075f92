"""The candidate's own judgement, as a pure function of attestations."""

from msgspec.structs import replace

from flockchain.execution.candidate import (
    compute_agreement,
    compute_losses,
    find_objection,
    get_claim,
    get_gains,
    is_lower,
)
from flockchain.execution.draw import Judge
from flockchain.types.task import AttestationBody, CandidateFigure, Coefficient, Gain
from tests.support.rounds import make_root, make_spec

SPEC = make_spec()
ROOT = make_root("accepted")
ALL = (0, 1, 2)


def judges(*seats: int, domains: tuple[int, ...] = ALL) -> list[Judge]:
    return [Judge(bytes([i + 1]) * 20, count, domains) for i, count in enumerate(seats)]


def attest(change_ppm: int = 0, *, loss: int = 1_000_000, candidate: str = "candidate") -> AttestationBody:
    figures = tuple(CandidateFigure(d, loss, 1_100_000, change_ppm, 100, change_ppm, 100) for d in ALL)
    coefficients = (Coefficient(ROOT, 1_000_000),)
    return AttestationBody(1, 1, make_root(candidate), 10, coefficients, figures, (), ())


def said(bodies: list[AttestationBody | None]) -> dict[bytes, AttestationBody]:
    return {bytes([i + 1]) * 20: body for i, body in enumerate(bodies) if body is not None}


CLAIM = get_claim(attest())
HARM = 90_000


def test_two_thirds_of_the_seats_agree_on_a_claim() -> None:
    agreement = compute_agreement(judges(1, 1, 1), said([attest(), attest(), None]), 0)
    assert agreement is not None
    assert (agreement.claim, agreement.seats, agreement.accounts) == (CLAIM, 2, 2)
    other = attest(candidate="other")
    assert compute_agreement(judges(1, 1, 1), said([attest(), other, None]), 0) is None
    assert compute_agreement(judges(1, 1, 1), said([attest(), replace(attest(), size_bytes=11), None]), 0) is None


def test_seats_count_before_the_deadline_and_bonded_accounts_after_it() -> None:
    bench = judges(4, 4, 4)
    outsiders = {bytes([i]) * 20: attest() for i in (50, 51, 52)}
    assert compute_agreement(bench, {**said([attest(), None, None]), **outsiders}, 0) is None
    assert compute_agreement(bench, {**said([attest(), None, None]), **outsiders}, 7) is None
    assert compute_agreement(bench, {**said([attest(), None, None]), **outsiders}, 6) is not None


def test_harm_found_by_more_than_half_is_an_objection() -> None:
    assert find_objection(SPEC, judges(1, 1, 1), said([attest(HARM), attest(HARM), attest()]), CLAIM) is not None
    assert find_objection(SPEC, judges(1, 1, 1), said([attest(HARM), attest(), attest()]), CLAIM) is None
    assert find_objection(SPEC, judges(2, 1, 1), said([attest(HARM), attest(), attest()]), CLAIM) is None, "half"


def test_a_silent_fifth_and_one_unsure_judge_do_not_settle_what_harms() -> None:
    """8 of 15 seats: what the lab met (decision 38)."""
    bench = judges(4, 4, 4, 3)
    objection = find_objection(SPEC, bench, said([attest(HARM), attest(HARM), attest(), attest()]), CLAIM)
    assert objection is not None
    assert "8 of 15 seats" in objection


def test_a_losing_attestation_does_not_object_to_the_winner() -> None:
    """One seat of three attested another candidate, and found harm in that one."""
    bodies = said([attest(HARM), attest(HARM, candidate="other"), attest()])
    assert find_objection(SPEC, judges(1, 1, 1), bodies, CLAIM) is None


def test_two_seats_cannot_object_for_a_domain() -> None:
    bench = [*judges(1, 1), *(Judge(bytes([i]) * 20, 1, ()) for i in (8, 9))]
    assert find_objection(SPEC, bench, said([attest(HARM), attest(HARM)]), CLAIM) is None


def test_losses_are_lower_medians_over_seats_of_the_winner() -> None:
    bodies = said([attest(loss=1_000_000), attest(loss=1_200_000), attest(loss=1, candidate="other")])
    candidate, previous = compute_losses(3, judges(1, 2, 1), bodies, CLAIM)
    assert candidate == (1_200_000,) * 3
    assert previous == (1_100_000,) * 3
    assert compute_losses(3, judges(1), {}, CLAIM) == ((0, 0, 0), (0, 0, 0))


def test_losses_compare_over_domains_known_on_both_sides() -> None:
    assert is_lower((5, 0, 7), (6, 1, 7))
    assert not is_lower((5, 0, 8), (5, 9, 8))
    assert not is_lower((0, 0), (5, 5))


def test_gains_are_one_per_covering_seat_and_zero_for_the_silent() -> None:
    body = replace(attest(), gains=(Gain(ROOT, 0, 500),))
    gains = get_gains(judges(1, 2, 1), said([attest(), body, None]), CLAIM)
    assert sorted(gains[(ROOT, 0)]) == [0, 0, 500, 500]
    foreign = get_gains(judges(1, 1, 1, domains=(1,)), said([body]), CLAIM)
    assert foreign == {}
