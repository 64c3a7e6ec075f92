"""From a trained B to the int8 update: its move from the start, on the task's grid, one module at a time.

What stands in memory is the update itself, a byte for each value, and one module in float64: not the factors of before
and after beside each other, each four times the update.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from ml.adapter import Update
from ml.canonical import Array
from ml.lora import make_start
from ml.spec import UPDATE_LIMIT, AdapterSpec
from ml.training_failed import TrainingFailed


def make_moves(
    factors: Mapping[str, Any], start: Mapping[str, Any] | None, spec: AdapterSpec
) -> Iterator[tuple[str, Array]]:
    """(module, float64 (out_features, rank)): each B less the global adapter it started from, None for zero.

    `factors` are torch tensors, on any device.
    """
    for module, out_features, _ in spec.shapes:
        move = factors[module].detach().cpu().numpy().astype(np.float64)
        move -= make_start(spec, module, out_features, start)
        yield module, move


def quantise(moves: Iterable[tuple[str, Array]], spec: AdapterSpec) -> tuple[Update, int]:
    """(int8 update, values that saturated at +-127) of moves in real values, which are consumed; halves go to even.

    Raises TrainingFailed for a move that is not finite.
    """
    step, update, saturated = 2.0**spec.update_step_log2, dict[str, Array](), 0
    for module, move in moves:
        if not np.isfinite(move).all():
            raise TrainingFailed(f"{module} is not finite after training: lower the learning rate")
        move /= step
        np.rint(move, out=move)
        saturated += int(np.count_nonzero((move > UPDATE_LIMIT) | (move < -UPDATE_LIMIT)))
        update[module] = np.clip(move, -UPDATE_LIMIT, UPDATE_LIMIT, out=move).astype(np.int8)
    return update, saturated
