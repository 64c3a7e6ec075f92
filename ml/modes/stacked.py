"""`stacked`: both factors are trained, all are concatenated: mean(B_i A_i) exactly, at a rank n times as large.

FLoRA, Wang et al., arXiv:2409.05976. `merge` goes back to the adapter's rank by the nearest product of that rank
(`ml/products.py`, truncate), whose error is the part of mean(BA) beyond the rank. Trainers may have different ranks.
"""

from collections.abc import Mapping

from ml.products import Pair, Pairs, mean, truncate


def get_trained(round: int) -> tuple[str, ...]:
    return ("a", "b")


def merge(before: Pairs, after: Mapping[str, Pairs], round: int) -> dict[str, Pair]:
    return {module: truncate(pair, before[module].b.shape[1]) for module, pair in mean(after).items()}
