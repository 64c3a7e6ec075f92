"""Median of each coordinate; of an even number, the mean of the two in the middle.

    delta_j = round_half_even(2^f * (q_(a),j + q_(b),j) / 2),  a = (n+1) // 2, b = n // 2 + 1 in sorted order

Yin et al., "Byzantine-Robust Distributed Learning", arXiv:1803.01498, definition 1. Breakdown point 1/2. It fights
minority domains: a coordinate that only one specialist moves stays where it was.
"""

from collections.abc import Sequence

import numpy as np

from ml.aggregate import divide_half_even, equal_coefficients
from ml.canonical import Array
from ml.spec import GRID_EXTRA_BITS

find_coefficients = equal_coefficients


def combine_block(blocks: Array, coefficients_ppm: Sequence[int]) -> Array:
    """int8 (n, values) -> int64 (values,)."""
    count = len(blocks)
    assert count == len(coefficients_ppm) > 0
    ordered = np.sort(blocks, axis=0)
    middle = ordered[(count - 1) // 2].astype(np.int64) + ordered[count // 2]
    return divide_half_even(middle << GRID_EXTRA_BITS, 2)
