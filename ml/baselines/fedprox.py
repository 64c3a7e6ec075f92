"""FedProx: FedAvg of updates trained with a pull towards the global adapter.

    h(w) = F(w) + mu/2 * |w - w_global|^2

Li et al., arXiv:1812.06127, equation 2. The pull lives in the trainer: give `penalty` to `ml.train.train_update`. The
server averages, as in FedAvg. The norm is that of the trained B, the parameters that the paper's w stands for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ml.baselines import State, Tensors
from ml.baselines.fedavg import Fedavg


@dataclass(frozen=True)
class Fedprox:
    mu: float = 0.01
    server_rate: float = 1.0

    def penalty(self, factors: Mapping[str, Any], start: Mapping[str, Any]) -> Any:
        """mu/2 * |w - w_global|^2, a torch scalar with gradient."""
        return self.mu / 2 * sum((factors[module] - start[module]).square().sum() for module in factors)

    def step(
        self,
        state: State,
        updates: Mapping[str, Tensors],
        *,
        weights: Mapping[str, float] | None = None,
        trusted: Tensors | None = None,
    ) -> State:
        return Fedavg(self.server_rate).step(state, updates, weights=weights)
