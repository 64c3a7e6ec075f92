"""Near copy: another trainer's update with noise on it, so that the bytes differ.

Source: disguised free riders of Fraboni et al., "Free-rider Attacks on Model Aggregation in Federated Learning",
arXiv:2006.11901, carried over to another's update.
Knows: the bytes of another's update of this round.
Formula: u = g_k + r, r uniform with |r A| = `noise_milli` thousandths of |g_k A|; the cosine to g_k is then about
1 / sqrt(1 + noise^2): .9988 at 50, .995 at 100, .99 at 142.
Made for: checks of equal bytes. The copy check by cosine sees it until the noise costs more gain than it hides.
"""

from math import isqrt

import numpy as np

from ml.adapter import Update
from ml.attacks import MILLI, AttackContext, draw_noise, to_grid
from ml.attacks.exact_copy import craft as copy
from ml.norms import norm2

KIND, SEES_ROUND = "free-ride", True


def craft(context: AttackContext, *, whose: int = 0, noise_milli: int = 50) -> Update:
    """Raises ValueError where no honest update is seen."""
    original = copy(context, whose=whose)
    noise = draw_noise(context)
    # Ratio of the norms in ppm, from integers.
    ratio_ppm = isqrt(norm2(original, context.spec) * 10**12 // norm2(noise, context.spec))
    factor = ratio_ppm * noise_milli / MILLI / 10**6
    return to_grid({module: values + factor * noise[module].astype(np.float64) for module, values in original.items()})
