"""Spectral statistics of an adapter's change B A per module, from the factors; no model runs.

The five of arXiv:2602.15195 (largest singular value, Frobenius norm, energy concentration, entropy, kurtosis). A is the
task's, so the singular values of B A are those of B L, with L L^T = A A^T (Cholesky): (out, r) instead of (out, in).
"""

from collections.abc import Mapping

import numpy as np

from ml.canonical import Array
from ml.norms import gram_of_fixed_a
from ml.screen import Factors
from ml.spec import AdapterSpec

STATISTICS = ("log_largest", "log_norm", "concentration", "entropy", "log_kurtosis")
SCALE_FREE = (2, 3, 4)
"""Indexes of those that a scaled update leaves as they were."""
SMALLEST = 1e-30
"""Stands for zero under a logarithm."""


def subtract(factors: Factors, reference: Factors | None) -> dict[str, Array]:
    """The change that an adapter makes to its reference."""
    return {name: values - reference[name] if reference else values for name, values in factors.items()}


def compute_statistics(change: Mapping[str, Array], spec: AdapterSpec) -> dict[str, Array]:
    """Module -> float64 (STATISTICS,). Lengths are in the unit of `gram_of_fixed_a`, the same for a whole task."""
    found = {}
    for module, (gram, shift) in gram_of_fixed_a(spec).items():
        root = np.linalg.cholesky(gram.astype(np.float64) + np.eye(len(gram))) * 2.0 ** (shift / 2)
        found[module] = _describe(np.asarray(change[module], np.float64) @ root)
    return found


def compute_features(change: Mapping[str, Array], spec: AdapterSpec) -> Array:
    """float64 (projections * STATISTICS,): means over the layers, projections in sorted order."""
    by_projection: dict[str, list[Array]] = {}
    for module, statistics in compute_statistics(change, spec).items():
        by_projection.setdefault(module.rsplit(".", 1)[-1], []).append(statistics)
    return np.concatenate([np.mean(by_projection[name], axis=0) for name in sorted(by_projection)])


def _describe(rotated: Array) -> Array:
    """Of (out, r): B A in an orthonormal basis of A's rows."""
    energies = np.maximum(np.linalg.eigvalsh(rotated.T @ rotated), 0.0)
    total = float(energies.sum())
    if total <= 0:
        return np.array([np.log(SMALLEST), np.log(SMALLEST), 1.0, 0.0, 0.0])
    shares = energies / total
    entropy = -float((shares * np.log(np.maximum(shares, SMALLEST))).sum()) / np.log(max(2, len(shares)))
    centred = rotated - rotated.mean()
    kurtosis = float((centred**4).mean() / max(float((centred**2).mean()) ** 2, SMALLEST))
    largest = float(energies.max())
    return np.array([np.log(largest) / 2, np.log(total) / 2, largest / total, entropy, np.log(max(kurtosis, SMALLEST))])
