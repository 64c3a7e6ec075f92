"""One trainer's part of a round: K local steps of AdamW on B, from the global adapter; the result is an int8 update.

Deterministic: the same base, spec, data, seed and thread count give the same bytes on the same machine, so a trainer
that was killed starts again and ends with the same root.
"""

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from ml.lora import attach, detach, get_trained_factors
from ml.spec import UPDATE_LIMIT, AdapterSpec, TrainSpec

Floats = npt.NDArray[np.float32]
Progress = Callable[[int, int, float], None]
"""Called after each step with (steps done, steps in all, the step's loss in nats per token)."""
Penalty = Callable[[Mapping[str, Any], Mapping[str, Any]], Any]
"""(B now, B at the start), tensors by module -> a scalar added to each step's loss, e.g. FedProx's pull."""
PROBE_BLOCKS = 4
"""At most so many own blocks, evenly spread, on which the loss is measured before and after."""
IGNORED = -100
"""`cross_entropy` skips targets of this value."""


class TrainingFailed(RuntimeError):
    """Training gave no update; the sentence says why and what to do."""


class Block(Protocol):
    @property
    def tokens(self) -> Sequence[int]: ...


@dataclass(frozen=True)
class TrainResult:
    update: dict[str, npt.NDArray[np.int8]]
    """Module -> (out_features, rank), in steps of 2**update_step_log2."""
    residual: dict[str, Floats]
    """What quantisation left over, to be carried into the next update on the expected base."""
    losses: tuple[float, ...]
    """Per step, nats per token."""
    loss_before: float
    loss_after: float
    """Nats per token on a few own blocks."""
    saturated: int
    """Values that hit +-127."""
    tokens: int
    seconds: float
    """Of the steps alone."""

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds


def compute_update_step_log2(local_steps: int, learning_rate: float) -> int:
    """ceil(log2(K * lr / 127)): Adam moves a value by about lr a step at most, so K steps fit into int8."""
    return math.ceil(math.log2(local_steps * learning_rate / UPDATE_LIMIT))


