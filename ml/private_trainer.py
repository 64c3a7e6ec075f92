"""DP-SGD's steps, by opacus: each sample's own gradient of B, clipped; their sum with noise; then the optimizer.

Draws and noise come from torch's generator, seeded by HMAC-SHA-256 of the trainer's secret over the run, so that a
killed training goes on with the same bytes. The generator is none of cryptography: opacus' secure mode asks for a
library that is no longer built. What is published are int8 roundings of all steps' sum, not the noisy gradients, on
whose low bits the known attacks on floating-point noise rest (Mironov, CCS 2012).
"""

import hashlib
import hmac
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from ml.batches import count_targets
from ml.data import Block
from ml.lora import detach
from ml.master_linear import MasterLinear
from ml.privacy import HOW_TO_INSTALL, Privacy, PrivacyUnavailable, Spend, compute_rate, group_samples
from ml.spec import AdapterSpec, TrainSpec
from ml.trainer import Trainer

try:
    from opacus import GradSampleModule
    from opacus.grad_sample import register_grad_sampler
    from opacus.grad_sample.linear import compute_linear_grad_sample
    from opacus.optimizers import DPOptimizer
    from opacus.utils.uniform_sampler import UniformWithReplacementSampler
except ImportError:
    raise PrivacyUnavailable(HOW_TO_INSTALL) from None


@register_grad_sampler(MasterLinear)
def _compute_grad_sample(layer: Any, activations: Sequence[torch.Tensor], backprops: torch.Tensor) -> Any:
    """(rows, out, rank) in float32, whatever the base's format: norms are taken of it."""
    return compute_linear_grad_sample(layer, [activations[0].float()], backprops.float())


class PrivateRun:
    """One training under a `Privacy`: its draws, and the seeds of its noise. `key` names all else that decides it."""

    def __init__(self, privacy: Privacy, key: str, blocks: Sequence[Block], train_spec: TrainSpec) -> None:
        self.privacy, self.train_spec = privacy, train_spec
        facts = f"flockchain/dp/1 {key} {privacy.noise_multiplier!r} {privacy.clip_norm!r} {privacy.unit}"
        self.name = hmac.new(privacy.secret, facts.encode(), hashlib.sha256).hexdigest()
        self._samples = group_samples(blocks, privacy.unit)
        self.rate = compute_rate(len(self._samples), train_spec.batch_size)
        self.loss_scale = 1 / train_spec.sequence_length
        """Of every block's nats, whatever else was drawn: one over the batch's targets would let each sample change the
        gradients of all others, beyond the clip norm."""

    def get_spend(self) -> Spend:
        return Spend(self.name, self.privacy.noise_multiplier, self.rate, self.train_spec.local_steps)

    def draw_batches(self) -> list[list[Block]]:
        """The batch of each step, which may be empty: every sample with probability `rate` (Poisson), one block each.

        From the secret alone: the accountant's figure holds for draws that nobody knows.
        """
        generator = torch.Generator().manual_seed(self.make_seed("draw"))
        drawn = UniformWithReplacementSampler(
            num_samples=len(self._samples),
            sample_rate=self.rate,
            generator=generator,
            steps=self.train_spec.local_steps,
        )
        return [[_take_one(self._samples[index], generator) for index in indices] for indices in drawn]

    def make_seed(self, purpose: str) -> int:
        digest = hmac.new(self.privacy.secret, f"{self.name} {purpose}".encode(), hashlib.sha256).digest()
        return int.from_bytes(digest[:8], "big") >> 1


def _take_one(sample: Sequence[Block], generator: torch.Generator) -> Block:
    return sample[int(torch.randint(len(sample), (1,), generator=generator))]


class PrivateTrainer(Trainer):
    """A trainer whose batches are the draws of a `PrivateRun`, which may be empty."""

    def __init__(self, run: PrivateRun, base: Any, spec: AdapterSpec, *given: Any, **settings: Any) -> None:
        """As `Trainer`, for one process and no constraint: samples are clipped here, and by their loss alone."""
        assert settings["constraint"] is None
        assert settings["team"].size == 1
        # Rows hold one sample each, and its activations stay until its gradient is taken.
        settings["setup"] = replace(settings["setup"], packing=False, gradient_checkpointing=False)
        super().__init__(base, spec, *given, **settings)
        self._run = run
        try:
            layers = [base.get_submodule(module).lora_B["default"] for module in spec.modules]
            # Hooks on each B alone: around the whole model opacus would see one module that it does not know.
            self._sampled = [GradSampleModule(layer, loss_reduction="sum") for layer in layers]
            self._private_optimizer = DPOptimizer(
                self.optimizer,
                noise_multiplier=run.privacy.noise_multiplier,
                max_grad_norm=run.privacy.clip_norm,
                expected_batch_size=run.train_spec.batch_size,
                generator=torch.Generator(self.device),
            )
        except BaseException:
            detach(self._wrapped)
            raise

    def choose_batches(self, blocks: Sequence[Block]) -> list[list[Block]]:
        return self._run.draw_batches()

    def _clear_gradients(self) -> None:
        self._private_optimizer.zero_grad(set_to_none=True)

    def _choose_scale(self, blocks: Sequence[Block]) -> float:
        return self._run.loss_scale

    def _add_gradients(self, blocks: Sequence[Block]) -> float:
        """Each sample's own; the loss in nats per target, 0 for an empty draw."""
        if not blocks:
            for factor in self.factors.values():
                factor.grad_sample = factor.new_zeros((0, *factor.shape))  # type: ignore[attr-defined]
            return 0.0
        with warnings.catch_warnings():
            # B's input needs no gradient in the first layer, which changes nothing for B's own.
            warnings.filterwarnings("ignore", "Full backward hook is firing", UserWarning)
            total = super()._add_gradients(blocks)
        return total / self._run.loss_scale / count_targets(blocks, self.train_spec.sequence_length)

    def _move(self) -> None:
        self._private_optimizer.generator.manual_seed(self._run.make_seed(f"noise {self.steps_done}"))
        self._private_optimizer.step()
