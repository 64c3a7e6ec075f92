"""Committee pay by distance to consensus (rule `arena`): who measures as its peers do earns most. Pure.

FLock pays a validator by `exp(-lambda * distance) * stake^alpha` (public white paper). Here stake has bought the seats
already, in the draw, so a share is `seats * exp(-LAMBDA * distance)`, with the distance in units of the limit beyond
which a figure is penalised as an outlier.
"""

from collections.abc import Mapping, Sequence

from flockchain.execution.draw import Judge
from flockchain.execution.figures import is_quorum
from flockchain.execution.outliers import iterate_distances
from flockchain.execution.verdict import make_panels
from flockchain.params import PPM
from flockchain.types.rows import Assignment
from flockchain.types.task import AdapterFigures, TaskSpec

LAMBDA = 2
"""A figure at its limit earns exp(-2), 13.5 %; one at half a standard error, a twelfth of the limit, 85 %."""
FARTHEST_PPM = 10 * PPM
"""exp(-20) is 0 in ppm: beyond it nothing is computed."""
_SCALE = 10**12


def compute_closeness(
    spec: TaskSpec,
    judges: Sequence[Judge],
    assignments: Sequence[Assignment],
    ballots: Mapping[bytes, Sequence[AdapterFigures]],
) -> dict[bytes, int]:
    """For each judge that revealed, in ppm: its farthest figure's decay, times the part of what its peers could say
    of its adapters that it said too.

    The farthest figure counts, not the mean: else a lie about one adapter of many would cost little. What peers could
    say is a figure where at least three judges gave one, and for an adapter that two thirds of its panel's seats refuse
    the same refusal. An abstention is no lie, but no work either: it lowers the second factor alone.
    """
    farthest: dict[bytes, int] = dict.fromkeys(ballots, 0)
    said: dict[bytes, int] = dict.fromkeys(ballots, 0)
    wanted: dict[bytes, int] = dict.fromkeys(ballots, 0)
    compared = set()
    for found in iterate_distances(spec, judges, assignments, ballots):
        ratio = min(found.distance_ppm * PPM // max(1, found.limit_ppm), FARTHEST_PPM)
        farthest[found.judge] = max(farthest[found.judge], ratio)
        said[found.judge] += 1
        compared.add((found.root, found.domain))
    for root, panel in make_panels(judges, assignments, ballots).items():
        statuses = {judge.address: panel.entries[judge.address].status for judge in panel.get_present()}
        refusals = ("unavailable", "malformed", "copy")
        agreed = next((status for status in refusals if is_quorum(panel.count_status_seats(status), panel.seats)), "")
        for judge in panel.get_present():
            wanted[judge.address] += sum((root, domain) in compared for domain in judge.domains)
            if agreed:
                wanted[judge.address] += 1
                said[judge.address] += statuses[judge.address] == agreed
    return {
        judge: compute_decay(farthest[judge]) * said[judge] // wanted[judge] if wanted[judge] else PPM
        for judge in sorted(ballots)
    }


def compute_decay(distance_ppm: int) -> int:
    """`exp(-LAMBDA * distance)` in ppm, rounded down, for a distance in ppm of the limit; integers only.

    1 / exp(x) by the series of exp(x), all of whose terms are positive: nothing cancels, so every machine agrees and
    the error stays below one ppm.
    """
    assert distance_ppm >= 0
    x_ppm = LAMBDA * distance_ppm
    if distance_ppm >= FARTHEST_PPM:
        return 0
    total = term = _SCALE
    order = 0
    while term:
        order += 1
        term = term * x_ppm // (order * PPM)
        total += term
    return PPM * _SCALE // total
