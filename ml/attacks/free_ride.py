"""Free ride: an update that cost no training: nothing at all, noise, or an old one sent again.

Source: Lin et al., "Free-riders in Federated Learning: Attacks and Defenses", arXiv:1911.12560 (zero, random);
Fraboni et al., arXiv:2006.11901 (what was received is sent back).
Knows: the rules; for noise of a likely size and for stale updates, those of the round before.
Formula: u = 0; or uniform noise with |u A| the median of the round before; or the update k of the round before.
Made for: equal pay for whoever submits. A zero update is refused at ingress; noise helps no domain.
"""

import numpy as np

from ml.adapter import Update
from ml.attacks import AttackContext, compute_median_norm2, draw_noise, scale_to_norm

KIND, SEES_ROUND = "free-ride", False


def craft(context: AttackContext, *, how: str = "random", whose: int = 0) -> Update:
    """`how`: zero, random or stale. Raises ValueError for an unknown one, or a stale one where nothing was before."""
    if how not in ("zero", "random", "stale"):
        raise ValueError(f"unknown free ride {how!r}; known: random, stale, zero")
    before = [context.previous_updates[root] for root in sorted(context.previous_updates)]
    if how == "zero":
        return {module: np.zeros((out, context.spec.rank), np.int8) for module, out, _ in context.spec.shapes}
    if how == "random":
        noise = draw_noise(context)
        return scale_to_norm(noise, context.spec, compute_median_norm2(before, context.spec)) if before else noise
    if not 0 <= whose < len(before):
        raise ValueError(f"no update {whose} of the round before to send again: {len(before)} are known")
    return {module: np.array(values, np.int8) for module, values in sorted(before[whose].items())}
