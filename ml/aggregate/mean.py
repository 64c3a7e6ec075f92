"""Plain mean: FedAvg with equal weights (McMahan et al., arXiv:1602.05629). The baseline that defends nothing.

    delta = round_half_even(2^f * sum_i(k_i * q_i) / sum_i(k_i)),  k_i = 10^6

Breakdown point 0: one input moves the result by its own size / n. FedAvg proper weighs by the number of examples, which
a trainer reports of itself; a ledger that pays cannot believe that, so weights are an argument for experiments alone.
"""

from collections.abc import Mapping
from typing import Any

from ml.aggregate import PPM, combine_weighted
from ml.spec import AdapterSpec

combine_block = combine_weighted


def find_coefficients(
    updates: Mapping[str, Mapping[str, Any]],
    spec: AdapterSpec,
    *,
    norm_cap: int = 0,
    weights_ppm: Mapping[str, int] | None = None,
) -> list[int]:
    """No norm is clipped. `weights_ppm` by root, 0 to 10^6 each, not all 0; None: equal."""
    return [PPM if weights_ppm is None else weights_ppm[root] for root in sorted(updates)]
