"""Scaled noise: no training at all, uniform random values as large as the rules let them be.

Source: the "Gaussian" attack of Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant Gradient
Descent", NeurIPS 2017, arXiv:1703.02757, section 5.
Knows: the rules.
Formula: u_j uniform over -127..127, scaled down to the norm cap.
Made for: the plain mean.
"""

from ml.adapter import Update
from ml.attacks import AttackContext, draw_noise, scale_to_largest

KIND, SEES_ROUND = "update", False


def craft(context: AttackContext) -> Update:
    return scale_to_largest(draw_noise(context), context.spec, context.norm_cap)
