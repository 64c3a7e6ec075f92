"""How far each judge's figures lie from its peers', and which lie outside the published distance. Pure.

A judge is never penalised for being in the minority, only for being far from everyone: otherwise herding pays.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from flockchain.execution.draw import Judge
from flockchain.execution.figures import compute_lower_median, repeat_by_seats
from flockchain.execution.verdict import make_panels
from flockchain.types.rows import Assignment
from flockchain.types.task import AdapterFigures, TaskSpec

SE_MULTIPLE = 6
FEWEST_JUDGES = 3
"""With two figures there is no telling which one is off."""


@dataclass(frozen=True, slots=True)
class Distance:
    """One judge's figure, the median of its peers, and how far apart they may be."""

    judge: bytes
    root: bytes
    domain: int
    change_ppm: int
    median_ppm: int
    limit_ppm: int

    @property
    def distance_ppm(self) -> int:
        return abs(self.change_ppm - self.median_ppm)

    @property
    def excess_ppm(self) -> int:
        return self.distance_ppm - self.limit_ppm


def compute_outliers(
    spec: TaskSpec,
    judges: Sequence[Judge],
    assignments: Sequence[Assignment],
    ballots: Mapping[bytes, Sequence[AdapterFigures]],
) -> tuple[Distance, ...]:
    """Figures beyond their limit: at most one per judge, the worst, sorted by judge."""
    worst: dict[bytes, Distance] = {}
    for found in iterate_distances(spec, judges, assignments, ballots):
        known = worst.get(found.judge)
        if found.excess_ppm > (known.excess_ppm if known else 0):
            worst[found.judge] = found
    return tuple(worst[judge] for judge in sorted(worst))


def iterate_distances(
    spec: TaskSpec,
    judges: Sequence[Judge],
    assignments: Sequence[Assignment],
    ballots: Mapping[bytes, Sequence[AdapterFigures]],
) -> Iterator[Distance]:
    """Every figure that has peers: at least three judges, itself included, gave one of that adapter and domain.

    The distance is to the seats' lower median. Its limit is the task's distance, six standard errors (the larger of
    the judge's own and the median one) or three quarters of the median itself, whichever is most: private holdouts
    agree on the sign of a large effect, not on its size.
    """
    for root, panel in make_panels(judges, assignments, ballots).items():
        for domain in range(len(spec.domains)):
            figures = panel.get_figures(domain)
            if len(figures) < FEWEST_JUDGES:
                continue
            median = compute_lower_median(repeat_by_seats((f.change_ppm, judge.seats) for judge, f in figures))
            median_se = compute_lower_median(repeat_by_seats((f.se_ppm, judge.seats) for judge, f in figures))
            for judge, figure in figures:
                limit = max(
                    spec.judge.outlier_distance_ppm,
                    SE_MULTIPLE * max(figure.se_ppm, median_se),
                    3 * abs(median) // 4,
                )
                yield Distance(judge.address, root, domain, figure.change_ppm, median, limit)
