"""`apart`: both factors are trained, each is averaged by itself. **Not** the mean of the products; the usual baseline.

    mean(B) mean(A) - mean(B A) = -mean((B_i - mean(B)) (A_i - mean(A)))

FedIT, Zhang et al., arXiv:2305.05644. Small where trainers start together and stay near, large where they differ.
"""

from collections.abc import Mapping

from ml.modes import mean_factors
from ml.products import Pair, Pairs


def get_trained(round: int) -> tuple[str, ...]:
    return ("a", "b")


def merge(before: Pairs, after: Mapping[str, Pairs], round: int) -> dict[str, Pair]:
    return mean_factors(after)