def train_update(
    base: Any,
    spec: AdapterSpec,
    train_spec: TrainSpec,
    blocks: Sequence[Block],
    global_adapter: Mapping[str, Any] | None = None,
    *,
    progress: Progress | None = None,
    residual: Mapping[str, Floats] | None = None,
    loss_sign: int = 1,
    penalty: Penalty | None = None,
) -> TrainResult:
    """The update of a loaded base on one's own blocks; the base is given back unchanged.

    `residual` is the last result's, or None when the base is not the expected one. `loss_sign` of -1 ascends (an
    attack); `penalty` is added to what each step descends, not to the losses told. Raises TrainingFailed for too
    little data, memory, or a loss that is not finite.
    """
    if not blocks:
        raise TrainingFailed("no blocks to train on: give documents of at least 16 tokens")
    probe = blocks[:: -(-len(blocks) // PROBE_BLOCKS)]
    model = attach(base, spec, global_adapter)
    try:
        before = {module: _to_numpy(factor) for module, factor in get_trained_factors(base, spec).items()}
        loss_before = _measure(model, probe)
        started = time.perf_counter()
        losses, tokens = _run_steps(
            model, get_trained_factors(base, spec), train_spec, blocks, progress, loss_sign, penalty
        )
        seconds = time.perf_counter() - started
        loss_after = _measure(model, probe)
        after = {module: _to_numpy(factor) for module, factor in get_trained_factors(base, spec).items()}
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        raise _explain(error) from error
    finally:
        detach(model)
    update, rest, saturated = quantise(before, after, spec, residual)
    return TrainResult(update, rest, tuple(losses), loss_before, loss_after, saturated, tokens, seconds)


def quantise(
    before: Mapping[str, Floats], after: Mapping[str, Floats], spec: AdapterSpec, residual: Mapping[str, Floats] | None
) -> tuple[dict[str, npt.NDArray[np.int8]], dict[str, Floats], int]:
    """(int8 update, residual, saturated values) of a move: halves to even, saturated at +-127."""
    step, update, rest, saturated = 2.0**spec.update_step_log2, {}, {}, 0
    for module in spec.modules:
        move = after[module].astype(np.float64) - before[module]
        if residual is not None:
            move += residual[module]
        if not np.isfinite(move).all():
            raise TrainingFailed(f"{module} is not finite after training: lower the learning rate")
        rounded = np.rint(move / step)
        kept = np.clip(rounded, -UPDATE_LIMIT, UPDATE_LIMIT)
        saturated += int(np.count_nonzero(kept != rounded))
        update[module] = kept.astype(np.int8)
        rest[module] = (move - kept * step).astype(np.float32)
    return update, rest, saturated


def choose_blocks(blocks: Sequence[Block], train_spec: TrainSpec) -> list[list[Block]]:
    """The batch of each step: passes over all blocks, each in an order drawn from the seed."""
    needed, order = train_spec.local_steps * train_spec.batch_size, list[int]()
    while len(order) < needed:
        turn = len(order) // len(blocks)
        order += sorted(range(len(blocks)), key=lambda index: _rank(train_spec.seed, turn, index))
    size = train_spec.batch_size
    return [[blocks[index] for index in order[at : at + size]] for at in range(0, needed, size)]


def _run_steps(
    model: Any,
    factors: Mapping[str, Any],
    train_spec: TrainSpec,
    blocks: Sequence[Block],
    progress: Progress | None,
    loss_sign: int,
    penalty: Penalty | None,
) -> tuple[list[float], int]:
    # Constant rate, no warm-up, no weight decay: B starts at the settled global adapter, not at noise.
    optimizer = torch.optim.AdamW(list(factors.values()), lr=train_spec.learning_rate, weight_decay=0.0)
    model.train()
    begin = {module: factor.detach().clone() for module, factor in factors.items()} if penalty is not None else {}
    losses, tokens = [], 0
    for step, batch in enumerate(choose_blocks(blocks, train_spec), 1):
        loss, count = _compute_loss(model, batch, train_spec.sequence_length)
        value = loss.item()
        if not math.isfinite(value):
            raise TrainingFailed(
                f"loss is {value} at step {step}: lower the learning rate of {train_spec.learning_rate}"
            )
        optimizer.zero_grad(set_to_none=True)
        aim = loss_sign * loss if penalty is None else loss_sign * loss + penalty(factors, begin)
        aim.backward()
        optimizer.step()
        losses.append(value)
        tokens += count
        if progress is not None:
            progress(step, train_spec.local_steps, value)
    return losses, tokens


def _compute_loss(model: Any, batch: Sequence[Block], sequence_length: int) -> tuple[torch.Tensor, int]:
    """(mean nats per target token, tokens read). Padding stands on the right, behind the causal mask."""
    rows = [list(block.tokens[:sequence_length]) for block in batch]
    longest = max(len(row) for row in rows)
    device = next(model.parameters()).device
    tokens = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=device)
    targets = torch.tensor([row[1:] + [IGNORED] * (longest - len(row)) for row in rows], device=device)
    logits = model(input_ids=tokens, use_cache=False).logits[:, :-1]
    loss = functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED)
    return loss, sum(len(row) for row in rows)


@torch.no_grad()
def _measure(model: Any, blocks: Sequence[Block]) -> float:
    model.eval()
    losses = [float(_compute_loss(model, [block], len(block.tokens))[0]) for block in blocks]
    return math.fsum(losses) / len(losses)


def _rank(seed: int, turn: int, index: int) -> bytes:
    return hashlib.sha256(f"flockchain/order/1 {seed} {turn} {index}".encode()).digest()


def _to_numpy(factor: torch.Tensor) -> Floats:
    array: Floats = factor.detach().to("cpu", torch.float32).numpy().copy()
    return array


def _explain(error: BaseException) -> BaseException:
    """Out of memory as a sentence; anything else as it is."""
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in text:
        return TrainingFailed("out of memory while training: choose a smaller batch, shorter sequences or 4 bit")
    return error
