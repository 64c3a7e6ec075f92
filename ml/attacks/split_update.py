"""Split update: each colluder carries the backdoor in a part of the modules, and is honest in all others.

Source: the split of an attack over colluders of Xie et al., "DBA: Distributed Backdoor Attacks against Federated
Learning", ICLR 2020, carried over from the trigger to the weights.
Knows: its accomplices, who train on the same data with the same seed.
Formula: with H = train(clean) - global, P = train(clean + poisoned) - global, and M_k every f-th module from k,
u_k = H + f M_k (P - H), so that the mean of the f colluders is P where no value saturates.
Made for: screens of single updates: none of the updates works by itself, and each is honest in most of its modules.
"""

import numpy as np

from ml.adapter import Update
from ml.attacks import AttackContext, resize, to_grid, train
from ml.attacks.backdoor import train_backdoor

KIND, SEES_ROUND = "data", False


def craft(context: AttackContext, *, scale_milli: int = 1_000) -> Update:
    """Raises ValueError without a goal, or for one colluder alone."""
    if context.colluders < 2:
        raise ValueError("an update is split over two colluders or more")
    honest = train(context, context.all_blocks, shared_seed=True)
    poisoned = train_backdoor(context, context.wanted, shared_seed=True)
    return resize(split(honest, poisoned, context.colluder, context.colluders), context, scale_milli)


def split(honest: Update, poisoned: Update, colluder: int, colluders: int) -> Update:
    """H + f M_k (P - H) on the grid."""
    own = set(sorted(honest)[colluder::colluders])
    return to_grid(
        {
            module: values.astype(np.int64)
            + (colluders * (poisoned[module].astype(np.int64) - values) if module in own else 0)
            for module, values in honest.items()
        }
    )
