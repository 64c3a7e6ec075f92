"""Inner product manipulation (IPM): the honest mean reversed, small enough to look near or large enough to win.

Source: Xie et al., "Fall of Empires: Breaking Byzantine-tolerant SGD by Inner Product Manipulation", arXiv:1903.03936.
Knows: the round's honest updates.
Formula: u = -epsilon / (n - f) sum of the honest. The inner product of the round's plain mean with the honest mean is
negative for epsilon > (n - f) / f; a small epsilon is for rules that choose by distance: zero is near to everyone.
Made for: Krum and the median (small epsilon), the plain mean (large).
"""

from ml.adapter import Update
from ml.attacks import MILLI, AttackContext, to_grid
from ml.moments import compute_mean

KIND, SEES_ROUND = "update", True


def craft(context: AttackContext, *, epsilon_milli: int = 500) -> Update:
    """Raises ValueError where no honest update is seen."""
    mean = compute_mean(context.seen)
    return to_grid({module: -epsilon_milli / MILLI * values for module, values in mean.items()})
