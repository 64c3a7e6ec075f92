"""One trainer's part of a round in any mode: K local steps of AdamW on the factors that the mode names, in floats.

The steps are the network's own (`ml.trainer.Trainer`), so that modes differ in what they train and in nothing else.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ml.batches import Block, choose_blocks
from ml.modes import FACTORS
from ml.products import Pair, Pairs
from ml.spec import AdapterSpec, TrainSpec
from ml.team import Team
from ml.train_setup import choose_setup, make_optimizer
from ml.trainer import Trainer


def train_pairs(
    base: Any, spec: AdapterSpec, train_spec: TrainSpec, blocks: Sequence[Block], pairs: Pairs, trained: Sequence[str]
) -> tuple[dict[str, Pair], tuple[float, ...]]:
    """(the trainer's factors, losses per step in nats per token); the base is given back unchanged.

    `trained` names factors, of "a" and "b". Raises TrainingFailed for a loss that is not finite.
    """
    with Trainer(base, spec, train_spec, setup=choose_setup(base), team=Team()) as trainer:
        weights = {(module, kind): _get_weight(base, module, kind) for module in spec.modules for kind in FACTORS}
        with torch.no_grad():
            for (module, kind), weight in weights.items():
                weight.copy_(torch.from_numpy(getattr(pairs[module], kind).astype(np.float32)))
                weight.requires_grad_(kind in trained)
        trainer.factors = {f"{module}.{kind}": weights[module, kind] for module in spec.modules for kind in trained}
        trainer.optimizer = make_optimizer(trainer.setup, trainer.factors.values(), train_spec.learning_rate)
        losses = tuple(trainer.step(batch) for batch in choose_blocks(blocks, train_spec))
        found = {
            module: Pair(*(weights[module, kind].detach().cpu().double().numpy() for kind in ("b", "a")))
            for module in spec.modules
        }
    return found, losses


def _get_weight(base: Any, module: str, kind: str) -> Any:
    layer = base.get_submodule(module)
    return (layer.lora_A if kind == "a" else layer.lora_B)["default"].weight
