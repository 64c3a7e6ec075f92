"""Sign majority: per coordinate the sign that most updates have, with the mean size of those that have it.

    s_j = sign(sum_i sign(q_ij)),   delta_j = round_half_even(2^f * sum_{sign(q_ij) = s_j}(q_ij) / count of them)

The vote is that of signSGD (Bernstein et al., arXiv:1810.05291), the size that of TIES merging's elected sign (Yadav et
al., arXiv:2306.01708). Breakdown point 1/2 for the sign; the size stays a mean among the agreeing. A tie is no change.
"""

from collections.abc import Sequence

import numpy as np

from ml.aggregate import divide_half_even, equal_coefficients
from ml.canonical import Array
from ml.spec import GRID_EXTRA_BITS

find_coefficients = equal_coefficients


def combine_block(blocks: Array, coefficients_ppm: Sequence[int]) -> Array:
    """int8 (n, values) -> int64 (values,)."""
    assert len(blocks) == len(coefficients_ppm) > 0
    signs = np.sign(blocks).astype(np.int64)
    elected = np.sign(signs.sum(axis=0))
    agrees = (signs == elected) & (elected != 0)
    total = np.where(agrees, blocks, 0).sum(axis=0, dtype=np.int64) << GRID_EXTRA_BITS
    voters = np.maximum(agrees.sum(axis=0), 1)
    result = np.zeros_like(total)
    for count in np.unique(voters):  # one divisor at a time
        result[voters == count] = divide_half_even(total[voters == count], int(count))
    return result
