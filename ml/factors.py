"""Float32 B factors of adapters, in the strength in which they are scored."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ml.canonical import Array
from ml.spec import AdapterSpec

PPM = 1_000_000


def make_global_factors(adapter: Mapping[str, Any] | None, spec: AdapterSpec) -> dict[str, Array] | None:
    """float32 B of a global adapter, exact; None for the bare base."""
    return make_factors(adapter, None, 0, 1, spec) if adapter is not None else None


def make_factors(
    adapter: Mapping[str, Any] | None,
    update: Mapping[str, Any] | None,
    coefficient_ppm: int,
    parts: int,
    spec: AdapterSpec,
) -> dict[str, Array]:
    """float32 B of `global + update * coefficient / parts`; the sum is taken in float64 and rounded once."""
    grid, step = 2.0**spec.grid_step_log2, 2.0**spec.update_step_log2
    factors = {}
    for module, out_features, _ in spec.shapes:
        total = np.zeros((out_features, spec.rank))
        if adapter is not None:
            total += np.asarray(adapter[module]) * grid
        if update is not None:
            total += np.asarray(update[module]) * (step * coefficient_ppm / (PPM * parts))
        factors[module] = total.astype(np.float32)
    return factors
