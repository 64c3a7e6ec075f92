"""What learning cells share: the base with its adapter spec, the data of a seed, and an update's training.

A process keeps the newest model and the newest data; cells name both by their settings.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ml.adapter import Update, read_update, write_update
from ml.base import base_hash, load_base, load_tokenizer, make_once, prepare_base
from ml.canonical import Array
from ml.data import Block, Document, Holdout, make_blocks
from ml.domains import DOMAINS, ByDomain, Shards, deal_shards, read_domain
from ml.lab import Json
from ml.lab.cells import Cell, Work
from ml.score import ScoringBase, count_token_bytes
from ml.spec import AdapterSpec, TrainSpec, make_spec
from ml.train import compute_update_step_log2, train_update

A_SEED = b"flockchain lab"
SEEDS_PER_SEED = 1_000
"""Trainers of one seed draw their batches with seeds from one range of this length."""
PRETRAINED = "pretrained-tiny"
PRETRAINING = TrainSpec(local_steps=200, batch_size=8, sequence_length=64, learning_rate=3e-3, seed=5)
PRETRAINING_DOCUMENTS = 24


@dataclass(frozen=True, eq=False)
class Model:
    """A base folder and the task's adapter on it; models are loaded at first use."""

    folder: Path
    spec: AdapterSpec
    settings: Json
    _cut: dict[tuple[str, int], list[Block]] = field(default_factory=dict)
    """By document and block length: a process cuts the same shipped documents for every cell."""

    def make_train_spec(self, seed: int, number: int, rate_milli: int = 1_000) -> TrainSpec:
        """Of one trainer, by its number in the seed, at `rate_milli` thousandths of the learning rate."""
        return TrainSpec(
            local_steps=self.settings["local_steps"],
            batch_size=self.settings["batch_size"],
            sequence_length=self.settings["sequence_length"],
            learning_rate=self.settings["learning_rate_ppm"] * rate_milli / 1_000_000_000,
            seed=seed * SEEDS_PER_SEED + number,
        )

    @cached_property
    def tokenizer(self) -> Any:
        return load_tokenizer(str(self.folder))

    @cached_property
    def base(self) -> Any:
        """For training."""
        return load_base(str(self.folder), self.settings["precision"])

    @cached_property
    def scoring(self) -> ScoringBase:
        """For judging and measuring, on weights of its own."""
        model = load_base(str(self.folder), self.settings["precision"])
        return ScoringBase(model, count_token_bytes(self.tokenizer), self.spec)

    def cut(self, documents: Sequence[Document], block_tokens: int) -> list[Block]:
        found = []
        for document in documents:
            key = document.id, block_tokens
            if key not in self._cut:
                self._cut[key] = make_blocks([document], self.tokenizer, block_tokens)
            found += self._cut[key]
        return found


def open_model(settings: Mapping[str, Any]) -> Model:
    """The model of a cell's `model` settings, kept for the next cell of this process."""
    return _open_model(json.dumps(settings, sort_keys=True))


@lru_cache(maxsize=1)
def _open_model(text: str) -> Model:
    settings = json.loads(text)
    folder = prepare(settings["base"])
    spec = make_spec(
        folder,
        base_hash(folder),
        rank=settings["rank"],
        alpha=settings["alpha"],
        target_modules=settings["target_modules"],
        a_seed=A_SEED,
        update_step_log2=compute_update_step_log2(settings["local_steps"], settings["learning_rate_ppm"] / 1_000_000),
    )
    return Model(folder, spec, settings)


def prepare(ref: str) -> Path:
    """The base's folder; `pretrained-tiny` is the tiny base after seconds of full training on the shipped texts."""
    if ref != PRETRAINED:
        return prepare_base(ref)
    from ml.tiny import pretrain_tiny, write_tiny

    def make(folder: Path) -> None:
        write_tiny(folder)
        tokenizer = load_tokenizer(str(folder))
        documents = [document for domain in DOMAINS for document in read_domain(domain)[:PRETRAINING_DOCUMENTS]]
        pretrain_tiny(folder, make_blocks(documents, tokenizer, PRETRAINING.sequence_length), PRETRAINING)

    return make_once(PRETRAINED, make)


@dataclass(frozen=True)
class Data:
    """Who holds which documents under one seed: `deal_shards` deals them, no document is held twice."""

    shards: Shards
    specialists: int
    domains: tuple[str, ...]
    """Those that are trained on."""

    def get_specialist(self, number: int) -> ByDomain:
        """Documents of one domain."""
        assert number < self.specialists
        return self.shards.trainers[number]

    def get_generalist(self, number: int) -> ByDomain:
        """Documents of all domains."""
        return self.shards.trainers[self.specialists + number]


def deal(settings: Mapping[str, Any], seed: int) -> Data:
    """The data of a cell's `data` settings under a seed, kept for the next cell of this process.

    Where the settings name no `domains` they are the demo's, and none is `held_out`.
    """
    return _deal(json.dumps(settings, sort_keys=True), seed)


@lru_cache(maxsize=4)
def _deal(text: str, seed: int) -> Data:
    settings = json.loads(text)
    domains = tuple(settings.get("domains", DOMAINS))
    shards = deal_shards(
        seed,
        settings["specialists"],
        settings["judges"],
        domains=domains,
        held_out=settings.get("held_out", ()),
        generalists=settings["generalists"],
        judge_documents=settings["judge_documents"],
        test_documents=settings["test_documents"],
    )
    return Data(shards, settings["specialists"], domains)


def cut_by_domain(
    model: Model, held: ByDomain, block_tokens: int, count: int = 0, *, round_number: int = 1
) -> dict[str, list[Block]]:
    """Blocks by domain, at most `count` of each (0: all), every document's first before any second."""
    cut = {domain: model.cut(documents, block_tokens) for domain, documents in sorted(held.items())}
    if not count:
        return cut
    holdout, beacon = Holdout(cut), b"flockchain lab" + (b" %d" % round_number if round_number > 1 else b"")
    return {domain: holdout.draw(domain, beacon, count) for domain in cut}


def cut_all(model: Model, held: ByDomain) -> list[Block]:
    """A trainer's blocks, of all its domains."""
    found = cut_by_domain(model, held, model.settings["sequence_length"])
    return [block for blocks in found.values() for block in blocks]


def train_on(
    model: Model,
    held: ByDomain,
    seed: int,
    number: int,
    start: Any = None,
    constraint: Any = None,
    rate_milli: int = 1_000,
) -> Any:
    """The `TrainResult` of an honest trainer on its documents, at `rate_milli` thousandths of the learning rate."""
    train_spec = model.make_train_spec(seed, number, rate_milli)
    return train_update(model.base, model.spec, train_spec, cut_all(model, held), start, constraint=constraint)


def keep_update(work: Work, update: Update) -> None:
    """As this cell's file, in the form in which the network stores it, without an author."""
    write_update(work.file, update, {"kind": "update"})


def load_update(work: Work, need: Cell, spec: AdapterSpec) -> Update:
    update, _ = read_update(work.file_of(need), spec)
    return {module: np.array(values) for module, values in update.items()}


def describe_training(result: Any) -> Json:
    return {
        "loss_before_nats": round(result.loss_before, 5),
        "loss_after_nats": round(result.loss_after, 5),
        "saturated": result.saturated,
        "tokens_per_s": round(result.tokens_per_s),
    }


def to_factors(values: Mapping[str, Array]) -> dict[str, Array]:
    return {module: np.asarray(array, np.float32) for module, array in sorted(values.items())}
