"""The cells of `domains`: an update, the next adapter, an arm's losses, and who holds what."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ml.adapter import GlobalAdapter, Update, read_global, write_global, zero_global
from ml.aggregate import add_to_global, aggregate
from ml.baselines import State, flatten, make_baseline
from ml.baselines.grid_rule import from_grid
from ml.constraints import Pull
from ml.data import Document
from ml.domains import ByDomain
from ml.factors import make_global_factors
from ml.figures import BlockLoss
from ml.lab import Json
from ml.lab.cells import Cell, Work
from ml.lab.learners import (
    Data,
    Model,
    deal,
    describe_training,
    keep_update,
    load_update,
    open_model,
    train_on,
)
from ml.lab.measuring import get_test_blocks
from ml.spec import GLOBAL_LIMIT, AdapterSpec

PPM = 1_000_000
LEAST_DOCUMENTS = 16
"""A Dirichlet split that leaves a trainer fewer is drawn again, as is usual (Li et al., arXiv:2102.02079)."""
MOST_DRAWS = 1_000


def train(work: Work) -> Json:
    """One trainer's update of one round."""
    settings = work.settings
    model, held = open_model(settings["model"]), find_held(settings)
    start = read_global(work.file_of(work.cell.needs[0]), model.spec)[0] if work.cell.needs else None
    result = train_on(
        model,
        held,
        settings["seed"],
        settings["number"],
        start=start,
        constraint=Pull(settings["mu"]) if settings["mu"] else None,
        rate_milli=settings["rate_milli"],
    )
    keep_update(work, result.update)
    return describe_training(result)


def combine(work: Work) -> Json:
    """The next global adapter: by a rule in the network's integers, or by a server optimizer of `ml/baselines/`."""
    spec = open_model(work.settings["model"]).spec
    trained, before = split_needs(work)
    previous = read_global(work.file_of(before[0]), spec)[0] if before else zero_global(spec)
    updates = {f"{at:02}": load_update(work, need, spec) for at, need in enumerate(trained)}
    weights_ppm = (
        dict(zip(updates, work.settings["weights_ppm"], strict=True)) if "weights_ppm" in work.settings else {}
    )
    if "server" in work.settings:
        memory = get_memory_file(work.file_of(before[0])) if before else None
        combined = _step_server(work, spec, previous, updates, weights_ppm, memory)
    else:
        options: Json = {"weights_ppm": weights_ppm} if weights_ppm else {}
        combined = add_to_global(previous, aggregate(work.settings["rule"], updates, spec, **options).delta)
    write_global(work.file, combined, {"kind": "global"})
    return {"largest": max(int(np.abs(values).max()) for values in combined.values())}


def _step_server(
    work: Work,
    spec: AdapterSpec,
    previous: GlobalAdapter,
    updates: Mapping[str, Update],
    weights_ppm: Mapping[str, int],
    memory: Path | None,
) -> GlobalAdapter:
    """One step in floats, then rounded to the global grid, 2^8 times finer than an update's; moments are kept beside.

    Raises OverflowError beyond the grid.
    """
    options = dict(work.settings["server"])
    step = 2.0**spec.grid_step_log2
    model = {module: np.asarray(values, np.float64) * step for module, values in sorted(previous.items())}
    baseline = make_baseline(options.pop("name"), **options)
    weights = {root: weight / PPM for root, weight in weights_ppm.items()} or None
    floats = {root: from_grid(update, spec) for root, update in updates.items()}
    state = baseline.step(State(model, _read_memory(memory) if memory else {}), floats, weights=weights)
    if not np.abs(flatten(state.model)).max() < GLOBAL_LIMIT * step:
        raise OverflowError(f"{work.cell.name}: the server's step leaves the grid; choose a lower server_rate")
    moments = {f"{name}:{module}": values for name, held in state.memory.items() for module, values in held.items()}
    np.savez(get_memory_file(work.file), **moments)
    return {module: np.rint(values / step).astype(np.int32) for module, values in state.model.items()}


def get_memory_file(path: Path) -> Path:
    """Beside an adapter's file: what the server optimizer keeps between rounds."""
    return path.with_suffix(".npz")


