"""A learner without a language model: three hospitals fit one logistic regression, and none shows its patients.

    python examples/logistic_regression.py

The three functions are all that a round of the network needs (`ml/learner.py`): `train` on private data, `evaluate`
on private data, `aggregate` in integers, so that every machine gets the same bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ml.aggregate import divide_half_even

STEP = 2.0**-16
"""Weights are integers times this."""
Weights = np.ndarray[Any, np.dtype[np.int64]]
Table = tuple[np.ndarray[Any, np.dtype[np.float64]], np.ndarray[Any, np.dtype[np.float64]]]
"""(features (n, k), labels of 0 or 1 (n,))."""


@dataclass(frozen=True)
class LogisticRegression:
    """Full-batch gradient descent; every function is pure, so the seed is not used."""

    steps: int = 50
    learning_rate: float = 0.5

    def train(self, state: Weights, data: Table, seed: int) -> Weights:
        features, labels = data
        weights = state * STEP
        for _ in range(self.steps):
            weights = weights - self.learning_rate * features.T @ (_predict(features, weights) - labels) / len(labels)
        return np.rint(weights / STEP).astype(np.int64) - state

    def evaluate(self, state: Weights, data: Table) -> float:
        """Bits per label."""
        features, labels = data
        chance = np.clip(_predict(features, state * STEP), 1e-12, 1 - 1e-12)
        return float(-np.mean(labels * np.log2(chance) + (1 - labels) * np.log2(1 - chance)))

    def aggregate(self, state: Weights, changes: Mapping[str, Weights]) -> Weights:
        return state + divide_half_even(sum(changes[root] for root in sorted(changes)), len(changes))


def _predict(features: Any, weights: Any) -> Any:
    return 1 / (1 + np.exp(-features @ weights))


def make_table(seed: int, shift: float, rows: int = 400) -> Table:
    """Patients of one hospital: same illness, another mixture of ages."""
    random = np.random.default_rng(seed)
    features = random.normal(shift, 1.0, (rows, 4))
    chance = _predict(features, np.array([1.5, -2.0, 0.5, 0.0]))
    return features, (random.random(rows) < chance).astype(np.float64)


def main() -> list[float]:
    """Losses on unseen patients, before and after each of five rounds."""
    learner = LogisticRegression()
    hospitals = {f"hospital-{at}": make_table(at, shift) for at, shift in enumerate((-1.0, 0.0, 1.0))}
    unseen = make_table(99, 0.5)
    state = np.zeros(4, np.int64)
    losses = [learner.evaluate(state, unseen)]
    for round in range(5):
        changes = {name: learner.train(state, table, round) for name, table in hospitals.items()}
        state = learner.aggregate(state, changes)
        losses.append(learner.evaluate(state, unseen))
    print("bits per label:", " ".join(f"{loss:.3f}" for loss in losses))
    return losses


if __name__ == "__main__":
    main()
