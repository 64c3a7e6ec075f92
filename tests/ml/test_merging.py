"""Adapters of gigabytes in small: merged from files to a file, with the bytes of the plain form and little memory."""

import errno
import shutil
from pathlib import Path

import numpy as np
import pytest

from ml.adapter import (
    make_global_manifest,
    make_update_manifest,
    open_update,
    read_global,
    write_global,
    write_update,
)
from ml.aggregate import BLOCK_VALUES, MIXING, add_to_global, aggregate, list_rules
from ml.canonical import Malformed
from ml.merging import merge_files
from ml.norms import COLUMNS, inner, inner_products
from ml.spec import GLOBAL_LIMIT, AdapterSpec
from tests.ml.support import LARGE, make_global, make_small_spec, make_update, trace_peak

SPEC = make_small_spec()
MANIFEST = make_global_manifest(SPEC, task=1, round=2)


def write_updates(folder: Path, spec: AdapterSpec, count: int) -> dict[str, Path]:
    paths = {f"{seed:02x}": folder / f"update-{seed}" for seed in range(count)}
    for seed, path in enumerate(paths.values()):
        manifest = make_update_manifest(spec, task=1, round=2, trainer=f"trainer {seed}", base_root="")
        write_update(path, make_update(spec, seed, limit=10 * (seed + 1)), manifest)
    return paths


@pytest.mark.parametrize("rule", [*list_rules(), f"{MIXING}trimmed_mean"])
@pytest.mark.parametrize("with_previous", [False, True])
def test_bytes_of_the_plain_form(rule: str, with_previous: bool, tmp_path: Path) -> None:
    """For every rule the file is that of aggregating in memory, and the coefficients are the same."""
    paths = write_updates(tmp_path, SPEC, 7)
    previous = make_global(SPEC, 1) if with_previous else None
    if previous is not None:
        write_global(tmp_path / "previous", previous, MANIFEST)
    found = merge_files(
        rule, paths, tmp_path / "previous" if previous else None, tmp_path / "streamed", SPEC, MANIFEST, norm_cap=9
    )
    plain = aggregate(rule, {root: open_update(path, SPEC) for root, path in paths.items()}, SPEC, norm_cap=9)
    write_global(tmp_path / "plain", add_to_global(previous, plain.delta) if previous else plain.delta, MANIFEST)
    assert (tmp_path / "streamed").read_bytes() == (tmp_path / "plain").read_bytes()
    assert found == plain.coefficients_ppm


@pytest.mark.parametrize("count", [3, 7])
def test_memory_does_not_grow_with_submissions(count: int, tmp_path: Path) -> None:
    """Beyond one module of each and some int64 blocks, merging holds nothing: far less than an update.

    numpy's arrays are seen by tracemalloc; the plain form, as control, takes several updates.
    """
    paths = write_updates(tmp_path, LARGE, count)
    update_bytes = sum(out * LARGE.rank for _, out, _ in LARGE.shapes)
    modules_bytes = count * update_bytes // len(LARGE.shapes)
    streamed = trace_peak(lambda: merge_files("mean_norm_clip", paths, None, tmp_path / "out", LARGE, MANIFEST))
    assert streamed < modules_bytes + 12 * 8 * BLOCK_VALUES < update_bytes // 2
    plain = trace_peak(lambda: aggregate("mean", {r: open_update(p, LARGE) for r, p in paths.items()}, LARGE))
    assert plain > 3 * update_bytes


def test_inner_products_of_many_updates_are_those_of_pairs() -> None:
    """More columns than one product takes: every pair's factor is found in its place."""
    count = 2 * COLUMNS // SPEC.rank + 3
    updates = [make_update(SPEC, seed, limit=3) for seed in range(count)]
    found = inner_products(updates, SPEC)
    some = np.random.default_rng(1).integers(0, count, (40, 2)).tolist()
    assert all(found[i][j] == found[j][i] == inner(updates[i], updates[j], SPEC) for i, j in some)


def test_full_disk_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With too little room the refusal names both sizes, before a byte is written."""
    paths = write_updates(tmp_path, SPEC, 3)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(OSError, match="are free") as refused:
        merge_files("mean", paths, None, tmp_path / "out", SPEC, MANIFEST)
    assert refused.value.errno == errno.ENOSPC
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("out")]


def test_overflow_leaves_no_file(tmp_path: Path) -> None:
    """A sum that float32 could not hold is refused, and neither the file nor a part of it stays."""
    paths = write_updates(tmp_path, SPEC, 3)
    high = {module: np.full((out, SPEC.rank), GLOBAL_LIMIT - 1, np.int32) for module, out, _ in SPEC.shapes}
    write_global(tmp_path / "high", high, MANIFEST)
    with pytest.raises(OverflowError, match="grid steps"):
        merge_files("mean", paths, tmp_path / "high", tmp_path / "out", SPEC, MANIFEST)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("out")]


def test_file_cut_while_it_is_read(tmp_path: Path) -> None:
    """A file that loses its end after it was opened is Malformed, not a shorter adapter."""
    path = write_updates(tmp_path, SPEC, 1)["00"]
    opened = open_update(path, SPEC)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Malformed, match="truncated"):
        dict(opened)


def test_progress_reaches_its_end(tmp_path: Path) -> None:
    """Progress is told module by module."""
    seen: list[tuple[int, int]] = []
    paths = write_updates(tmp_path, SPEC, 2)
    merge_files("mean", paths, None, tmp_path / "out", SPEC, MANIFEST, progress=lambda *step: seen.append(step))
    assert seen == [(done, len(SPEC.shapes)) for done in range(1, len(SPEC.shapes) + 1)]
    read_global(tmp_path / "out", SPEC)
