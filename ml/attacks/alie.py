"""A little is enough (ALIE): every coordinate off the honest mean by as many standard deviations as still hide.

Source: Baruch et al., "A Little Is Enough: Circumventing Defenses For Distributed Learning", arXiv:1902.06156,
algorithm 3.
Knows: the round's honest updates, n and f.
Formula: u_j = mean_j - z std_j; z = Phi^-1((n - f - s) / (n - f)) with s = floor(n / 2 + 1) - f supporters needed, so
that s honest values lie farther out on average. With n = 10 and f = 2 that z is 0, and u the mean itself.
Made for: Krum, trimmed mean, Bulyan, median: f equal updates within the spread of the honest are taken for the centre.
"""

from statistics import NormalDist

from ml.adapter import Update
from ml.attacks import MILLI, AttackContext, to_grid
from ml.moments import compute_mean, compute_std

KIND, SEES_ROUND = "update", True


def craft(context: AttackContext, *, z_milli: int = 0) -> Update:
    """`z_milli` of 0 is the paper's z. Raises ValueError where no honest update is seen."""
    seen = context.seen
    z = z_milli / MILLI if z_milli else compute_z(context.count, context.colluders)
    mean, std = compute_mean(seen), compute_std(seen)
    return to_grid({module: mean[module] - z * std[module] for module in mean})


def compute_z(count: int, colluders: int) -> float:
    """The paper's z_max for n = `count` and f = `colluders`. Raises ValueError for a malicious majority."""
    supporters = count // 2 + 1 - colluders
    honest = count - colluders
    if supporters < 1:
        raise ValueError(f"{colluders} of {count} are a majority: they need not hide")
    return NormalDist().inv_cdf((honest - supporters) / honest)
