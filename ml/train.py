"""One trainer's part of a round: K local steps of AdamW on B, from the global adapter; the result is an int8 update.

Deterministic: the same base, spec, data, seed and thread count give the same bytes on the same machine, so a trainer
that was killed goes on from its checkpoint, or starts again, and ends with the same root.
"""

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ml.batches import Block, choose_blocks
from ml.checkpoint import Progress as Standing
from ml.checkpoint import load_checkpoint, make_key, save_checkpoint
from ml.privacy import Privacy
from ml.quantise import make_moves, quantise
from ml.spec import UPDATE_LIMIT, AdapterSpec, TrainSpec, encode_spec
from ml.team import Team
from ml.train_memory import describe_memory, is_out_of_memory
from ml.train_setup import TrainSetup, choose_setup
from ml.trainer import Constraint, Trainer, TrainingFailed

__all__ = ["TrainResult", "TrainingFailed", "choose_blocks", "compute_update_step_log2", "train_update"]

Progress = Callable[[int, int, float], None]
"""Called after each step with (steps done, steps in all, the step's loss in nats per token)."""
PROBE_BLOCKS = 4
"""At most so many own blocks, evenly spread, on which the loss is measured before and after."""
CHECKPOINT_S = 60.0
"""Between two checkpoints: what a kill can cost."""


@dataclass(frozen=True)
class TrainResult:
    update: dict[str, npt.NDArray[np.int8]]
    """Module -> (out_features, rank), in steps of 2**update_step_log2."""
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
    resumed_at: int = 0
    """Steps that a checkpoint held when this process began."""

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
    loss_sign: int = 1,
    constraint: Constraint | None = None,
    setup: TrainSetup | None = None,
    team: Team | None = None,
    checkpoint: Path | None = None,
    checkpoint_s: float = CHECKPOINT_S,
    privacy: Privacy | None = None,
) -> TrainResult:
    """The update of a loaded base on one's own blocks; the base is given back unchanged.

    `loss_sign` of -1 ascends (an attack); a `constraint` binds each step, and its penalty is not in the losses told.
    `setup` None: chosen for the base. `team`: the processes that train this update together, each calling with the same
    arguments. `checkpoint`: the file from which a killed training goes on, written at most every `checkpoint_s`.
    `privacy`: DP-SGD on each sample; `train_spec.seed` then decides nothing, and what is spent is told before the first
    step. Raises TrainingFailed for too little data or memory, or a loss that is not finite.
    """
    if not blocks:
        raise TrainingFailed("no blocks to train on: give documents of at least 16 tokens")
    assert checkpoint is None or constraint is None, "a constraint's state is in no checkpoint"
    setup, team = setup or choose_setup(base), team or Team()
    key, make_trainer = "", Trainer
    if checkpoint is not None or privacy is not None:
        key = _make_key(base, spec, train_spec, setup, team, loss_sign, blocks, global_adapter)
    if privacy is not None:
        key, make_trainer = _begin_private(privacy, key, blocks, train_spec)
    try:
        with make_trainer(
            base,
            spec,
            train_spec,
            global_adapter,
            setup=setup,
            team=team,
            loss_sign=loss_sign,
            constraint=constraint,
        ) as trainer:
            run = _Run(trainer, checkpoint if team.is_first else None, key, checkpoint_s)
            resumed_at = run.resume(checkpoint, blocks)
            run.go_on(trainer.choose_batches(blocks), progress)
            loss_after = trainer.measure(_choose_probe(blocks))
            update, saturated = quantise(make_moves(trainer.factors, global_adapter, spec), spec)
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise TrainingFailed(describe_memory(base, spec, train_spec, setup)) from error
        raise
    done = run.standing
    return TrainResult(
        update, done.losses, done.loss_before, loss_after, saturated, done.tokens, done.seconds, resumed_at
    )


def _begin_private(privacy: Privacy, key: str, blocks: Sequence[Block], train_spec: TrainSpec) -> tuple[str, Any]:
    """(the run's name, what makes its trainer), once its spend is granted."""
    from ml.private_trainer import PrivateRun, PrivateTrainer

    run = PrivateRun(privacy, key, blocks, train_spec)
    privacy.spend(run.get_spend())
    return run.name, partial(PrivateTrainer, run)


class _Run:
    """The steps of one update, with what is known of them so far."""

    def __init__(self, trainer: Trainer, checkpoint: Path | None, key: str, checkpoint_s: float) -> None:
        self.trainer, self.checkpoint, self.key, self.checkpoint_s = trainer, checkpoint, key, checkpoint_s
        self.standing = Standing((), 0, 0.0, 0.0)

    def resume(self, checkpoint: Path | None, blocks: Sequence[Block]) -> int:
        """Steps that need not be taken again."""
        trainer = self.trainer
        found = load_checkpoint(checkpoint, self.key, trainer.factors, trainer.optimizer) if checkpoint else None
        self.standing = found or Standing((), 0, 0.0, trainer.measure(_choose_probe(blocks)))
        trainer.steps_done = len(self.standing.losses)
        return trainer.steps_done

    def go_on(self, batches: Sequence[Sequence[Block]], progress: Progress | None) -> None:
        saved = time.monotonic()
        for batch in batches[self.trainer.steps_done :]:
            began = time.perf_counter()
            loss = self.trainer.step(batch)
            self._count(loss, batch, time.perf_counter() - began)
            if self.checkpoint is not None and time.monotonic() - saved >= self.checkpoint_s:
                self._save(self.checkpoint)
                saved = time.monotonic()
            if progress is not None:
                progress(self.trainer.steps_done, len(batches), loss)

    def _count(self, loss: float, batch: Sequence[Block], seconds: float) -> None:
        done, length = self.standing, self.trainer.train_spec.sequence_length
        tokens = sum(len(block.tokens[:length]) for block in batch)
        self.standing = Standing((*done.losses, loss), done.tokens + tokens, done.seconds + seconds, done.loss_before)

    def _save(self, path: Path) -> None:
        try:
            save_checkpoint(path, self.key, self.trainer.factors, self.trainer.optimizer, self.standing)
        except OSError as error:  # a full disk costs what a kill would: the steps since the last checkpoint
            warnings.warn(str(error), stacklevel=2)


def _choose_probe(blocks: Sequence[Block]) -> Sequence[Block]:
    return blocks[:: -(-len(blocks) // PROBE_BLOCKS)]


def _make_key(
    base: Any,
    spec: AdapterSpec,
    train_spec: TrainSpec,
    setup: TrainSetup,
    team: Team,
    loss_sign: int,
    blocks: Sequence[Block],
    global_adapter: Mapping[str, Any] | None,
) -> str:
    """Everything that decides the bytes of the rest of the steps."""
    device = team.device or base.device  # a sharded base is nowhere as a whole
    machine = [torch.__version__, device.type, str(base.dtype), torch.get_num_threads(), team.size, loss_sign]
    text = [[int(token) for token in block.tokens] for block in blocks]
    values = [machine, encode_spec(spec), asdict(train_spec), asdict(setup), text]
    start = (np.ascontiguousarray(global_adapter[name]).tobytes() for name in spec.modules) if global_adapter else ()
    return make_key(chain(values, start))
