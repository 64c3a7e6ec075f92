"""Mean of each coordinate without its t smallest and t largest values, t = floor(n / 5).

    delta_j = round_half_even(2^f * sum_{i=t+1..n-t} q_(i),j / (n - 2t))

Yin et al., arXiv:1803.01498, definition 2, with beta = 1/5: the share of malicious trainers that it withstands (its
breakdown point). Below five inputs it is the plain mean. Measured: it keeps 41-56 % of a minority domain's share.
"""

from collections.abc import Sequence

import numpy as np

from ml.aggregate import divide_half_even, equal_coefficients
from ml.canonical import Array
from ml.spec import GRID_EXTRA_BITS

TRIM_ONE_IN = 5
find_coefficients = equal_coefficients


def combine_block(blocks: Array, coefficients_ppm: Sequence[int]) -> Array:
    """int8 (n, values) -> int64 (values,)."""
    count = len(blocks)
    assert count == len(coefficients_ppm) > 0
    trimmed = count // TRIM_ONE_IN
    kept = np.sort(blocks, axis=0)[trimmed : count - trimmed]
    return divide_half_even(kept.sum(axis=0, dtype=np.int64) << GRID_EXTRA_BITS, len(kept))
