"""Float32 B factors of adapters, in the strength in which they are scored."""

from collections.abc import Iterator, Mapping
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
    return dict(LazyFactors(adapter, update, coefficient_ppm, parts, spec))


class LazyFactors(Mapping[str, Array]):
    """The same, each module computed when it is asked for: the round's other adapters beside the one that is judged."""

    def __init__(
        self,
        adapter: Mapping[str, Any] | None,
        update: Mapping[str, Any] | None,
        coefficient_ppm: int,
        parts: int,
        spec: AdapterSpec,
    ) -> None:
        self._adapter, self._update = adapter, update
        self._grid, self._step = 2.0**spec.grid_step_log2, 2.0**spec.update_step_log2 * coefficient_ppm / (PPM * parts)
        self._shapes = {module: (out_features, spec.rank) for module, out_features, _ in spec.shapes}

    def __getitem__(self, module: str) -> Array:
        total = np.zeros(self._shapes[module])
        if self._adapter is not None:
            total += np.asarray(self._adapter[module]) * self._grid
        if self._update is not None:
            total += np.asarray(self._update[module]) * self._step
        return total.astype(np.float32)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)
