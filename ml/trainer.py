"""The steps of a trainer: AdamW on B over a frozen base, the same class on a CPU, on a GPU and on several.

bf16, float32 and NF4 bases differ in how they are loaded (ml/base.py), one process and several in their `Team`, a small
and a large memory in their `TrainSetup`; the steps are the same.
"""

import math
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol

import torch

from ml.batches import AnyBlock, Block, choose_blocks, count_targets, make_batches
from ml.head_loss import LossModel
from ml.lora import attach, detach, get_trained_factors
from ml.spec import AdapterSpec, TrainSpec
from ml.team import Team
from ml.train_setup import TrainSetup, make_optimizer, set_gradient_checkpointing
from ml.training_failed import TrainingFailed

__all__ = ["Constraint", "Trainer", "TrainingFailed"]


class Constraint(Protocol):
    """What training has to keep to beside its loss: a proximal term, a norm ball, the shape of honest updates."""

    def penalise(self, factors: Mapping[str, torch.Tensor]) -> torch.Tensor | float:
        """Added to each step's loss: module -> B (out_features, rank), differentiable."""

    def project(self, factors: Mapping[str, torch.Tensor]) -> None:
        """Called after each step, without gradients; may change B in place."""


class Trainer:
    """Use as a context manager: the base carries the adapter inside and is given back unchanged."""

    def __init__(
        self,
        base: Any,
        spec: AdapterSpec,
        train_spec: TrainSpec,
        global_adapter: Mapping[str, Any] | None = None,
        *,
        setup: TrainSetup,
        team: Team,
        loss_sign: int = 1,
        constraint: Constraint | None = None,
    ) -> None:
        if train_spec.batch_size < team.size:
            raise TrainingFailed(
                f"a batch of {train_spec.batch_size} cannot be divided among {team.size} processes: take at most "
                f"{train_spec.batch_size}"
            )
        self.base, self.spec, self.train_spec = base, spec, train_spec
        self.setup, self.team, self.loss_sign, self.constraint = setup, team, loss_sign, constraint
        self.steps_done = 0
        self._wrapped = attach(base, spec, global_adapter, team.device)
        try:
            self.factors: dict[str, torch.Tensor] = get_trained_factors(base, spec)
            self.optimizer = make_optimizer(setup, self.factors.values(), train_spec.learning_rate)
            if setup.gradient_checkpointing:
                set_gradient_checkpointing(base, True)
            self._loss_model = team.prepare(LossModel(base))
        except BaseException:
            detach(self._wrapped)
            raise

    def __enter__(self) -> "Trainer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.setup.gradient_checkpointing:
            set_gradient_checkpointing(self.base, False)
        if not self.team.shard:  # a sharded base is of no use to anyone afterwards
            detach(self._wrapped)

    @property
    def device(self) -> torch.device:
        return next(iter(self.factors.values())).device

    def step(self, blocks: Sequence[Block]) -> float:
        """One step on a batch; its loss before the step, nats per target. Raises TrainingFailed if not finite."""
        self._loss_model.train()
        self._clear_gradients()
        value = self._add_gradients(blocks)
        if not math.isfinite(value):
            raise TrainingFailed(
                f"loss is {value} at step {self.steps_done + 1}: "
                f"lower the learning rate of {self.train_spec.learning_rate}"
            )
        if self.constraint is not None:
            penalty = self.constraint.penalise(self.factors)
            if isinstance(penalty, torch.Tensor):
                penalty.backward()  # type: ignore[no-untyped-call]
        self._move()
        if self.constraint is not None:
            with torch.no_grad():
                self.constraint.project(self.factors)
        self.steps_done += 1
        return value

    @torch.no_grad()
    def measure(self, blocks: Sequence[Block]) -> float:
        """Mean over the blocks of their nats per target; every process of a team takes all of them."""
        self._loss_model.eval()
        losses = []
        for block in blocks:
            (batch,) = make_batches([block], len(block.tokens), self.device, packing=False)
            scale = 1 / count_targets([block], len(block.tokens))
            losses.append(float(self._loss_model(batch.tokens, batch.targets, batch.positions, scale)))
        return math.fsum(losses) / len(losses)

    # What differs where samples are protected (ml/private_trainer.py)

    def choose_batches(self, blocks: Sequence[AnyBlock]) -> list[list[AnyBlock]]:
        """The batch of each step."""
        return choose_blocks(blocks, self.train_spec)

    def _clear_gradients(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def _choose_scale(self, blocks: Sequence[Block]) -> float:
        """Of the batch's nats in the loss: the mean over all targets."""
        return 1 / count_targets(blocks, self.train_spec.sequence_length)

    def _move(self) -> None:
        self.optimizer.step()

    def _add_gradients(self, blocks: Sequence[Block]) -> float:
        """Gradients of the mean loss over the whole batch, the team's parts and this process's parts of it added up."""
        length, losses, scale = self.train_spec.sequence_length, [], self._choose_scale(blocks)
        for batch in make_batches(
            self.team.take(blocks),
            length,
            self.device,
            packing=self.setup.packing,
            rows_at_once=self.setup.rows_at_once,
        ):
            loss = self._loss_model(batch.tokens, batch.targets, batch.positions, scale)
            (self.loss_sign * loss).backward()
            losses.append(loss.detach())
        total = torch.stack(losses).sum()
        gradients = [factor.grad for factor in self.factors.values()]
        self.team.sum_up([total, *gradients])
        return float(total)
