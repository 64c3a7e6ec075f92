"""Cells of `privacy`: training under an arm, the rounds' aggregation, and what an attacker measures of a victim."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ml.adapter import Update, read_global, write_global, zero_global
from ml.aggregate import add_to_global, aggregate
from ml.canonical import Array
from ml.data import Block, Document
from ml.factors import make_factors, make_global_factors
from ml.figures import PPM, BlockLoss, compute_bits_per_byte, compute_change
from ml.lab import Json
from ml.lab.cells import Work
from ml.lab.learners import Model, cut_all, deal, keep_update, load_update, open_model
from ml.lab.measuring import get_test_blocks
from ml.privacy import Privacy, Spend, choose_noise, compute_epsilon, compute_rate, group_samples
from ml.spec import JudgeSpec, TrainSpec
from ml.train import train_update

RULE = "mean_norm_clip"
NUMBERS_PER_ROUND = 16
"""Batch seeds of one round: more than there are trainers."""
CANARY_TOKENS = 24
ANY_HOLDOUT = JudgeSpec(min_blocks=2, min_documents=2)
"""Figures of small holdouts too."""


def train(work: Work) -> Json:
    """One trainer's update of one round; the noise is chosen for all rounds."""
    settings = work.settings
    model, number = open_model(settings["model"]), settings["round"]
    held = deal(settings["data"], settings["seed"]).get_specialist(settings["trainer"])
    start = read_global(work.file_of(work.cell.needs[0]), model.spec)[0] if work.cell.needs else None
    train_spec = model.make_train_spec(settings["seed"], number * NUMBERS_PER_ROUND + settings["trainer"])
    result, facts = _train(settings, model, train_spec, cut_all(model, held), start, f"{settings['trainer']} {number}")
    keep_update(work, result)
    return facts


def combine(work: Work) -> Json:
    """The next global adapter, in the network's integers."""
    model = open_model(work.settings["model"])
    before = [need for need in work.cell.needs if need.run == work.cell.run]
    trained = [need for need in work.cell.needs if need.run != work.cell.run]
    previous = read_global(work.file_of(before[0]), model.spec)[0] if before else zero_global(model.spec)
    updates: Mapping[str, Update] = {f"{at:02}": load_update(work, need, model.spec) for at, need in enumerate(trained)}
    write_global(work.file, add_to_global(previous, aggregate(RULE, updates, model.spec).delta), {"kind": "global"})
    told = [work.result(need) for need in trained]
    return {name: [one[name] for one in told] for name in told[0]}


def measure(work: Work) -> Json:
    """Bits per byte by domain, of the last round's adapter or the base; epsilon of all rounds, the worst trainer's."""
    settings = work.settings
    model = open_model(settings["model"])
    adapter = read_global(work.file_of(work.cell.needs[0]), model.spec)[0] if work.cell.needs else None
    losses = model.scoring.score_domains(get_test_blocks(settings), make_global_factors(adapter, model.spec))
    found: Json = {"loss": {domain: round(compute_bits_per_byte(of), 6) for domain, of in losses.items()}}
    told = work.results()[0] if work.cell.needs else {"noise_multiplier": [None]}
    if told["noise_multiplier"][0]:
        steps = settings["model"]["local_steps"] * settings["rounds"]
        spends = [
            Spend("", noise, rate, steps) for noise, rate in zip(told["noise_multiplier"], told["rate"], strict=True)
        ]
        delta = settings["promise"]["delta_ppb"] / 1e9
        found["epsilon"] = max(round(compute_epsilon([spend], delta), 3) for spend in spends)
        found |= {"noise_multiplier": told["noise_multiplier"], "samples": told["samples"]}
    return found


def attack(work: Work) -> Json:
    """A victim trained for one round on half of a specialist's documents and canaries; nats per target of everything
    that an attacker may ask about: under the base, under its update alone, and under the global adapter."""
    settings, leak = work.settings, work.settings["leak"]
    model = open_model(settings["model"])
    pool, holdout = _choose_documents(settings, model)
    members = _choose_half(settings, len(pool))
    own = [block for blocks, is_member in zip(pool, members, strict=True) if is_member for block in blocks]
    canaries = _make_canaries(settings, model)
    own += [
        Block(f"canary {at} {copy}", tokens) for at, (tokens, copies) in enumerate(canaries) for copy in range(copies)
    ]
    train_spec = model.make_train_spec(settings["seed"], leak["specialist"] + NUMBERS_PER_ROUND * settings["victim"])
    update, facts = _train(settings, model, train_spec, own, None, f"victim {settings['victim']}")
    others = {f"{at:02}": load_update(work, need, model.spec) for at, need in enumerate(work.cell.needs)}
    merged = aggregate(RULE, {**others, "victim": update}, model.spec).delta
    views = {
        "base": None,
        "update": make_factors(None, update, PPM, 1, model.spec),
        "merged": make_global_factors(add_to_global(zero_global(model.spec), merged), model.spec),
    }
    found: Json = {"members": [int(flag) for flag in members], "losses": {}, "canaries": {}, **facts}
    for view, factors in views.items():
        found["losses"][view] = _score(model, pool, factors)
        found["canaries"][view] = _score_canaries(settings, model, canaries, factors)
    return found | _measure_figures(settings, model, holdout, views["update"])


