"""Norms and inner products of the effective change B A, exact, from the factors.

|B A|_F^2 = trace((B^T B)(A A^T)): an adapter with A * 1000 and B / 1000 is the same adapter. All values are integers
in squared steps of q_B * q_A, where q_A is the finest step of any module's A. The r x r products are taken in float64,
which is exact here: |sum| <= 127^2 * features < 2^53 for fewer than 2^39 features, in whatever order BLAS adds.
Their products and sums are Python integers, because they exceed 64 bits.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from math import isqrt
from typing import Any

import numpy as np

from ml.canonical import Array
from ml.spec import AdapterSpec

PPM = 1_000_000
ROWS, COLUMNS = 1_024, 512
"""Of factors side by side, converted at once: 4 MiB in float64."""


def norm2(update: Mapping[str, Any], spec: AdapterSpec) -> int:
    """N2 = |B A|^2 over all modules."""
    return inner(update, update, spec)


def inner(update: Mapping[str, Any], other: Mapping[str, Any], spec: AdapterSpec) -> int:
    """<B A, B' A> over all modules."""
    return inner_products((update,) if other is update else (update, other), spec)[0][-1]


def inner_products(updates: Sequence[Mapping[str, Any]], spec: AdapterSpec) -> list[list[int]]:
    """The symmetric matrix of <B_i A, B_j A>; of each update one module is asked for, and held, at a time."""
    count = len(updates)
    found = [[0] * count for _ in range(count)]
    for module, (gram, shift) in gram_of_fixed_a(spec).items():
        for i, j, product in _iterate_grams([np.asarray(update[module]) for update in updates]):
            found[i][j] += _trace(product, gram) << shift
    for i in range(count):
        for j in range(i):
            found[i][j] = found[j][i]
    return found


def cosine_ppm(inner_product: int, norm2_a: int, norm2_b: int) -> int:
    """Cosine between two updates in ppm, rounded towards zero. Norms must be positive."""
    assert norm2_a > 0
    assert norm2_b > 0
    magnitude = isqrt(inner_product * inner_product * PPM * PPM // (norm2_a * norm2_b))
    return magnitude if inner_product >= 0 else -magnitude


def ratio_ppm(norm2_a: int, norm2_b: int) -> int:
    """|a| / |b| in ppm, rounded down, from squared norms."""
    assert norm2_b > 0
    return isqrt(norm2_a * PPM * PPM // norm2_b)


@lru_cache(maxsize=4)
def gram_of_fixed_a(spec: AdapterSpec) -> dict[str, tuple[Array, int]]:
    """Module -> (A A^T as int64 (rank, rank), bits to shift a product by so that all modules share one unit)."""
    from ml.lora import fixed_a

    assert spec.shapes, "the spec has no shapes: use make_spec or with_shapes"
    found = {}
    for module, _, in_features in spec.shapes:
        values, step_log2 = fixed_a(spec, module, in_features)
        columns = np.asarray(values).T
        found[module] = (_gram(columns, columns), step_log2)
    finest = min(step for _, step in found.values())
    return {module: (gram, 2 * (step - finest)) for module, (gram, step) in found.items()}


def _iterate_grams(factors: Sequence[Array]) -> Iterator[tuple[int, int, Array]]:
    """(i, j, B_i^T B_j) for i <= j, many pairs by one product of matrices."""
    rank = factors[0].shape[1]
    size = max(1, COLUMNS // rank)
    groups = [range(start, min(start + size, len(factors))) for start in range(0, len(factors), size)]
    for index, group in enumerate(groups):
        left = np.concatenate([factors[i] for i in group], axis=1)
        for other in groups[index:]:
            right = left if other is group else np.concatenate([factors[j] for j in other], axis=1)
            total = _gram(left, right).reshape(len(group), rank, len(other), rank)
            yield from ((i, j, total[a, :, b]) for a, i in enumerate(group) for b, j in enumerate(other) if i <= j)


def _gram(left: Array, right: Array) -> Array:
    """left^T right as int64 for int8 matrices of as many rows."""
    assert left.dtype == np.int8
    assert right.dtype == np.int8
    total = np.zeros((left.shape[1], right.shape[1]), np.int64)
    for start in range(0, left.shape[0], ROWS):
        rows = left[start : start + ROWS].astype(np.float64)
        others = rows if right is left else right[start : start + ROWS].astype(np.float64)
        total += (rows.T @ others).astype(np.int64)
    return total


def _trace(left: Array, right: Array) -> int:
    """trace(left @ right) for a symmetric `right`, in Python integers."""
    return int((left.astype(object) * right.astype(object)).sum())
