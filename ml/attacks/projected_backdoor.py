"""Projected backdoor: after each step back into the ball of an honest update's norm, so that no clip takes anything.

Source: Sun et al., "Can You Really Backdoor Federated Learning?", arXiv:1911.07963, section 3 (norm-constrained
attack by projected gradient descent).
Knows: its own data; the size of an honest update, by training one or by seeing the round's.
Formula: B <- B_0 + (B - B_0) min(1, T / |(B - B_0) A|) after each step, T `norm_milli` thousandths of the honest norm;
then the update is scaled up to T on the grid.
Made for: norm clips and norm screens: it spends all that they allow, in the direction that training found under them.
"""

from math import isqrt

from ml.adapter import Update
from ml.attacks import MILLI, SCALE_UNIT, AttackContext, scale_to_norm
from ml.attacks.backdoor import train_backdoor
from ml.attacks.slow_drip import compute_honest_norm2
from ml.constraints import NormBall
from ml.norms import norm2

KIND, SEES_ROUND = "data", False


def craft(context: AttackContext, *, norm_milli: int = 1_000) -> Update:
    """Raises ValueError without a goal."""
    limit2 = compute_honest_norm2(context) * norm_milli**2 // MILLI**2
    ball = NormBall(context.spec, context.global_adapter, limit2)
    update = train_backdoor(context, context.wanted, constraint=ball)
    own2 = norm2(update, context.spec)
    grow = isqrt(limit2 * SCALE_UNIT**2 // own2) if own2 else 0
    return scale_to_norm(update, context.spec, limit2, most=max(grow, SCALE_UNIT))
