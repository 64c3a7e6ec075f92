"""`shared_a`: A is the task's for ever, B is trained and averaged. Exact: mean(B_i A) = mean(B_i) A.

FFA-LoRA, Sun et al., arXiv:2403.12313. Half the bytes of both factors.
"""

from collections.abc import Mapping

from ml.modes import mean_factors
from ml.products import Pair, Pairs


def get_trained(round: int) -> tuple[str, ...]:
    return ("b",)


def merge(before: Pairs, after: Mapping[str, Pairs], round: int) -> dict[str, Pair]:
    return {module: Pair(pair.b, before[module].a) for module, pair in mean_factors(after).items()}
