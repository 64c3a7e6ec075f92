"""Sign flip: train honestly on every domain, then send the opposite, as large as the rules let it be.

Source: negated gradients of Li et al., "RSA: Byzantine-Robust Stochastic Aggregation Methods for Distributed Learning
from Heterogeneous Datasets", arXiv:1811.03761, section 5.
Knows: data of all domains, so that it harms each of them.
Formula: u = -c (train(clean) - global), c the largest that the rules allow.
Made for: the plain mean.
"""

import numpy as np

from ml.adapter import Update
from ml.attacks import AttackContext, scale_to_largest, train

KIND, SEES_ROUND = "data", False


def craft(context: AttackContext) -> Update:
    honest = train(context, context.all_blocks)
    negated = {module: np.negative(values) for module, values in honest.items()}
    return scale_to_largest(negated, context.spec, context.norm_cap)
