"""How a loaded base carries an adapter while it is scored, and gives it up without being loaded again.

bf16 and float32 weights take it in: `(W0.float() + alpha / rank * B A)` cast to the judging dtype, always from W0, for
merging and unmerging in place would round a bf16 base a little further each time. 4-bit weights cannot take in anything
without being quantised anew, which would cost more than the adapter brings; there it adds to the layer's output:
`y + alpha / rank * B (A x)` in float32.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch.nn import functional

from ml.canonical import Array
from ml.lora import fixed_a
from ml.spec import AdapterSpec
from ml.train_setup import is_four_bit

Factors = Mapping[str, Array]
"""Module -> float32 B (out_features, rank)."""


class Carrier(Protocol):
    def carrying(self, factors: Factors) -> AbstractContextManager[None]:
        """While the block runs, the model computes with the adapter; afterwards it is the base again."""


def make_carrier(model: Any, spec: AdapterSpec) -> Carrier:
    return Added(model, spec) if is_four_bit(model) else Merged(model, spec)


class Merged:
    """For weights that can be written: no cost per token, a copy of the adapted layers' weights."""

    def __init__(self, model: Any, spec: AdapterSpec) -> None:
        self.model, self.scale = model, spec.scale
        self._originals = {module: model.get_submodule(module).weight.clone() for module in spec.modules}
        self._fixed = _make_fixed(model, spec)

    @contextmanager
    def carrying(self, factors: Factors) -> Iterator[None]:
        try:
            for module, factor in sorted(factors.items()):
                original = self._originals[module]
                change = torch.as_tensor(factor, dtype=torch.float32, device=original.device) @ self._fixed[module]
                self.model.get_submodule(module).weight.copy_(original.float() + self.scale * change)
            yield
        finally:
            for module in factors:
                self.model.get_submodule(module).weight.copy_(self._originals[module])


class Added:
    """For 4-bit weights: the base is never touched, an adapter is changed by naming other factors."""

    def __init__(self, model: Any, spec: AdapterSpec) -> None:
        self.scale, self.device = spec.scale, model.device
        self._fixed = _make_fixed(model, spec)
        self._carried: dict[str, torch.Tensor] = {}
        for module in spec.modules:
            model.get_submodule(module).register_forward_hook(self._make_hook(module))

    @contextmanager
    def carrying(self, factors: Factors) -> Iterator[None]:
        before, as_tensor = self._carried, torch.as_tensor
        try:
            if factors:
                self._carried = {
                    module: as_tensor(factor, dtype=torch.float32, device=self.device)
                    for module, factor in factors.items()
                }
            yield
        finally:
            self._carried = before

    def _make_hook(self, module: str) -> Any:
        def add(layer: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
            factor = self._carried.get(module)
            if factor is None:
                return output
            inner = functional.linear(inputs[0].float(), self._fixed[module])
            return (output.float() + self.scale * functional.linear(inner, factor)).to(output.dtype)

        return add


def _make_fixed(model: Any, spec: AdapterSpec) -> dict[str, torch.Tensor]:
    """Module -> float32 A (rank, in_features)."""
    found = {}
    for module, _, in_features in spec.shapes:
        values, step_log2 = fixed_a(spec, module, in_features)
        array = np.asarray(values).astype(np.float32) * np.float32(2.0**step_log2)
        found[module] = torch.as_tensor(array, device=model.device)
    return found
