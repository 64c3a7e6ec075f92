"""Aggregation rules: integers in, integers out, the same bytes on every machine.

Each sibling file is one rule in two functions: `find_coefficients` looks at whole updates, `combine_block` at the
same chunk of each, so that one chunk of a result can be recomputed from the same chunks of its inputs. A new rule is a
new file.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, Protocol

import numpy as np

from ml.adapter import GlobalAdapter
from ml.canonical import Array
from ml.spec import GLOBAL_LIMIT, GRID_EXTRA_BITS, UPDATE_LIMIT, AdapterSpec

PPM = 1_000_000
MAX_UPDATES = 2**63 // (2 * UPDATE_LIMIT * 2**GRID_EXTRA_BITS * PPM) - 1
"""Beyond so many inputs twice the numerator of a weighted sum could leave int64."""
BLOCK_VALUES = 65_536
"""Values of one module combined at once: 512 KiB in int64, within a core's cache."""


@dataclass(frozen=True)
class Aggregate:
    """The result of one rule on one round's valid updates."""

    delta: GlobalAdapter
    """int32 change of the global adapter, in grid steps."""
    coefficients_ppm: dict[str, int]
    """By root, sorted."""


class Rule(Protocol):
    """What a rule's module offers."""

    def find_coefficients(
        self, updates: Mapping[str, Mapping[str, Any]], spec: AdapterSpec, *, norm_cap: int = 0
    ) -> list[int]:
        """Parts per million, in the order of roots. A rule may take options of its own. Ties go to the lowest root."""
        ...

    def combine_block(self, blocks: Array, coefficients_ppm: Sequence[int]) -> Array:
        """int8 (n, values) and n coefficients -> int64 (values,), in grid steps: the same chunk of the result."""
        ...


def list_rules() -> tuple[str, ...]:
    """Names of the rules, sorted: every sibling module."""
    return tuple(sorted(module.name for module in iter_modules(__path__)))


def get_rule(name: str) -> Rule:
    """The rule of that name. Raises ValueError with the known names."""
    if name not in list_rules():
        raise ValueError(f"unknown aggregator {name!r}; known: {', '.join(list_rules())}")
    rule: Rule = import_module(f"{__name__}.{name}")
    return rule


MIXING = "nearest_neighbour_mixing+"
"""Before a rule's name: each update is first replaced by the mean of its nearest neighbours (ml/mixing.py)."""


def aggregate(
    rule: str,
    updates: Mapping[str, Mapping[str, Any]],
    spec: AdapterSpec,
    *,
    norm_cap: int = 0,
    block: int = BLOCK_VALUES,
    **options: Any,
) -> Aggregate:
    """Combine the valid updates of a round, by root (hex), under the named rule.

    `options` are the rule's own, for experiments: `malicious` (f) of krum, multi_krum and bulyan, `weights_ppm` of
    mean. Raises ValueError for no updates, and for what the rule refuses.
    """
    chosen, updates, coefficients_ppm = find_coefficients(rule, updates, spec, norm_cap=norm_cap, **options)
    return Aggregate(stream(chosen, updates, coefficients_ppm, block), coefficients_ppm)


def find_coefficients(
    rule: str, updates: Mapping[str, Mapping[str, Any]], spec: AdapterSpec, *, norm_cap: int = 0, **options: Any
) -> tuple[Rule, Mapping[str, Mapping[str, Any]], dict[str, int]]:
    """(the named rule, the updates as it takes them, parts per million by root). Refuses as `aggregate` does."""
    if not updates:
        raise ValueError("nothing to aggregate: no valid update")
    if rule.startswith(MIXING):
        from ml.mixing import mix_neighbours

        rule, updates = rule.removeprefix(MIXING), mix_neighbours(updates, spec)
    chosen = get_rule(rule)
    found = chosen.find_coefficients(updates, spec, norm_cap=norm_cap, **options)
    return chosen, updates, dict(zip(sorted(updates), found, strict=True))


def add_to_global(previous: Mapping[str, Any], delta: Mapping[str, Any]) -> GlobalAdapter:
    """The next global adapter. Raises OverflowError beyond 2^24 grid steps, where float32 ends being exact."""
    result = {}
    for module in sorted(delta):
        total = np.asarray(previous[module]).astype(np.int64) + np.asarray(delta[module])
        if total.size and int(np.abs(total).max()) >= GLOBAL_LIMIT:
            raise OverflowError(f"{module} would exceed {GLOBAL_LIMIT} grid steps")
        result[module] = total.astype(np.int32)
    return result


def stream(
    rule: Rule, updates: Mapping[str, Mapping[str, Any]], coefficients_ppm: Mapping[str, int], block: int
) -> GlobalAdapter:
    """All modules of `combine_modules`."""
    return dict(combine_modules(rule, updates, coefficients_ppm, block))


def combine_modules(
    rule: Rule, updates: Mapping[str, Mapping[str, Any]], coefficients_ppm: Mapping[str, int], block: int
) -> Iterator[tuple[str, Array]]:
    """A rule's chunk-local form: (module, int32 change) in order, block by block, inputs in the order of their roots.

    Of each update one module is asked for at a time (ml/merging.py reads it from its file).
    """
    roots = sorted(updates)
    assert roots
    coefficients = [coefficients_ppm[root] for root in roots]
    for module in sorted(updates[roots[0]]):
        sources = [np.asarray(updates[root][module]) for root in roots]
        shape = sources[0].shape
        assert all(source.dtype == np.int8 and source.shape == shape for source in sources)
        flat = [np.ascontiguousarray(source).reshape(-1) for source in sources]
        out = np.empty(flat[0].size, np.int32)
        for start in range(0, out.size, block):
            blocks = np.stack([values[start : start + block] for values in flat])
            combined = rule.combine_block(blocks, coefficients)
            assert combined.size == 0 or int(np.abs(combined).max()) <= UPDATE_LIMIT << GRID_EXTRA_BITS
            out[start : start + block] = combined
        yield module, out.reshape(shape)


def equal_coefficients(updates: Mapping[str, Mapping[str, Any]], spec: AdapterSpec, *, norm_cap: int = 0) -> list[int]:
    """10^6 each: the `find_coefficients` of rules that look at coordinates alone. No norm is clipped."""
    return [PPM] * len(updates)


def keep_only(kept: Collection[int], count: int) -> list[int]:
    """10^6 for the updates at these places in the order of roots, else 0."""
    return [PPM if index in kept else 0 for index in range(count)]


def combine_weighted(blocks: Array, coefficients_ppm: Sequence[int]) -> Array:
    """round_half_even(2^f * sum(k_i * q_i) / sum(k_i)): int8 (n, values) -> int64 (values,)."""
    assert len(blocks) == len(coefficients_ppm)
    assert all(0 <= k <= PPM for k in coefficients_ppm)
    assert 0 < len(blocks) <= MAX_UPDATES
    total = np.zeros(blocks.shape[1], np.int64)
    for values, coefficient in zip(blocks, coefficients_ppm, strict=True):
        total += values.astype(np.int64) * coefficient
    return divide_half_even(total << GRID_EXTRA_BITS, sum(coefficients_ppm))


def divide_half_even(numerator: Array, denominator: int) -> Array:
    """numerator / denominator in int64, halves to the even neighbour (IEEE 754 roundTiesToEven, in integers)."""
    assert denominator > 0
    quotient = numerator // denominator
    twice = 2 * (numerator - quotient * denominator)
    is_up = (twice > denominator) | ((twice == denominator) & (quotient & 1 == 1))
    rounded: Array = quotient + is_up
    return rounded
