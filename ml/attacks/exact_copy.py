"""Exact copy: send another trainer's update as one's own, for its pay.

Source: weight copying, the commonest complaint of open training markets; free riders: Lin et al., "Free-riders in
Federated Learning: Attacks and Defenses", arXiv:1911.12560.
Knows: the bytes of another's update of this round, which the network keeps private until submissions close.
Formula: u = g_k.
Made for: pay by loss alone, which cannot tell who did the work.
"""

import numpy as np

from ml.adapter import Update
from ml.attacks import AttackContext

KIND, SEES_ROUND = "free-ride", True


def craft(context: AttackContext, *, whose: int = 0) -> Update:
    """`whose`: place in the order of roots. Raises ValueError where no honest update is seen."""
    seen = context.seen
    if not 0 <= whose < len(seen):
        raise ValueError(f"no update {whose} to copy: {len(seen)} are seen, counted from 0")
    return {module: np.array(values, np.int8) for module, values in sorted(seen[whose].items())}
