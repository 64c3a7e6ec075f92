"""The cells of an arm of `domains` in another LoRA mode than the network's (ml/modes/): both factors, in floats."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ml.lab import Json
from ml.lab.cells import Work
from ml.lab.domains_cells import describe_losses, find_held, split_needs
from ml.lab.learners import cut_all, open_model
from ml.lab.measuring import get_test_blocks
from ml.modes import get_mode
from ml.modes.training import train_pairs
from ml.products import Pair, Pairs, make_first_pairs
from ml.spec import AdapterSpec


def train(work: Work) -> Json:
    """One trainer's factors of one round."""
    settings = work.settings
    model = open_model(settings["model"])
    pairs = read_pairs(work.file_of(work.cell.needs[0])) if work.cell.needs else make_first_pairs(model.spec)
    trained = get_mode(settings["mode"]).get_trained(settings["round"] - 1)
    train_spec = model.make_train_spec(settings["seed"], settings["number"], settings["rate_milli"])
    found, losses = train_pairs(model.base, model.spec, train_spec, cut_all(model, find_held(settings)), pairs, trained)
    write_pairs(work.file, found)
    return {"loss_first_step_nats": round(losses[0], 5), "loss_last_step_nats": round(losses[-1], 5)}


def combine(work: Work) -> Json:
    """The next global adapter, as the mode merges."""
    spec, settings = open_model(work.settings["model"]).spec, work.settings
    trained, before = split_needs(work)
    previous = read_pairs(work.file_of(before[0])) if before else make_first_pairs(spec)
    after = {f"{at:02}": read_pairs(work.file_of(need)) for at, need in enumerate(trained)}
    merged = get_mode(settings["mode"]).merge(previous, after, settings["round"] - 1)
    write_pairs(work.file, merged)
    return {"rank": max(pair.b.shape[1] for pair in merged.values())}


def measure_arm(work: Work) -> Json:
    """As `domains_cells.measure_arm`."""
    model = open_model(work.settings["model"])
    with carrying(model.scoring.model, read_pairs(work.file_of(work.cell.needs[0])), model.spec):
        return describe_losses(model.scoring.score_domains(get_test_blocks(work.settings), None))


@contextmanager
def carrying(model: Any, pairs: Pairs, spec: AdapterSpec) -> Iterator[None]:
    """While the block runs, the weights carry `scale * B A`, A being the adapter's own."""
    before = {module: model.get_submodule(module).weight.clone() for module in pairs}
    try:
        for module, pair in pairs.items():
            change = torch.from_numpy((spec.scale * pair.b @ pair.a).astype(np.float32))
            model.get_submodule(module).weight.copy_(before[module].float() + change)
        yield
    finally:
        for module, weight in before.items():
            model.get_submodule(module).weight.copy_(weight)


def write_pairs(path: Path, pairs: Mapping[str, Pair]) -> None:
    with path.open("wb") as file:
        np.savez(file, **{f"{kind}:{m}": getattr(pair, kind) for m, pair in pairs.items() for kind in ("a", "b")})


def read_pairs(path: Path) -> dict[str, Pair]:
    with np.load(path) as kept:
        modules = sorted({key.partition(":")[2] for key in kept.files})
        return {module: Pair(kept[f"b:{module}"], kept[f"a:{module}"]) for module in modules}
