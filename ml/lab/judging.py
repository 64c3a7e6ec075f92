"""A judge of an experiment: the network's judging of a round's files on a private holdout, and of the candidate."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from flockchain.chunks import compute_file_root
from flockchain.crypto import format_address, sha256
from flockchain.types.task import AdapterFigures, CandidateFigure, Screen
from flockchain.workers.attester import encode_candidate_figure, encode_screens
from flockchain.workers.view import make_judge_spec
from flockchain.workers.voter import encode_figures
from ml.adapter import (
    GlobalAdapter,
    Update,
    make_global_manifest,
    make_update_manifest,
    write_global,
    write_update,
)
from ml.judge import HoldoutMeter, Submission, judge_round
from ml.lab import Json
from ml.lab.learners import Data, Model, cut_by_domain
from ml.lab.standing import FIRST, Standing

TASK, ROUND = 1, 1


def write_submissions(folder: Path, model: Model, updates: Mapping[str, Update]) -> dict[str, Submission]:
    """The files that the trainers would upload, by name in the order of names: that of submission."""
    written = {}
    for name, update in sorted(updates.items()):
        trainer = format_address(sha256(name.encode())[:20])
        manifest = make_update_manifest(model.spec, task=TASK, round=ROUND, trainer=trainer, base_root="")
        path = folder / f"{name}.safetensors"
        write_update(path, update, manifest)
        written[name] = Submission(compute_file_root(path)[0].hex(), path, manifest)
    return written


def make_meter(
    model: Model,
    data: Data,
    judge: Mapping[str, Any],
    task: Json,
    number: int,
    standing: Standing = FIRST,
) -> HoldoutMeter:
    """What judge `number` measures with: its private documents, cut and drawn as a committed holdout is, in every round
    others of its blocks.
    """
    held = cut_by_domain(
        model, data.shards.judges[number], judge["block_tokens"], judge["blocks"], round_number=standing.number
    )
    return HoldoutMeter(
        model.scoring,
        make_judge_spec(task),
        held,
        current=standing.current,
        best=standing.best,
        decode=model.tokenizer.decode,
    )


def judge_updates(
    meter: HoldoutMeter, model: Model, task: Json, updates: Mapping[str, Update]
) -> dict[str, AdapterFigures]:
    """One judge's entries on the round's updates, by trainer, as they would stand on its ballot."""
    spec = task["spec"]
    with tempfile.TemporaryDirectory() as folder:
        written = write_submissions(Path(folder), model, updates)
        report = judge_round(
            meter,
            model.spec,
            list(written.values()),
            max_bytes=spec["max_adapter_bytes"],
            norm_cap=spec["model"]["norm_cap"],
            copy_cosine_ppm=spec["judge"]["copy_cosine_ppm"],
        )
    by_root = {entry.root: encode_figures(entry, spec["domains"], task) for entry in report.figures}
    return {name: by_root[submission.root] for name, submission in written.items()}


def judge_candidate(
    meter: HoldoutMeter, model: Model, domains: Sequence[str], adapter: GlobalAdapter
) -> tuple[tuple[CandidateFigure, ...], tuple[Screen, ...]]:
    """One judge's figures and screens of a candidate."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "candidate.safetensors"
        write_global(path, adapter, make_global_manifest(model.spec, task=TASK, round=ROUND))
        figures = [encode_candidate_figure(figure, domains) for figure in meter.judge_candidate(path)]
        screened = meter.screen_candidate(path)
    return tuple(sorted(figures, key=lambda figure: figure.domain)), encode_screens(screened.screenings)


def to_json(value: Any) -> Any:
    """Structs of the chain as JSON values, bytes as base64."""
    return msgspec.to_builtins(value)


def from_json(value: Any, type_: Any) -> Any:
    """The inverse of `to_json`."""
    return msgspec.convert(value, type_, strict=False)
