"""Scaled noise: no training at all, uniform random values as large as the rules let them be.

Random updates with a large variance: Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant Gradient
Descent", NeurIPS 2017, section 5 (the "Gaussian" attack).
"""

import numpy as np

from ml.adapter import Update
from ml.attacks import AttackContext, scale_to_largest
from ml.spec import UPDATE_LIMIT


def craft(context: AttackContext) -> Update:
    random = np.random.Generator(np.random.Philox(context.train_spec.seed))
    noise = {
        module: random.integers(-UPDATE_LIMIT, UPDATE_LIMIT, (out, context.spec.rank), np.int8, endpoint=True)
        for module, out, _ in context.spec.shapes
    }
    return scale_to_largest(noise, context.spec, context.norm_cap)