def _read_memory(path: Path) -> dict[str, dict[str, Any]]:
    memory: dict[str, dict[str, Any]] = {}
    with np.load(path) as kept:
        for key in kept.files:
            name, _, module = key.partition(":")
            memory.setdefault(name, {})[module] = kept[key]
    return memory


def split_needs(work: Work) -> tuple[list[Cell], list[Cell]]:
    """(the updates of a round, the round before)."""
    trained = [need for need in work.cell.needs if need.run.endswith(":train")]
    return trained, [need for need in work.cell.needs if need not in trained]


def measure_arm(work: Work) -> Json:
    """Nats and bytes per document of the test set, so that documents can be drawn again."""
    model: Model = open_model(work.settings["model"])
    adapter = read_global(work.file_of(work.cell.needs[0]), model.spec)[0] if work.cell.needs else None
    blocks = get_test_blocks(work.settings)
    return describe_losses(model.scoring.score_domains(blocks, make_global_factors(adapter, model.spec)))


def describe_losses(losses: Mapping[str, Sequence[BlockLoss]]) -> Json:
    return {
        "documents": {domain: _sum_by_document(found) for domain, found in losses.items()},
        "targets": {domain: sum(loss.targets for loss in found) for domain, found in losses.items()},
    }


def _sum_by_document(losses: Sequence[BlockLoss]) -> list[list[float]]:
    """[nats, bytes] of each document, in the order of their ids."""
    sums: dict[str, list[float]] = {}
    for loss in losses:
        held = sums.setdefault(loss.document, [0.0, 0])
        held[0] += loss.nats
        held[1] += loss.target_bytes
    return [[round(nats, 4), count] for _, (nats, count) in sorted(sums.items())]


# Who holds what


def count_documents(work: Work) -> Json:
    """Documents by trainer's name and domain."""
    settings = work.settings
    data = deal(settings["data"], settings["seed"])
    held = [find_documents(data, at, settings["split"], settings["seed"]) for at in range(data.specialists)]
    counts = [{domain: len(documents) for domain, documents in sorted(own.items())} for own in held]
    return {"holdings": dict(zip(settings["names"], counts, strict=True))}


def find_held(settings: Mapping[str, Any]) -> ByDomain:
    """The documents of a training cell's trainer."""
    data = deal(settings["data"], settings["seed"])
    return find_documents(data, settings["trainer"], settings["split"], settings["seed"])


def find_documents(data: Data, trainer: int, split: Mapping[str, Any], seed: int) -> ByDomain:
    """A trainer's documents; -1 is the pooled one, who holds everybody's.

    Split `domain`: one domain each. Split `dirichlet`: of every domain the trainers' shares are drawn from
    Dirichlet(alpha), Hsu et al., arXiv:1909.06335.
    """
    held = [data.get_specialist(number) for number in range(data.specialists)]
    pool = {domain: [document for part in held for document in part.get(domain, [])] for domain in data.domains}
    if trainer < 0:
        return pool
    if split["kind"] == "domain":
        return held[trainer]
    assert split["kind"] == "dirichlet", split["kind"]
    return _deal_dirichlet(pool, data.specialists, split["alpha_milli"] / 1_000, seed)[trainer]


def _deal_dirichlet(pool: ByDomain, trainers: int, alpha: float, seed: int) -> list[ByDomain]:
    random = np.random.Generator(np.random.Philox(seed))
    for _ in range(MOST_DRAWS):
        dealt: list[ByDomain] = [{} for _ in range(trainers)]
        for domain, documents in sorted(pool.items()):
            shares = random.dirichlet([alpha] * trainers)
            ends = np.rint(shares.cumsum() * len(documents)).astype(int)
            starts = [0, *ends[:-1]]
            for trainer, (start, end) in enumerate(zip(starts, ends, strict=True)):
                found: list[Document] = documents[start:end]
                if found:
                    dealt[trainer][domain] = found
        if min(sum(map(len, own.values())) for own in dealt) >= LEAST_DOCUMENTS:
            return dealt
    raise ValueError(f"no Dirichlet({alpha}) split of seed {seed} leaves each of {trainers} trainers enough documents")
