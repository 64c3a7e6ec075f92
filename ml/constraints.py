"""What training may have to keep to beside its loss (`ml.trainer.Constraint`): a pull, a ball, or the honest shape.

Moves are B - B_0 in update steps, norms those of `ml/norms.py`: |move A|^2 = trace(move^T move A A^T), from r x r
matrices. In floats: the integers that rules compare are taken from the finished update.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ml.canonical import Array
from ml.factors import make_global_factors
from ml.norms import gram_of_fixed_a
from ml.spec import AdapterSpec

Factors = Mapping[str, torch.Tensor]
SMALLEST = 1e-6
"""Beside a norm in units of honest norms: keeps quotients of a first, zero move finite."""


class Moves:
    """From B, where training stands, to what an update would say of it; `start` is the global adapter or None."""

    def __init__(self, spec: AdapterSpec, start: Mapping[str, Any] | None) -> None:
        begun = make_global_factors(start, spec) or {}
        self._step = 2.0**spec.update_step_log2
        self.start = {module: torch.from_numpy(begun[module]) for module in begun}
        self.grams = {
            module: torch.from_numpy(np.ldexp(gram.astype(np.float64), shift)).float()
            for module, (gram, shift) in gram_of_fixed_a(spec).items()
        }

    def measure(self, factors: Factors) -> dict[str, torch.Tensor]:
        """Module -> (out_features, rank), in update steps."""
        return {
            module: (factor - self.start[module].to(factor.device) if self.start else factor) / self._step
            for module, factor in factors.items()
        }

    def inner(self, one: Factors, other: Factors) -> torch.Tensor:
        """<move A, other A> over all modules."""
        return torch.stack(
            [
                ((move.T @ other[module].to(move.device)) * self.grams[module].to(move.device)).sum()
                for module, move in one.items()
            ]
        ).sum()


class Pull:
    """mu/2 * |B - B_0|^2 added to the loss, B_0 where training starts: FedProx (arXiv:1812.06127, equation 2)."""

    def __init__(self, mu: float) -> None:
        self._mu = mu
        self._start: dict[str, torch.Tensor] = {}

    def penalise(self, factors: Factors) -> torch.Tensor:
        """First called before the first step, where B still stands at the start."""
        self._start = self._start or {module: factor.detach().clone() for module, factor in factors.items()}
        return self._mu / 2 * torch.stack([(b - self._start[name]).square().sum() for name, b in factors.items()]).sum()

    def project(self, factors: Factors) -> None:
        """Nothing is bound."""


class NormBall:
    """|B - B_0| on BA at most the root of `norm2_limit`: after each step back onto the ball."""

    def __init__(self, spec: AdapterSpec, start: Mapping[str, Any] | None, norm2_limit: int) -> None:
        self._moves, self._limit2 = Moves(spec, start), norm2_limit

    def penalise(self, factors: Factors) -> float:
        return 0.0

    def project(self, factors: Factors) -> None:
        moves = self._moves.measure(factors)
        norm2 = float(self._moves.inner(moves, moves))
        if norm2 <= self._limit2:
            return
        keep = (self._limit2 / norm2) ** 0.5
        for module, factor in factors.items():
            start = self._moves.start[module].to(factor.device) if self._moves.start else 0.0
            factor.copy_(start + (factor - start) * keep)


class HonestShape:
    """A price on looking unlike honest updates: larger, otherwise spread over singular values, in another direction.

    `references` are int8 honest updates: seen ones, or the attacker's own shadows. Each of the three terms is 0 for a
    move that no norm, spectrum or cosine screen could tell from them:

        norm      max(0, |m|^2 / N2 - 1)^2, N2 the median of the references
        spectrum  mean over modules of sum_k (s_k / sum s - its mean over the references)^2, s_k the squared singular
                  values of the module's BA
        cosine    max(0, c - cos(m, mean of the references))^2, c the least cosine of a reference to that mean
    """

    def __init__(
        self,
        spec: AdapterSpec,
        start: Mapping[str, Any] | None,
        references: Sequence[Mapping[str, Any]],
        *,
        weight: float,
    ) -> None:
        if not references:
            raise ValueError("no honest update to look like")
        self._moves, self._weight = Moves(spec, start), weight
        self._roots = {module: _take_root(gram) for module, gram in self._moves.grams.items()}
        known = [{module: _as_float(update[module]) for module in spec.modules} for update in references]
        norms2 = sorted(float(self._moves.inner(one, one)) for one in known)
        self._norm2 = norms2[(len(norms2) - 1) // 2]
        self._spectra = {
            module: torch.stack([self._measure_spectrum(module, one[module]) for one in known]).mean(dim=0)
            for module in spec.modules
        }
        self._mean = {module: torch.stack([one[module] for one in known]).mean(dim=0) for module in spec.modules}
        self._mean_norm = self._moves.inner(self._mean, self._mean).sqrt()
        self._cosine = min(float(self._measure_cosine(one)) for one in known)

    def penalise(self, factors: Factors) -> torch.Tensor:
        moves = self._moves.measure(factors)
        larger = torch.relu(self._moves.inner(moves, moves) / self._norm2 - 1) ** 2
        spread = torch.stack(
            [
                ((self._measure_spectrum(module, move) - self._spectra[module].to(move.device)) ** 2).sum()
                for module, move in moves.items()
            ]
        ).mean()
        astray = torch.relu(self._cosine - self._measure_cosine(moves)) ** 2
        return self._weight * (larger + spread + astray)

    def project(self, factors: Factors) -> None:
        """Nothing: a price, not a wall."""

    def _measure_spectrum(self, module: str, move: torch.Tensor) -> torch.Tensor:
        """(rank,) shares of the squared singular values of move A, ascending; they sum to 1."""
        root = self._roots[module].to(move.device)
        values = torch.linalg.eigvalsh(root.T @ (move.T @ move) @ root)
        return values / (values.sum() + SMALLEST * self._norm2)

    def _measure_cosine(self, moves: Factors) -> torch.Tensor:
        norm2 = self._moves.inner(moves, moves) + SMALLEST * self._norm2
        return self._moves.inner(moves, self._mean) / (norm2.sqrt() * self._mean_norm.to(norm2.device))


def _take_root(gram: torch.Tensor) -> torch.Tensor:
    """R with R R^T = A A^T, so that the squared singular values of move A are the eigenvalues of R^T move^T move R."""
    return torch.linalg.cholesky(gram.double()).float()


def _as_float(values: Any) -> torch.Tensor:
    array: Array = np.asarray(values).astype(np.float32)
    return torch.from_numpy(array)
