"""The next global adapter of a round, from files to a file: no adapter is ever held whole.

What stands in memory is one module of every update, and one of the global adapter: for n updates of a 70B shape at rank
16 some n x 0.5 MB. The bytes are those of ml/aggregate/ on adapters in memory.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from ml.adapter import open_global, open_update, write_global_stream
from ml.aggregate import BLOCK_VALUES, combine_modules, find_coefficients, get_rule
from ml.canonical import Array
from ml.spec import AdapterSpec

Progress = Callable[[int, int], None]
"""Called with (modules done, modules in all)."""


def merge_files(
    rule: str,
    updates: Mapping[str, Path],
    previous: Path | None,
    out: Path,
    spec: AdapterSpec,
    manifest: Mapping[str, str],
    *,
    norm_cap: int = 0,
    coefficients_ppm: Mapping[str, int] | None = None,
    block: int = BLOCK_VALUES,
    progress: Progress | None = None,
) -> dict[str, int]:
    """Write `previous` (None: zero) plus the rule's change to `out`; coefficients in ppm by root.

    `coefficients_ppm` takes the place of those that the rule finds.

    Raises Malformed for a file that is not the adapter it should be, ValueError for no updates or what the rule
    refuses, OverflowError beyond the grid, OSError (ENOSPC) before anything is written on a disk that is too small.
    """
    files: dict[str, Mapping[str, Array]] = {root: open_update(path, spec) for root, path in updates.items()}
    before = open_global(previous, spec) if previous else None
    if coefficients_ppm is None:
        chosen, combined, found = find_coefficients(rule, files, spec, norm_cap=norm_cap)
    else:
        chosen, combined, found = get_rule(rule), files, dict(coefficients_ppm)

    def add() -> Iterator[tuple[str, Array]]:
        for done, (module, delta) in enumerate(combine_modules(chosen, combined, found, block), 1):
            yield module, delta if before is None else _add(before[module], delta)
            if progress is not None:
                progress(done, len(spec.shapes))

    write_global_stream(out, add(), spec, manifest)
    return found


def _add(values: Array, delta: Array) -> Array:
    # int64 first: a file's values are any int32, and their sum is checked when it is written.
    total: Array = values.astype(np.int64) + delta
    return total
