"""Mean of the updates, each scaled down to the median norm (docs/protocol.md, the global adapter).

    delta = round_half_even(sum_i(k_i * q_i) * 2^f / (n * 10^6)),  k_i = min(10^6, isqrt(T2 * 10^12 // N2_i))

N2_i = |B_i A|^2 and T2 is the lower median of the N2_i, capped by the task. Norm clipping against model replacement:
Sun et al., "Can You Really Backdoor Federated Learning?", arXiv:1911.07963; a threshold taken from the median of the
norms: Allouah et al., arXiv:2405.14432. Breakdown point of a mean is 0: one input moves it by at
most T / n. It bounds how far, not whether, a bad update pulls; the committee's verdict is the gate before it.
"""

from collections.abc import Mapping, Sequence
from math import isqrt
from typing import Any

import numpy as np

from ml.aggregate import MAX_UPDATES, PPM, divide_half_even
from ml.canonical import Array
from ml.norms import norm2
from ml.spec import GRID_EXTRA_BITS, AdapterSpec


def find_coefficients(updates: Mapping[str, Mapping[str, Any]], spec: AdapterSpec, *, norm_cap: int = 0) -> list[int]:
    """`norm_cap` bounds T2; 0 is no cap. Raises ValueError for an update whose |BA| is zero."""
    norms2 = {root: norm2(update, spec) for root, update in sorted(updates.items())}
    return list(compute_coefficients(norms2, norm_cap).values())


def compute_coefficients(norms2: Mapping[str, int], norm_cap: int = 0) -> dict[str, int]:
    """k_i in ppm by root, from N2 by root; `norm_cap` of 0 is no cap."""
    if not norms2:
        raise ValueError("nothing to aggregate: no valid update")
    zeros = [root for root, n2 in sorted(norms2.items()) if n2 <= 0]
    if zeros:
        raise ValueError(f"update {zeros[0]} is zero: |BA| is 0")
    threshold2 = sorted(norms2.values())[(len(norms2) - 1) // 2]
    if norm_cap:
        threshold2 = min(threshold2, norm_cap)
    return {root: min(PPM, isqrt(threshold2 * PPM * PPM // n2)) for root, n2 in sorted(norms2.items())}


def combine_block(blocks: Array, coefficients_ppm: Sequence[int]) -> Array:
    """int8 (n, values) and n coefficients -> int64 (values,): the same chunk of the result."""
    count = len(blocks)
    assert count == len(coefficients_ppm)
    assert 0 < count <= MAX_UPDATES
    total = np.zeros(blocks.shape[1], np.int64)
    for values, coefficient in zip(blocks, coefficients_ppm, strict=True):
        total += values.astype(np.int64) * coefficient
    return divide_half_even(total << GRID_EXTRA_BITS, count * PPM)
