"""FedAvg: add the mean update, weighted by numbers of examples.

    x <- x + server_rate * sum_i(n_i * u_i) / sum_i(n_i)

McMahan et al., arXiv:1602.05629, algorithm 1. One update moves it anywhere: 1e30, infinity and NaN pass through.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from ml.baselines import State, Tensors, average, move


@dataclass(frozen=True)
class Fedavg:
    server_rate: float = 1.0

    def step(
        self,
        state: State,
        updates: Mapping[str, Tensors],
        *,
        weights: Mapping[str, float] | None = None,
        trusted: Tensors | None = None,
    ) -> State:
        return move(state, self.server_rate * average(updates, weights))
