"""What the judges of a final set said, as pure functions: the outcome of the task, and who of them is paid what.

All judges measure one public text, so their figures differ by rounding alone and one lie is plain to everybody.
"""

from collections.abc import Mapping, Sequence

from flockchain.execution.ballots import check_ballot
from flockchain.execution.closeness import compute_closeness
from flockchain.execution.draw import Judge
from flockchain.execution.figures import compute_lower_median, format_percent, is_quorum, repeat_by_seats
from flockchain.execution.outliers import Distance, compute_outliers
from flockchain.execution.verdict import is_harm
from flockchain.types.final import FinalOutcome
from flockchain.types.rows import Assignment, Task
from flockchain.types.task import AdapterFigures, Ballot, TaskSpec

Entries = Mapping[bytes, AdapterFigures]
"""What each judge that voted said, by address."""


def check_entry(task: Task, entry: AdapterFigures) -> None:
    """Refuse what is not about the task's last global adapter, or has not the form of a ballot's entry."""
    check_ballot(Ballot(task.id, 0, (entry,)), (task.global_root,), range(len(task.spec.domains)))


def compute_final_outcome(spec: TaskSpec, judges: Sequence[Judge], entries: Entries) -> tuple[FinalOutcome, str]:
    """(outcome, why). Failing needs two thirds of all drawn seats: whoever stays silent speaks for the trainers."""
    seats = sum(judge.seats for judge in judges)

    def count(*statuses: str) -> int:
        return sum(j.seats for j in judges if j.address in entries and entries[j.address].status in statuses)

    unusable = count("unavailable", "malformed")
    if is_quorum(unusable, seats):
        return "withheld", f"{unusable} of {seats} seats could not get or read the final set"
    against = sum(j.seats for j in judges if j.address in entries and is_failure(spec, entries[j.address]))
    said = f"{_describe_changes(spec, judges, entries)}; {against} of {seats} seats find no gain, or harm"
    if is_quorum(against, seats):
        return "failed", said
    scored = count("scored")
    if not is_quorum(scored, seats):
        return "undecided", f"{scored} of {seats} seats measured, two thirds are needed"
    return "passed", said


def is_failure(spec: TaskSpec, entry: AdapterFigures) -> bool:
    """Whether the figures say that the task's work does not hold on the final set: harm on a domain, or no gain in sum.

    Gain is the sign of a sum, without a margin: a creator that hides a small text so that no bound could ever clear
    zero would gain nothing by it.
    """
    if entry.status != "scored" or not entry.domains:
        return False
    return sum(f.change_ppm for f in entry.domains) >= 0 or any(is_harm(spec.judge, f) for f in entry.domains)


def compute_final_shares(
    spec: TaskSpec, root: bytes, judges: Sequence[Judge], entries: Entries
) -> tuple[tuple[bytes, int], ...]:
    """(judge, share) of who is paid, in the order of addresses: seats times closeness, as under rule `arena`."""
    closeness = compute_closeness(spec, judges, _assign(root, judges), _make_ballots(entries))
    return tuple(
        (judge.address, judge.seats * closeness[judge.address])
        for judge in judges
        if judge.address in entries and entries[judge.address].status != "abstain"
    )


def compute_final_outliers(
    spec: TaskSpec, root: bytes, judges: Sequence[Judge], entries: Entries
) -> tuple[Distance, ...]:
    return compute_outliers(spec, judges, _assign(root, judges), _make_ballots(entries))


def _assign(root: bytes, judges: Sequence[Judge]) -> tuple[Assignment, ...]:
    return tuple(Assignment(judge.address, (root,)) for judge in judges)


def _make_ballots(entries: Entries) -> dict[bytes, tuple[AdapterFigures, ...]]:
    return {judge: (entry,) for judge, entry in entries.items()}


def _describe_changes(spec: TaskSpec, judges: Sequence[Judge], entries: Entries) -> str:
    """``code -12.3 %, law +0.4 %``: medians over seats against the adapter with which the task began."""
    words = []
    for domain, name in enumerate(spec.domains):
        pairs = [
            (figure.change_ppm, judge.seats)
            for judge in judges
            if judge.address in entries
            for figure in entries[judge.address].domains
            if figure.domain == domain
        ]
        if pairs:
            words.append(f"{name} {format_percent(compute_lower_median(repeat_by_seats(pairs)))}")
    return ", ".join(words) or "nothing was measured"
