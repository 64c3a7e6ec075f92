"""FLAME-like: keep the majority cluster by cosine, clip to the median length, add noise.

    S = median_i |u_i|,   x <- x + mean_{i kept}(u_i * min(1, S / |u_i|)) + N(0, (noise * S)^2)

After Nguyen et al., "FLAME: Taming Backdoors in Federated Learning", arXiv:2101.02281, algorithm 1. "Like", because:
- Clusters are single-linkage ones on cosine distance: the first, from the smallest distance on, with more than half of
  all updates. HDBSCAN as the paper sets it (clusters of at least n // 2 + 1, 1 sample) can have but one cluster, and
  condenses its tree to just that set, up to ties; no implementation of it is needed.
- Cosines are those of the updates, the paper's those of whole local models: of an adapter that begins at zero they are
  the same.
- `noise` is the paper's lambda and 0 by default: its value for a wanted epsilon depends on the model.
An update that is zero or not finite is left out before.
"""

from dataclasses import dataclass

import numpy as np

from ml.baselines import Baseline, Given, State, move, stack
from ml.baselines.fltrust import find_directions
from ml.canonical import Array


@dataclass(frozen=True)
class FlameLike(Baseline):
    server_rate: float = 1.0
    noise: float = 0.0
    seed: int = 0
    """Of the noise, with the round."""

    def advance(self, state: State, given: Given) -> State:
        rows = stack(given.updates)
        directions = find_directions(rows)
        usable = directions.any(axis=1)
        rows, directions = rows[usable], directions[usable]
        if not len(rows):
            return move(state, np.zeros(directions.shape[1]))
        lengths = (rows * directions).sum(axis=1)
        bound = float(np.median(lengths))
        clipped = directions * np.minimum(lengths, bound)[:, None]
        change = clipped[find_majority(1 - directions @ directions.T)].mean(axis=0)
        if self.noise:
            change += np.random.default_rng([self.seed, state.round]).normal(0, self.noise * bound, change.size)
        return move(state, self.server_rate * change)


def find_majority(distances: Array) -> list[int]:
    """Indexes, ascending, of the first single-linkage cluster of more than half of all; (n, n) distances."""
    count = len(distances)
    clusters = [{index} for index in range(count)]
    largest = clusters[0]
    reached = 0.0
    pairs = sorted((float(distances[one, other]), one, other) for one in range(count) for other in range(one))
    for distance, one, other in pairs:
        if len(largest) > count // 2 and distance > reached:
            break
        merged = clusters[one] | clusters[other]
        for member in merged:
            clusters[member] = merged
        largest = max(largest, merged, key=len)
        reached = distance
    return sorted(largest)
