"""Global adapters again: from the bytes of the accepted updates to the root that the committee attested.

Needs numpy and no torch. With the base's config.json the coefficients are recomputed too (a norm of BA needs the width
of A); without it the attested coefficients are taken, and that is said.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

from flockchain.chunks import compute_file_root
from flockchain.crypto import format_address
from flockchain.types.rows import Submission, Task, TrainingRound
from flockchain.verify.report import Report
from flockchain.verify.rounds import SettledRound
from ml.adapter import make_global_manifest, make_update_manifest, open_update
from ml.canonical import Malformed, read_header
from ml.merging import merge_files
from ml.spec import AdapterSpec, read_config

FindBlob = Callable[[bytes], Path | None]
"""Root -> a file that has it; None when its bytes are not to be had."""
FindBase = Callable[[str], Path | None]
"""Hex hash of a base -> its folder."""


class AdapterAuditor:
    """Recomputes one settled round after the other, in the order of the chain."""

    def __init__(self, report: Report, find_blob: FindBlob, find_base: FindBase, folder: Path) -> None:
        """`folder` is scratch space: what was recomputed there stands in for bytes that the node does not hold."""
        self.report = report
        self._find_blob = find_blob
        self._find_base = find_base
        self._folder = folder
        self._made: dict[bytes, Path] = {}

    def check_round(self, settled: SettledRound, submissions: Mapping[bytes, Submission]) -> None:
        """Compare a round's candidate with what its accepted updates give. `submissions` by root."""
        task, training_round = settled.task, settled.round
        if not training_round.candidate_root:
            return
        name = f"task {task.id} round {training_round.number}"
        roots = sorted(verdict.root for verdict in training_round.verdicts if verdict.outcome == "accept")
        paths = {root: self._find(root) for root in roots}
        base = self._find(training_round.base_root) if training_round.base_root else None
        missing = [root.hex()[:12] for root, path in paths.items() if path is None]
        if training_round.base_root and base is None:
            missing.append(training_round.base_root.hex()[:12])
        if missing:
            what = f"{name}: the bytes of {', '.join(missing)} are not here, so its global adapter was not recomputed"
            self.report.leave_out(settled.height, what)
            return
        here = {root: path for root, path in paths.items() if path is not None}
        try:
            self._recompute(settled, name, here, base, submissions)
        except (Malformed, OverflowError) as error:
            self.report.problem(settled.height, f"{name}: an accepted adapter cannot be aggregated: {error}")
        except ValueError as error:
            self.report.leave_out(settled.height, f"{name}: its global adapter was not recomputed: {error}")

    def _find(self, root: bytes) -> Path | None:
        return self._made.get(root) or self._find_blob(root)

    def _recompute(
        self,
        settled: SettledRound,
        name: str,
        paths: Mapping[bytes, Path],
        base: Path | None,
        submissions: Mapping[bytes, Submission],
    ) -> None:
        task, training_round = settled.task, settled.round
        bare = make_bare_spec(task)
        folder = self._find_base(bare.base_hash)
        first = next(iter(paths.values()))
        spec = bare.with_shapes(read_config(folder)) if folder else borrow_shapes(bare, first)
        for root, path in paths.items():
            if open_update(path, spec).manifest != expect_manifest(spec, task, training_round, submissions[root]):
                self.report.problem(settled.height, f"{name}: the manifest of {root.hex()[:12]} is not its trainer's")
        recorded = {c.root.hex(): c.ppm for c in training_round.coefficients}
        made = self._folder / f"task{task.id}-round{training_round.number}.safetensors"
        found = merge_files(
            task.spec.model.aggregator,
            {root.hex(): path for root, path in paths.items()},
            base,
            made,
            spec,
            make_global_manifest(spec, task=task.id, round=training_round.number),
            norm_cap=task.spec.model.norm_cap,
            # Norms need the base's shapes: without it, what was attested is taken and said to be.
            coefficients_ppm=None if folder else recorded,
        )
        if not folder:
            what = (
                f"{name}: the base {bare.base_hash[:12]} is not here (--base), so coefficients were taken as attested"
            )
            self.report.leave_out(settled.height, what)
        elif found != recorded:
            self.report.problem(settled.height, f"{name}: the updates give other coefficients than were attested")
        self._compare(settled, name, made)

    def _compare(self, settled: SettledRound, name: str, made: Path) -> None:
        training_round = settled.round
        root, size_bytes = compute_file_root(made)
        self.report.adapters += 1
        if (root, size_bytes) != (training_round.candidate_root, training_round.candidate_size_bytes):
            self.report.problem(
                settled.height,
                f"{name}: the accepted updates give global adapter {root.hex()[:12]} of {size_bytes} bytes, "
                f"{training_round.candidate_root.hex()[:12]} of {training_round.candidate_size_bytes} was attested",
            )
            return
        self._made[root] = made


def make_bare_spec(task: Task) -> AdapterSpec:
    """The task's adapter spec, its shapes not yet known. Raises ValueError for a mode that is not built."""
    model = task.spec.model
    return AdapterSpec(
        model.base_hash.hex(),
        model.rank,
        model.alpha,
        tuple(sorted(model.target_modules)),
        model.mode,
        task.seed,
        model.update_step_log2,
    )


def borrow_shapes(spec: AdapterSpec, path: Path) -> AdapterSpec:
    """Shapes from the tensors of an accepted update; the width of A, which B does not show, stays 0: unknown."""
    entries = read_header(path).tensors
    shapes = tuple((module, entry.shape[0], 0) for module, entry in sorted(entries.items()) if entry.shape)
    return dataclasses.replace(spec, shapes=shapes)


def expect_manifest(spec: AdapterSpec, task: Task, training_round: TrainingRound, row: Submission) -> dict[str, str]:
    """What an accepted update must say of itself."""
    manifest: dict[str, str] = make_update_manifest(
        spec,
        task=task.id,
        round=training_round.number,
        trainer=format_address(row.trainer),
        base_root=row.base_root.hex(),
    )
    return manifest
