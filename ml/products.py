"""The effective change B A of any two factors, from the factors alone: inner products, distances, sums, truncation.

A product of (out, in) is never formed: with r the rank,

    <B A, B' A'> = trace((B^T B')(A' A^T)),     sum_i w_i B_i A_i = [w_1 B_1 .. w_n B_n] [A_1; ..; A_n]

Floats, for the lab and for tables. What the chain attests is `ml/norms.py`: integers, with one A for all.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ml.canonical import Array
from ml.lora import fixed_a
from ml.spec import AdapterSpec


class Pair(NamedTuple):
    """The factors of one module."""

    b: Array
    """float64 (out_features, rank)"""
    a: Array
    """float64 (rank, in_features)"""


Pairs = Mapping[str, Pair]
"""By module path."""


def make_first_pairs(spec: AdapterSpec) -> dict[str, Pair]:
    """The adapter before the first round: B zero, A the task's."""
    found = {}
    for module, out_features, in_features in spec.shapes:
        values, step_log2 = fixed_a(spec, module, in_features)
        found[module] = Pair(np.zeros((out_features, spec.rank)), values * 2.0**step_log2)
    return found


def inner(one: Pairs, other: Pairs) -> float:
    """<B A, B' A'> over all modules. The two may differ in rank."""
    return float(sum(np.sum((one[m].b.T @ other[m].b) * (one[m].a @ other[m].a.T)) for m in sorted(one)))


def norm(pairs: Pairs) -> float:
    """|B A| (Frobenius) over all modules."""
    return float(np.sqrt(max(0.0, inner(pairs, pairs))))


def distance(one: Pairs, other: Pairs) -> float:
    """|B A - B' A'|, as the norm of the stacked difference [B, -B'] [A; A'].

    A QR of each stacked factor comes first: the usual |x|^2 + |y|^2 - 2 <x, y> would cancel for near ones, and end at
    the square root of the rounding error instead of at the rounding error.
    """
    total = 0.0
    for module in sorted(one):
        stacked = stack([one[module], other[module]], [1.0, -1.0])
        left, right = np.linalg.qr(stacked.b, mode="r"), np.linalg.qr(stacked.a.T, mode="r")
        total += float(np.sum((left @ right.T) ** 2))
    return float(np.sqrt(total))


def stack(pairs: Sequence[Pair], coefficients: Sequence[float]) -> Pair:
    """sum_i(c_i B_i A_i) exactly, as factors whose rank is the sum of the ranks (FLoRA, arXiv:2409.05976)."""
    scaled = [pair.b * coefficient for pair, coefficient in zip(pairs, coefficients, strict=True)]
    return Pair(np.concatenate(scaled, axis=1), np.concatenate([pair.a for pair in pairs], axis=0))


def mean(changes: Mapping[str, Pairs]) -> dict[str, Pair]:
    """mean(B_i A_i) by module, exact, in the order of roots. Raises ValueError for none."""
    if not changes:
        raise ValueError("nothing to average: no adapter")
    ordered = [changes[root] for root in sorted(changes)]
    share = [1 / len(ordered)] * len(ordered)
    return {module: stack([pairs[module] for pairs in ordered], share) for module in sorted(ordered[0])}


def pad(pair: Pair, rank: int) -> Pair:
    """The same product at a higher rank: zero columns in B and zero rows in A (HetLoRA, arXiv:2401.06432)."""
    more = rank - pair.b.shape[1]
    if more < 0:
        raise ValueError(f"rank {pair.b.shape[1]} cannot be padded to {rank}: truncate it")
    return Pair(np.pad(pair.b, ((0, 0), (0, more))), np.pad(pair.a, ((0, more), (0, 0))))


def truncate(pair: Pair, rank: int, *, step_log2: int | None = None) -> Pair:
    """The nearest product of this rank (Eckart-Young): QR of both factors, SVD of the small core, halves of sqrt(s).

    With `step_log2` both factors are rounded to multiples of 2^step_log2, halves to even. Each singular vector of B
    has its largest entry positive. **Not attestable**: LAPACK's last bits differ between machines and thread counts,
    and a rounded value flips where it lies near a half, or where two singular values are nearly equal. On one machine
    with one thread the result is always the same.
    """
    q_b, r_b = np.linalg.qr(pair.b)
    q_a, r_a = np.linalg.qr(pair.a.T)
    left, values, right = np.linalg.svd(r_b @ r_a.T, full_matrices=False)
    root = np.sqrt(values[:rank])
    b, a = q_b @ left[:, :rank] * root, root[:, None] * (right[:rank] @ q_a.T)
    signs = np.where(b[np.abs(b).argmax(axis=0), np.arange(b.shape[1])] < 0, -1.0, 1.0)
    found = pad(Pair(b * signs, a * signs[:, None]), rank)
    if step_log2 is None:
        return found
    step = 2.0**step_log2
    return Pair(np.rint(found.b / step) * step, np.rint(found.a / step) * step)


def relative_error(found: Pairs, exact: Pairs) -> float:
    """|found - exact| / |exact|, on the products."""
    return distance(found, exact) / norm(exact)


def as_arrays(pairs: Pairs, kind: str) -> dict[str, Any]:
    """One factor by module: `kind` is "a" or "b"."""
    return {module: getattr(pair, kind) for module, pair in pairs.items()}
