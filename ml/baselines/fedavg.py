"""FedAvg: add the mean update, weighted by numbers of examples.

    x <- x + server_rate * sum_i(n_i * u_i) / sum_i(n_i)

McMahan et al., arXiv:1602.05629, algorithm 1. One update moves it anywhere: 1e30, infinity and NaN pass through.
"""

from dataclasses import dataclass

from ml.baselines import Baseline, Given, State, average, move


@dataclass(frozen=True)
class Fedavg(Baseline):
    server_rate: float = 1.0

    def advance(self, state: State, given: Given) -> State:
        return move(state, self.server_rate * average(given.updates, given.weights))