def _train(
    settings: Mapping[str, Any],
    model: Model,
    train_spec: TrainSpec,
    blocks: Sequence[Block],
    start: Any,
    name: str,
) -> tuple[Update, Json]:
    """As a trainer of the network would under the arm's promise, or without one; the secret follows from the seed."""
    arm = settings["arm"]
    unit = arm.get("unit", "document")
    facts: Json = {"noise_multiplier": 0.0, "samples": len(group_samples(blocks, unit))}
    facts["rate"] = compute_rate(facts["samples"], train_spec.batch_size)
    privacy = None
    if arm.get("epsilon"):
        promise, steps = settings["promise"], train_spec.local_steps * settings["rounds"]
        noise = choose_noise(arm["epsilon"], promise["delta_ppb"] / 1e9, rate=facts["rate"], steps=steps)
        facts["noise_multiplier"] = noise
        secret = hashlib.sha256(f"flockchain lab {settings['seed']} {arm['name']} {name}".encode()).digest()
        privacy = Privacy(noise, secret, promise["clip_milli"] / 1_000, unit)
    result = train_update(model.base, model.spec, train_spec, blocks, start, privacy=privacy)
    return result.update, facts | {"saturated": result.saturated}


def _choose_documents(settings: Mapping[str, Any], model: Model) -> tuple[list[list[Block]], list[list[Block]]]:
    """(the specialist's documents in question, a judge's of that domain), each as its first blocks."""
    leak, data = settings["leak"], deal(settings["data"], settings["seed"])
    length = model.settings["sequence_length"]
    ((domain, documents),) = data.get_specialist(leak["specialist"]).items()

    def cut(found: Sequence[Document], count: int) -> list[list[Block]]:
        return group_samples(
            [block for document in found[:count] for block in model.cut([document], length)[: leak["blocks"]]],
            "document",
        )

    return cut(documents, leak["documents"]), cut(data.shards.judges[0][domain], settings["data"]["judge_documents"])


def _choose_half(settings: Mapping[str, Any], count: int) -> list[bool]:
    """Of this victim; the same under every arm."""
    random = np.random.Generator(np.random.Philox([settings["seed"], settings["victim"]]))
    chosen = set(random.permutation(count)[: count // 2].tolist())
    return [at in chosen for at in range(count)]


def _make_canaries(settings: Mapping[str, Any], model: Model) -> list[tuple[tuple[int, ...], int]]:
    """(tokens drawn alike from the vocabulary, copies) of this victim's canaries; each copy is a document."""
    random = np.random.Generator(np.random.Philox([settings["seed"], settings["victim"], 1]))
    vocabulary = model.base.config.vocab_size
    return [(tuple(random.integers(vocabulary, size=CANARY_TOKENS).tolist()), n) for n in settings["leak"]["copies"]]


def _score(model: Model, documents: Sequence[Sequence[Block]], factors: Mapping[str, Array] | None) -> list[float]:
    """Mean nats per target of each document."""
    losses = model.scoring.score([block for blocks in documents for block in blocks], factors)
    sums: dict[str, list[BlockLoss]] = {}
    for loss in losses:
        sums.setdefault(loss.document, []).append(loss)
    return [round(sum(one.nats for one in of) / sum(one.targets for one in of), 6) for of in sums.values()]


def _score_canaries(
    settings: Mapping[str, Any],
    model: Model,
    canaries: Sequence[tuple[tuple[int, ...], int]],
    factors: Mapping[str, Array] | None,
) -> list[list[float]]:
    """Of each canary: its nats, then those of sequences drawn like it that nobody trained on."""
    random = np.random.Generator(np.random.Philox([settings["seed"], settings["victim"], 2]))
    shape = (settings["leak"]["candidates"], CANARY_TOKENS)
    others = [tuple(row) for row in random.integers(model.base.config.vocab_size, size=shape).tolist()]
    blocks = [Block(str(at), tokens) for at, tokens in enumerate([*(tokens for tokens, _ in canaries), *others])]
    nats = [round(loss.nats, 4) for loss in model.scoring.score(blocks, factors)]
    return [[nats[at], *nats[len(canaries) :]] for at in range(len(canaries))]


def _measure_figures(
    settings: Mapping[str, Any], model: Model, documents: Sequence[Sequence[Block]], factors: Mapping[str, Array] | None
) -> Json:
    """Relative change of each of a judge's documents, and of a holdout that is the first half of them: exact, and as it
    would be published."""
    blocks = [block for of in documents for block in of]
    after, before = model.scoring.score(blocks, factors), model.scoring.score(blocks, None)
    changes = []
    for of in documents:
        pairs = [pair for pair in zip(after, before, strict=True) if pair[0].document == of[0].document]
        changes.append(round(sum(new.nats for new, _ in pairs) / sum(old.nats for _, old in pairs) - 1, 7))
    held = {of[0].document for of in documents[: len(documents) // 2]}
    kept = [pair for pair in zip(after, before, strict=True) if pair[0].document in held]
    told = compute_change([new for new, _ in kept], [old for _, old in kept], ANY_HOLDOUT)
    assert told is not None
    exact = sum(new.nats for new, _ in kept) / sum(old.nats for _, old in kept) - 1
    return {"changes": changes, "exact": round(exact, 9), "published": told.change_ppm / PPM, "held": len(held)}
