"""`alternating`: even rounds train and average B, odd rounds A; the other factor is the settled one. Exact each round.

Chen et al., "Robust Federated Finetuning of LLMs via Alternating Optimization of LoRA" (RoLoRA), arXiv:2502.01755. As
many bytes a round as with one factor, and both move over time. Round 0 must train B: with B at zero A has no gradient.
"""

from collections.abc import Mapping

from ml.modes import mean_factors
from ml.products import Pair, Pairs


def get_trained(round: int) -> tuple[str, ...]:
    return ("a",) if round % 2 else ("b",)


def merge(before: Pairs, after: Mapping[str, Pairs], round: int) -> dict[str, Pair]:
    averaged = mean_factors(after)
    if round % 2:
        return {module: Pair(before[module].b, pair.a) for module, pair in averaged.items()}
    return {module: Pair(pair.b, before[module].a) for module, pair in averaged.items()}
