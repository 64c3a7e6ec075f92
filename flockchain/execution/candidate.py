"""The candidate for the next global adapter: on which root its attesters agree, and whether it may settle. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flockchain.execution.draw import SEATS_PER_DOMAIN, Judge, count_covering_seats
from flockchain.execution.figures import (
    compute_lower_median,
    format_percent,
    is_above,
    is_majority,
    is_quorum,
    repeat_by_seats,
)
from flockchain.execution.verdict import find_alarm
from flockchain.types.task import AttestationBody, CandidateFigure, Coefficient, TaskSpec


@dataclass(frozen=True, slots=True)
class Claim:
    """What attesters must agree on to the byte."""

    root: bytes
    size_bytes: int
    coefficients: tuple[Coefficient, ...]


@dataclass(frozen=True, slots=True)
class Agreement:
    """The claim that won. `seats` of the committee and `accounts` of the bonded participants stand behind it."""

    claim: Claim
    seats: int
    accounts: int


def get_claim(body: AttestationBody) -> Claim:
    return Claim(body.candidate, body.size_bytes, body.coefficients)


def compute_agreement(
    judges: Sequence[Judge], attestations: Mapping[bytes, AttestationBody], bonded_accounts: int
) -> Agreement | None:
    """The claim with two thirds of the committee's seats, or, where `bonded_accounts` is positive (after the
    committee's deadline), with two thirds of all bonded participants, each account counted once.
    """
    of_seats = sum(judge.seats for judge in judges)
    seats_of = {judge.address: judge.seats for judge in judges}
    seats: dict[Claim, int] = {}
    accounts: dict[Claim, int] = {}
    for attester, body in sorted(attestations.items()):
        claim = get_claim(body)
        seats[claim] = seats.get(claim, 0) + seats_of.get(attester, 0)
        accounts[claim] = accounts.get(claim, 0) + 1
    for claim in seats:
        if is_quorum(seats[claim], of_seats):
            return Agreement(claim, seats[claim], accounts[claim])
    for claim in seats:
        if is_quorum(accounts[claim], bonded_accounts):
            return Agreement(claim, seats[claim], accounts[claim])
    return None


def find_objection(
    spec: TaskSpec, judges: Sequence[Judge], attestations: Mapping[bytes, AttestationBody], claim: Claim
) -> str | None:
    """Why the agreed candidate must not settle, or None.

    More than half of the seats that cover a domain find harm, against the previous global adapter or against the base;
    or more than half of all seats raise one screen's alarm. Silent seats count as finding none, and two thirds would
    let a fifth of them, with one unsure honest judge, settle what harms. A losing attestation is about another
    candidate: not counted.
    """
    said = _get_said(judges, attestations, claim)
    for domain, name in enumerate(spec.domains):
        figures = _get_figures(said, domain)
        seats = sum(judge.seats for judge, figure in figures if _is_harmful(spec, figure))
        covering = count_covering_seats(judges, domain)
        if covering >= SEATS_PER_DOMAIN and is_majority(seats, covering):
            median = compute_lower_median(repeat_by_seats((f.change_ppm, judge.seats) for judge, f in figures))
            base = compute_lower_median(repeat_by_seats((f.base_change_ppm, judge.seats) for judge, f in figures))
            return (
                f"the candidate harms {name}: {seats} of {covering} seats, median {format_percent(median)} against the "
                f"previous adapter, {format_percent(base)} against the base, "
                f"tolerance {format_percent(spec.judge.tolerance_ppm)[1:]}"
            )
    of_seats = sum(judge.seats for judge in judges)
    alarm = find_alarm(((judge.seats, body.screens) for judge, body in said), of_seats)
    return None if alarm is None else f"screen {alarm} on the candidate"


def compute_losses(
    domains: int, judges: Sequence[Judge], attestations: Mapping[bytes, AttestationBody], claim: Claim
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(candidate, previous): lower median over seats of the loss per domain, in ubpb; 0 where nobody measured."""
    said = _get_said(judges, attestations, claim)
    candidate, previous = [], []
    for domain in range(domains):
        figures = _get_figures(said, domain)
        candidate.append(_median_loss([(figure.loss_ubpb, judge.seats) for judge, figure in figures]))
        previous.append(_median_loss([(figure.previous_loss_ubpb, judge.seats) for judge, figure in figures]))
    return tuple(candidate), tuple(previous)


def is_lower(losses_ubpb: Sequence[int], than_ubpb: Sequence[int]) -> bool:
    """Whether the sum over the domains known on both sides is lower; False when no domain is."""
    pairs = [(a, b) for a, b in zip(losses_ubpb, than_ubpb, strict=False) if a and b]
    return sum(a for a, _ in pairs) < sum(b for _, b in pairs)


def get_gains(
    judges: Sequence[Judge], attestations: Mapping[bytes, AttestationBody], claim: Claim
) -> dict[tuple[bytes, int], list[int]]:
    """Leave-one-out gains in ppm by (root, domain), one per covering seat; 0 for a seat that gave none."""
    gains: dict[tuple[bytes, int], list[int]] = {}
    for judge, body in _get_said(judges, attestations, claim):
        for gain in body.gains:
            if gain.domain in judge.domains:
                gains.setdefault((gain.root, gain.domain), []).extend([gain.gain_ppm] * judge.seats)
    for (_, domain), values in gains.items():
        values.extend([0] * (count_covering_seats(judges, domain) - len(values)))
    return gains


def _get_said(
    judges: Sequence[Judge], attestations: Mapping[bytes, AttestationBody], claim: Claim
) -> list[tuple[Judge, AttestationBody]]:
    said = [(judge, attestations[judge.address]) for judge in judges if judge.address in attestations]
    return [(judge, body) for judge, body in said if get_claim(body) == claim]


def _get_figures(said: Sequence[tuple[Judge, AttestationBody]], domain: int) -> list[tuple[Judge, CandidateFigure]]:
    return [
        (judge, figure)
        for judge, body in said
        if domain in judge.domains
        for figure in body.figures
        if figure.domain == domain
    ]


def _is_harmful(spec: TaskSpec, figure: CandidateFigure) -> bool:
    tolerance_ppm, z_milli = spec.judge.tolerance_ppm, spec.judge.z_milli
    return is_above(figure.change_ppm, figure.se_ppm, tolerance_ppm, z_milli) or is_above(
        figure.base_change_ppm, figure.base_se_ppm, tolerance_ppm, z_milli
    )


def _median_loss(pairs: Sequence[tuple[int, int]]) -> int:
    values = repeat_by_seats(pairs)
    return compute_lower_median(values) if values else 0
