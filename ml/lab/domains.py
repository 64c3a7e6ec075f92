"""Domains: does the global adapter serve every domain as well as the specialist that trained on it alone?

Arms are sets of trainers that share an adapter over rounds: all of them under a rule (`global`, `fedavg`), one of them
(`local-<trainer>`), or one that holds everybody's documents (`pooled`). Alone and pooled run at both budgets: as many
steps as one trainer took (equal own data), and as many as all took together (equal compute, `-long`).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ml.adapter import Update, read_global, write_global, zero_global
from ml.aggregate import add_to_global, aggregate
from ml.data import Document
from ml.domains import DOMAINS, ByDomain
from ml.factors import make_global_factors
from ml.figures import BlockLoss
from ml.lab import Json
from ml.lab.cells import Cell, Work
from ml.lab.domains_report import plot as plot
from ml.lab.domains_report import report as report
from ml.lab.domains_report import summarize as summarize
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
from ml.lab.settings import Settings

HERE = "ml.lab.domains"
POOLED = "pooled"
NUMBERS_PER_ROUND = 16
"""Batch seeds of one round: more than there are trainers."""


def plan(settings: Settings) -> list[Cell]:
    """One measurement per seed and arm."""
    return [cell for seed in settings.seeds for cell in _plan_seed(settings, seed)]


def name_trainers(count: int) -> list[str]:
    """Specialist i holds domain i under the split by domain."""
    return [f"{DOMAINS[i % len(DOMAINS)]}{'' if i < len(DOMAINS) else i // len(DOMAINS)}" for i in range(count)]


def _plan_seed(settings: Settings, seed: int) -> Iterator[Cell]:
    count, rounds = settings["trainers"], settings["rounds"]
    names = name_trainers(count)
    everyone = list(range(count))
    arms: list[tuple[str, list[int], str, int]] = [("base", [], "mean", 0)]
    arms += [(arm["name"], everyone, arm["rule"], arm.get("rounds", rounds)) for arm in settings["global_arms"]]
    for members, name in [*(([i], f"local-{names[i]}") for i in everyone), ([-1], POOLED)]:
        arms += [(name, members, "mean", rounds), (f"{name}-long", members, "mean", rounds * count)]
    for name, members, rule, length in arms:
        yield _plan_measurement(settings, seed, name, members, rule, length)


def _plan_measurement(settings: Settings, seed: int, name: str, members: Sequence[int], rule: str, rounds: int) -> Cell:
    facts = _get_common(settings, seed) | {"test": settings["test"]}
    needs = (_plan_round(settings, seed, members, rule, rounds),) if rounds else ()
    return Cell(f"{name}/seed{seed}", f"{HERE}:measure_arm", facts, needs)


def _get_common(settings: Settings, seed: int) -> Json:
    return {"model": settings["model"], "data": settings["data"], "split": settings["split"], "seed": seed}


def _plan_round(settings: Settings, seed: int, members: Sequence[int], rule: str, number: int) -> Cell:
    """The global adapter after a round, from the one before and its members' updates."""
    before = (_plan_round(settings, seed, members, rule, number - 1),) if number > 1 else ()
    trained = tuple(_plan_training(settings, seed, member, number, before) for member in members)
    facts = _get_common(settings, seed) | {"rule": rule}
    return Cell(f"round/seed{seed}/{rule}/{members}/{number}", f"{HERE}:combine", facts, (*before, *trained))


def _plan_training(settings: Settings, seed: int, member: int, number: int, before: tuple[Cell, ...]) -> Cell:
    facts = _get_common(settings, seed) | {"trainer": member, "round": number}
    return Cell(f"train/seed{seed}/{member}/{number}", f"{HERE}:train", facts, before)


# Cells


def train(work: Work) -> Json:
    """One trainer's update of one round."""
    settings = work.settings
    model, data = open_model(settings["model"]), deal(settings["data"], settings["seed"])
    held = find_documents(data, settings["trainer"], settings["split"], settings["seed"])
    start = read_global(work.file_of(work.cell.needs[0]), model.spec)[0] if work.cell.needs else None
    number = settings["round"] * NUMBERS_PER_ROUND + settings["trainer"] + 1
    result = train_on(model, held, settings["seed"], number, start=start)
    keep_update(work, result.update)
    return describe_training(result)


def combine(work: Work) -> Json:
    """The next global adapter, in the network's integers."""
    model = open_model(work.settings["model"])
    trained = [need for need in work.cell.needs if need.run == f"{HERE}:train"]
    before = [need for need in work.cell.needs if need.run == f"{HERE}:combine"]
    previous = read_global(work.file_of(before[0]), model.spec)[0] if before else zero_global(model.spec)
    updates: Mapping[str, Update] = {f"{at:02}": load_update(work, need, model.spec) for at, need in enumerate(trained)}
    combined = aggregate(work.settings["rule"], updates, model.spec)
    write_global(work.file, add_to_global(previous, combined.delta), {"kind": "global"})
    return {"coefficients_ppm": list(combined.coefficients_ppm.values())}


def measure_arm(work: Work) -> Json:
    """Nats and bytes per document of the test set, so that documents can be drawn again."""
    settings = work.settings
    model: Model = open_model(settings["model"])
    adapter = read_global(work.file_of(work.cell.needs[0]), model.spec)[0] if work.cell.needs else None
    losses = model.scoring.score_domains(get_test_blocks(settings), make_global_factors(adapter, model.spec))
    return {"documents": {domain: _sum_by_document(found) for domain, found in losses.items()}}


def _sum_by_document(losses: Sequence[BlockLoss]) -> list[list[float]]:
    """[nats, bytes] of each document, in the order of their ids."""
    sums: dict[str, list[float]] = {}
    for loss in losses:
        held = sums.setdefault(loss.document, [0.0, 0])
        held[0] += loss.nats
        held[1] += loss.target_bytes
    return [[round(nats, 4), count] for _, (nats, count) in sorted(sums.items())]


def find_documents(data: Data, trainer: int, split: Mapping[str, Any], seed: int) -> ByDomain:
    """A trainer's documents; -1 is the pooled one, who holds everybody's.

    Split `domain`: one domain each. Split `dirichlet`: of every domain the trainers' shares are drawn from
    Dirichlet(alpha), Hsu et al., arXiv:1909.06335.
    """
    held = [data.get_specialist(number) for number in range(data.specialists)]
    pool = {domain: [document for part in held for document in part.get(domain, [])] for domain in DOMAINS}
    if trainer < 0:
        return pool
    if split["kind"] == "domain":
        return held[trainer]
    assert split["kind"] == "dirichlet", split["kind"]
    return _deal_dirichlet(pool, data.specialists, split["alpha_milli"] / 1_000, seed)[trainer]


def _deal_dirichlet(pool: ByDomain, trainers: int, alpha: float, seed: int) -> list[ByDomain]:
    random = np.random.Generator(np.random.Philox(seed))
    dealt: list[ByDomain] = [{} for _ in range(trainers)]
    for domain, documents in sorted(pool.items()):
        shares = random.dirichlet([alpha] * trainers)
        ends = np.rint(shares.cumsum() * len(documents)).astype(int)
        starts = [0, *ends[:-1]]
        for trainer, (start, end) in enumerate(zip(starts, ends, strict=True)):
            found: list[Document] = documents[start:end]
            if found:
                dealt[trainer][domain] = found
    return dealt
