"""FedYogi: as FedAdam, but v moves by at most (1 - beta2) d^2 a round, up or down.

    v <- v - (1 - beta2) d^2 * sign(v - d^2)

Reddi et al., arXiv:2003.00295, algorithm 2.
"""

from dataclasses import dataclass

import numpy as np

from ml.baselines.fedadam import Fedadam
from ml.canonical import Array


@dataclass(frozen=True)
class Fedyogi(Fedadam):
    def second_moment(self, v: Array, square: Array) -> Array:
        return v - (1 - self.beta2) * square * np.sign(v - square)
