"""Sign flip: train honestly on every domain, then send the opposite, as large as the rules let it be.

Negated gradients: Li et al., "RSA: Byzantine-Robust Stochastic Aggregation Methods for Distributed Learning from
Heterogeneous Datasets", arXiv:1811.03761, section 5. Trained on all domains, so that it harms each of them.
"""

import numpy as np

from ml.adapter import Update
from ml.attacks import AttackContext, scale_to_largest


def craft(context: AttackContext) -> Update:
    from ml.train import train_update

    result = train_update(
        context.base,
        context.spec,
        context.train_spec,
        context.all_blocks,
        context.global_adapter,
        progress=context.progress,
    )
    negated = {module: np.negative(values) for module, values in result.update.items()}
    return scale_to_largest(negated, context.spec, context.norm_cap)
