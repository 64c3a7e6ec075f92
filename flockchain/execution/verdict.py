"""Verdicts: what the revealed votes say of each adapter. Pure, integers only; `flockchain verify` calls it again.

Per domain, harm or help needs two thirds of the drawn seats that were to judge the adapter and whose committed holdout
covers the domain. Absent and abstaining seats count for neither side.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from flockchain.execution.draw import SEATS_PER_DOMAIN, Judge
from flockchain.execution.figures import (
    clip_text,
    compute_lower_median,
    format_percent,
    is_above,
    is_below_zero,
    is_majority,
    is_quorum,
    repeat_by_seats,
)
from flockchain.types.rows import Assignment, DomainTally, Outcome, Verdict
from flockchain.types.task import AdapterFigures, DomainFigure, JudgeSpec, Screen, TaskSpec


@dataclass(frozen=True, slots=True)
class Panel:
    """The judges of one adapter, and what each of them that revealed says of it."""

    judges: tuple[Judge, ...]
    entries: Mapping[bytes, AdapterFigures]

    @property
    def seats(self) -> int:
        return sum(judge.seats for judge in self.judges)

    def count_status_seats(self, status: str) -> int:
        return sum(judge.seats for judge in self.get_present() if self.entries[judge.address].status == status)

    def get_present(self) -> list[Judge]:
        """Judges that revealed."""
        return [judge for judge in self.judges if judge.address in self.entries]

    def get_figures(self, domain: int) -> list[tuple[Judge, DomainFigure]]:
        """Figures on one domain, by judges that cover it, in the order of their addresses."""
        return [
            (judge, figure)
            for judge in self.judges
            if domain in judge.domains and judge.address in self.entries
            for figure in self.entries[judge.address].domains
            if figure.domain == domain
        ]


def compute_published(
    roots: Iterable[bytes], judges: Sequence[Judge], missing: Mapping[bytes, Sequence[bytes]]
) -> tuple[bytes, ...]:
    """The submitted `roots`, sorted, without those that two thirds of all seats could not get; `missing` by member."""
    seats = sum(judge.seats for judge in judges)

    def count_missing(root: bytes) -> int:
        return sum(judge.seats for judge in judges if root in missing.get(judge.address, ()))

    return tuple(root for root in sorted(roots) if not is_quorum(count_missing(root), seats))


def limit_assignments(assignments: Iterable[Assignment], published: Sequence[bytes]) -> tuple[Assignment, ...]:
    """Assignments of what was published."""
    return tuple(Assignment(a.voter, tuple(root for root in a.roots if root in published)) for a in assignments)


def make_panels(
    judges: Sequence[Judge], assignments: Sequence[Assignment], ballots: Mapping[bytes, Sequence[AdapterFigures]]
) -> dict[bytes, Panel]:
    """Panels by adapter root, in the order of the roots. `ballots` holds revealed entries by voter."""
    assigned = {assignment.voter: assignment.roots for assignment in assignments}
    entries = {voter: {entry.root: entry for entry in ballot} for voter, ballot in ballots.items()}
    roots = sorted({root for assignment in assignments for root in assignment.roots})
    panels = {}
    for root in roots:
        panel = tuple(judge for judge in judges if root in assigned.get(judge.address, ()))
        said = {j.address: entries[j.address][root] for j in panel if root in entries.get(j.address, {})}
        panels[root] = Panel(panel, said)
    return panels


def compute_verdicts(
    spec: TaskSpec,
    *,
    submissions: Sequence[tuple[bytes, bytes]],
    published: Sequence[bytes],
    judges: Sequence[Judge],
    assignments: Sequence[Assignment],
    ballots: Mapping[bytes, Sequence[AdapterFigures]],
) -> tuple[Verdict, ...]:
    """One verdict per submission (root, trainer), sorted by root; amounts and coefficients are filled in later."""
    panels = make_panels(judges, assignments, ballots)
    seats = sum(judge.seats for judge in judges)
    revealed = sum(judge.seats for judge in judges if judge.address in ballots)
    verdicts = []
    for root, trainer in sorted(submissions):
        if root not in published:
            finding = _Finding("unavailable", "two thirds of the seats could not get its bytes")
        elif not is_quorum(revealed, seats):
            finding = _Finding("undecided", f"{revealed} of {seats} seats revealed a vote, two thirds are needed")
        else:
            finding = _judge(spec, panels.get(root, Panel((), {})))
        verdicts.append(finding.make_verdict(spec, root, trainer))
    return tuple(verdicts)


@dataclass(frozen=True, slots=True)
class _Finding:
    outcome: Outcome
    reason: str
    tallies: tuple[DomainTally, ...] = ()
    helped: tuple[int, ...] = ()
    harmed: tuple[int, ...] = ()

    def make_verdict(self, spec: TaskSpec, root: bytes, trainer: bytes) -> Verdict:
        return Verdict(
            root=root,
            trainer=trainer,
            outcome=self.outcome,
            reason=clip_text(self.reason),
            helped=tuple(spec.domains[domain] for domain in self.helped),
            harmed=tuple(spec.domains[domain] for domain in self.harmed),
            slashed_uflk=0,
            reward_uflk=0,
            coefficient_ppm=0,
            tallies=self.tallies,
        )


def _judge(spec: TaskSpec, panel: Panel) -> _Finding:
    """Ingress first (nothing was measured of what two thirds refuse), then harm, then screens, then help."""
    refusal = _find_refusal(panel)
    if refusal is not None:
        return refusal
    tallies = tuple(compute_tally(spec.judge, panel, domain) for domain in range(len(spec.domains)))
    harmed = tuple(tally.domain for tally in tallies if _is_decided(tally.harm_seats, tally))
    helped = tuple(tally.domain for tally in tallies if _is_decided(tally.help_seats, tally))
    screens = ((judge.seats, panel.entries[judge.address].screens) for judge in panel.get_present())
    alarm = find_alarm(screens, panel.seats)
    outcome, reason = _decide(spec, tallies, helped, harmed, alarm)
    return _Finding(outcome, reason, tallies, helped, harmed)


def _find_refusal(panel: Panel) -> _Finding | None:
    for status in ("unavailable", "malformed", "copy"):
        seats = panel.count_status_seats(status)
        if not is_quorum(seats, panel.seats):
            continue
        said = f"{seats} of {panel.seats} seats"
        if status == "unavailable":
            return _Finding("unavailable", f"{said} could not get its bytes")
        if status == "copy":
            return _Finding("refused", f"copy: {said} found it a near-copy of another adapter")
        return _Finding("refused", f"malformed: {_find_commonest_reason(panel)} ({said})")
    return None


def _find_commonest_reason(panel: Panel) -> str:
    """The reason that most seats gave for `malformed`; the first in order among equals."""
    seats_by_reason: dict[str, int] = {}
    for judge in panel.get_present():
        entry = panel.entries[judge.address]
        if entry.status == "malformed":
            seats_by_reason[entry.reason] = seats_by_reason.get(entry.reason, 0) + judge.seats
    return min(seats_by_reason, key=lambda reason: (-seats_by_reason[reason], reason))


def compute_tally(judge_spec: JudgeSpec, panel: Panel, domain: int) -> DomainTally:
    """Seats for harm and for help on one domain. A figure that harms against the best adapter so far is no help."""
    figures = panel.get_figures(domain)
    harm = sum(judge.seats for judge, figure in figures if is_harm(judge_spec, figure))
    help_ = sum(
        judge.seats
        for judge, figure in figures
        if is_below_zero(figure.change_ppm, figure.se_ppm, judge_spec.z_milli) and not is_harm(judge_spec, figure)
    )
    changes = repeat_by_seats((figure.change_ppm, judge.seats) for judge, figure in figures)
    covering = sum(judge.seats for judge in panel.judges if domain in judge.domains)
    return DomainTally(domain, covering, harm, help_, compute_lower_median(changes) if changes else 0)


def is_harm(judge_spec: JudgeSpec, figure: DomainFigure) -> bool:
    """Lower bound above the tolerance, against the current global adapter or against the best one so far."""
    tolerance_ppm, z_milli = judge_spec.tolerance_ppm, judge_spec.z_milli
    return is_above(figure.change_ppm, figure.se_ppm, tolerance_ppm, z_milli) or is_above(
        figure.best_change_ppm, figure.best_se_ppm, tolerance_ppm, z_milli
    )


def find_alarm(said: Iterable[tuple[int, Sequence[Screen]]], of_seats: int) -> str | None:
    """The first screen, by name, whose alarm more than half of `of_seats` raised; `said` lists (seats, screens)."""
    seats_by_name: dict[str, int] = {}
    for seats, screens in said:
        for screen in screens:
            if screen.alarm:
                seats_by_name[screen.name] = seats_by_name.get(screen.name, 0) + seats
    return next((name for name in sorted(seats_by_name) if is_majority(seats_by_name[name], of_seats)), None)


def _decide(
    spec: TaskSpec, tallies: Sequence[DomainTally], helped: Sequence[int], harmed: Sequence[int], alarm: str | None
) -> tuple[Outcome, str]:
    harm_text = "harmed " + ", ".join(_describe(spec, tallies[d], tallies[d].harm_seats, harm=True) for d in harmed)
    help_text = "helped " + ", ".join(_describe(spec, tallies[d], tallies[d].help_seats, harm=False) for d in helped)
    if harmed and not helped:
        return "reject", f"{harm_text}, tolerance {format_percent(spec.judge.tolerance_ppm)[1:]}"
    if harmed:
        return "undecided", f"{help_text}; but {harm_text}"
    if alarm is not None:
        return "undecided", f"screen {alarm}"
    if helped:
        return "accept", help_text
    return "undecided", "no domain in which two thirds of the covering seats found help or harm"


def _describe(spec: TaskSpec, tally: DomainTally, seats: int, *, harm: bool) -> str:
    """``code: 3 of 3 seats, median +12.3 %``; says so when the harm shows against the best adapter only."""
    text = f"{spec.domains[tally.domain]}: {seats} of {tally.covering_seats} seats"
    against = " (harm is against the best adapter so far)"
    is_hidden = harm and tally.median_change_ppm <= spec.judge.tolerance_ppm
    return f"{text}, median {format_percent(tally.median_change_ppm)}{against if is_hidden else ''}"


def _is_decided(seats: int, tally: DomainTally) -> bool:
    return tally.covering_seats >= SEATS_PER_DOMAIN and is_quorum(seats, tally.covering_seats)
