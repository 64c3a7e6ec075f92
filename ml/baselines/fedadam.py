"""FedAdam: Adam at the server, with the mean update in place of a gradient (and so with a plus).

    m <- beta1 m + (1 - beta1) d        d = mean update
    v <- beta2 v + (1 - beta2) d^2
    x <- x + server_rate * m / (sqrt(v) + tau)

Reddi et al., "Adaptive Federated Optimization", arXiv:2003.00295, algorithm 2: no bias correction, v begins at tau^2,
betas .9 and .99, tau 1e-3 (its section 5 tunes tau; LoRA's changes are small, so tune it here too).
"""

from dataclasses import dataclass

import numpy as np

from ml.baselines import Baseline, Given, State, average, flatten, move, unflatten
from ml.canonical import Array


@dataclass(frozen=True)
class Fedadam(Baseline):
    server_rate: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    def advance(self, state: State, given: Given) -> State:
        mean = average(given.updates, given.weights)
        m = flatten(state.memory["m"]) if "m" in state.memory else np.zeros_like(mean)
        v = flatten(state.memory["v"]) if "v" in state.memory else np.full_like(mean, self.tau**2)
        m = self.beta1 * m + (1 - self.beta1) * mean
        v = self.second_moment(v, mean**2)
        memory = {"m": unflatten(m, state.model), "v": unflatten(v, state.model)}
        return move(state, self.server_rate * m / (np.sqrt(v) + self.tau), memory)

    def second_moment(self, v: Array, square: Array) -> Array:
        """The next v, from the square of the mean update."""
        return self.beta2 * v + (1 - self.beta2) * square
