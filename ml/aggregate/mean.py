"""Plain mean: FedAvg with equal weights (McMahan et al., arXiv:1602.05629). The baseline that defends nothing.

    delta = round_half_even(2^f * sum_i(k_i * q_i) / sum_i(k_i)),  k_i = 10^6

Breakdown point 0: one input moves the result by its own size / n. FedAvg proper weighs by the number of examples, which
a trainer reports of itself; a ledger that pays cannot believe that, so weights are an argument for experiments alone.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ml.adapter import Array
from ml.aggregate import BLOCK_VALUES, PPM, Aggregate, combine_weighted, stream
from ml.spec import AdapterSpec

RULE: Any = sys.modules[__name__]


def aggregate(
    updates: Mapping[str, Mapping[str, Any]],
    spec: AdapterSpec,
    *,
    norm_cap: int = 0,
    block: int = BLOCK_VALUES,
    weights_ppm: Mapping[str, int] | None = None,
) -> Aggregate:
    """Updates by root (hex); no norm is clipped. `weights_ppm` by root, 0 to 10^6 each, not all 0; None: equal."""
    coefficients_ppm = {root: PPM if weights_ppm is None else weights_ppm[root] for root in sorted(updates)}
    return Aggregate(stream(RULE, updates, coefficients_ppm, block), coefficients_ppm)


def combine_block(blocks: Array, coefficients_ppm: Sequence[int]) -> Array:
    """int8 (n, values) -> int64 (values,)."""
    return combine_weighted(blocks, coefficients_ppm)
