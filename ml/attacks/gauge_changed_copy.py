"""Gauge-changed copy: another factorisation of another trainer's update, or, where there is none, its size changed.

Source: B A = (B G)(G^-1 A) for every invertible G: LoRA factors are not unique, Hu et al., arXiv:2106.09685.
Knows: the bytes of another's update of this round.
Formula: where A travels, B' = B D P and A' = P^T D^-1 A with D = diag(+-2^k) and a permutation P: the same product to
the bit, other factors. Where A is shared it has full row rank, so B A = B' A only for B = B': no gauge is left, and
permuted or negated columns of B are another adapter. What is left is size: u = c g_k, whose cosine to g_k is 1.
Made for: checks of equal bytes and of distances; the cosine of BA sees through both.
"""

import numpy as np

from ml.adapter import Update
from ml.attacks import MILLI, AttackContext, multiply
from ml.attacks.exact_copy import craft as copy
from ml.canonical import Array

KIND, SEES_ROUND = "free-ride", True
LARGEST_POWER = 3


def craft(context: AttackContext, *, whose: int = 0, scale_milli: int = 700) -> Update:
    """For mode `shared_a`: the copy times thousandths. Raises ValueError where no honest update is seen."""
    return multiply(copy(context, whose=whose), scale_milli / MILLI)


def change_gauge(b: Array, a: Array, seed: int) -> tuple[Array, Array]:
    """Other factors of the same product, for modes in which A travels: float (out, r) and (r, in) of any float dtype.

    Columns change place, sign and size by powers of two, so every product of the two is the same bits.
    """
    random = np.random.Generator(np.random.Philox(seed))
    rank = b.shape[1]
    order = random.permutation(rank)
    powers = random.integers(-LARGEST_POWER, LARGEST_POWER, rank, endpoint=True)
    factors = np.ldexp(random.choice([-1.0, 1.0], rank), powers).astype(b.dtype)
    return (b * factors)[:, order], (a / factors[:, None].astype(a.dtype))[order]
