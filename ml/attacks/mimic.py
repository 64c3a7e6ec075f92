"""Mimic: all colluders send what one honest trainer sends, the one that stands out most.

Source: Karimireddy et al., "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing", arXiv:2006.09365,
section 4.2.
Knows: the round's honest updates.
Formula: u = g_k, k = argmax_i |z g_i|, z = argmax over |z| = 1 of sum_i (z (g_i - mean))^2: the direction in which
the honest differ most. From the Gram matrix on BA alone.
Made for: robust rules on non-IID data: nobody looks like an attacker, one domain is counted f + 1 times, and minorities
fall under the table. Equal bytes are what the copy check sees.
"""

import numpy as np

from ml.adapter import Update
from ml.attacks import AttackContext
from ml.canonical import Array
from ml.norms import inner

KIND, SEES_ROUND = "update", True


def craft(context: AttackContext) -> Update:
    """Raises ValueError where no honest update is seen."""
    seen = context.seen
    gram = np.array([[float(inner(one, other, context.spec)) for other in seen] for one in seen])
    chosen = seen[find_most_different(gram)]
    return {module: np.array(chosen[module], np.int8) for module in sorted(chosen)}


def find_most_different(gram: Array) -> int:
    """k from the inner products (n, n) of the honest updates; ties to the first."""
    centring = np.eye(len(gram)) - 1 / len(gram)
    # z = sum_i v_i (g_i - mean), v the leading eigenvector of the centred Gram matrix; z g_j needs products alone.
    leading = np.linalg.eigh(centring @ gram @ centring)[1][:, -1]
    projections = np.abs(leading @ centring @ gram)
    return int(np.argmax(projections >= projections.max() * (1 - 1e-9)))
