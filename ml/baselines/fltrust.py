"""FLTrust: a mean weighted by the cosine with the server's own update, each update scaled to that one's length.

    t_i = max(0, cos(u_i, u_0)),   x <- x + server_rate * sum_i(t_i * |u_0| / |u_i| * u_i) / sum_i(t_i)

Cao et al., arXiv:2012.13995, equations 2 to 4. It needs what the network does not have: one trusted party with clean
data of every domain. Without any trust, or for a u_0 of zero, nothing moves. An update that is zero or not finite has
no direction and no trust.
"""

from dataclasses import dataclass

import numpy as np

from ml.baselines import Baseline, Given, State, flatten, move, stack
from ml.canonical import Array


@dataclass(frozen=True)
class Fltrust(Baseline):
    server_rate: float = 1.0

    def advance(self, state: State, given: Given) -> State:
        if given.trusted is None:
            raise ValueError("FLTrust needs `trusted`, the server's own update on clean data")
        reference = flatten(given.trusted)
        length = np.linalg.norm(reference)
        directions = find_directions(stack(given.updates))
        trust = np.maximum(0, directions @ reference)
        if trust.sum() == 0:
            return move(state, np.zeros_like(reference))
        return move(state, self.server_rate * length * (trust @ directions) / trust.sum())


def find_directions(rows: Array) -> Array:
    """Rows scaled to length 1; zero for a row that has no direction: zero, infinite, or not a number.

    Divided by the largest magnitude first, so that squares of 1e30 or 1e-200 stay within float64.
    """
    with np.errstate(invalid="ignore"):
        largest = np.abs(rows).max(axis=1, keepdims=True)
    usable = np.isfinite(rows).all(axis=1, keepdims=True) & (largest > 0)
    scaled = np.where(usable, rows, 0) / np.where(usable, largest, 1)
    lengths = np.linalg.norm(scaled, axis=1, keepdims=True)
    directions: Array = scaled / np.where(usable, lengths, 1)
    return directions
