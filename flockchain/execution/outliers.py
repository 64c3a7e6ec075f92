"""Which judges gave figures that lie outside the published distance of their peers. Pure.

A judge is never penalised for being in the minority, only for being far from everyone: otherwise herding pays.
"""

from collections.abc import Mapping, Sequence
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
class Outlier:
    """One judge's figure that is farthest beyond its limit."""

    judge: bytes
    root: bytes
    domain: int
    change_ppm: int
    median_ppm: int
    limit_ppm: int

    @property
    def excess_ppm(self) -> int:
        return abs(self.change_ppm - self.median_ppm) - self.limit_ppm


def compute_outliers(
    spec: TaskSpec,
    judges: Sequence[Judge],
    assignments: Sequence[Assignment],
    ballots: Mapping[bytes, Sequence[AdapterFigures]],
) -> tuple[Outlier, ...]:
    """At most one per judge, the worst, sorted by judge.

    A figure is an outlier when it differs from the seats' lower median (at least three judges, itself included) by
    more than the task's distance, more than six standard errors (the larger of its own and the median's), and more
    than three quarters of the median itself: private holdouts agree on the sign of a large effect, not on its size.
    """
    worst: dict[bytes, Outlier] = {}
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
                found = Outlier(judge.address, root, domain, figure.change_ppm, median, limit)
                known = worst.get(judge.address)
                if found.excess_ppm > (known.excess_ppm if known else 0):
                    worst[judge.address] = found
    return tuple(worst[judge] for judge in sorted(worst))
