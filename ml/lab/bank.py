"""A bank of measured adapters: trained and judged once for real, then drawn from by experiments on the ledger.

Every adapter starts from a global adapter that was trained on all domains for some rounds, as in the middle of a task:
from the bare base everything helps everywhere. It is measured against that one at its strength of use, block by block,
on one pool of documents that no trainer saw. A judge
of an experiment holds some of these documents, so its figures come from the same `compute_change` as a real judge's.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from ml.adapter import GlobalAdapter
from ml.data import Block, make_blocks
from ml.domains import DOMAINS, ByDomain, demo_shards
from ml.figures import BlockLoss, Change, compute_change
from ml.lab import Json
from ml.lab.cells import Cell, Work
from ml.lab.settings import Settings
from ml.spec import JudgeSpec, TrainSpec

HONEST = "honest"


@dataclass(frozen=True)
class MeasuredAdapter:
    """One real adapter: who made it how, and its loss on every block of the pool."""

    author: str
    """`honest/DOMAIN`, or the name of an attack."""
    number: int
    losses: Mapping[str, tuple[BlockLoss, ...]]
    """By domain."""

    @property
    def is_honest(self) -> bool:
        return self.author.startswith(HONEST)


@dataclass(frozen=True)
class Bank:
    adapters: tuple[MeasuredAdapter, ...]
    reference: Mapping[str, tuple[BlockLoss, ...]]
    """The global adapter's losses on the same blocks, by domain."""

    @property
    def domains(self) -> tuple[str, ...]:
        return tuple(sorted(self.reference))

    @cached_property
    def blocks_by_document(self) -> dict[str, dict[str, list[int]]]:
        """Indexes of the pool's blocks, by domain and document."""
        found: dict[str, dict[str, list[int]]] = {}
        for domain, losses in self.reference.items():
            for index, loss in enumerate(losses):
                found.setdefault(domain, {}).setdefault(loss.document, []).append(index)
        return found

    def find(self, author: str) -> list[MeasuredAdapter]:
        """Adapters whose author's name begins so."""
        return [adapter for adapter in self.adapters if adapter.author.startswith(author)]


class Holder:
    """A judge with documents of the pool, drawn once; figures are computed once each."""

    def __init__(self, bank: Bank, spec: JudgeSpec, documents: int, rng: random.Random) -> None:
        """`documents` of each domain, without replacement; refused where the pool holds fewer."""
        self.bank, self.spec = bank, spec
        self.held = {domain: rng.sample(sorted(bank.blocks_by_document[domain]), documents) for domain in bank.domains}
        self._known: dict[tuple[str, int, str, int], Change | None] = {}

    def measure(self, adapter: MeasuredAdapter, domain: str, documents: int | None = None) -> Change | None:
        """Its figure on one domain, from its first `documents` documents (None: all); None where they are too few."""
        count = len(self.held[domain]) if documents is None else documents
        key = (adapter.author, adapter.number, domain, count)
        if key not in self._known:
            held = self.held[domain][:count]
            chosen = sorted(i for document in held for i in self.bank.blocks_by_document[domain][document])
            new, old = adapter.losses[domain], self.bank.reference[domain]
            self._known[key] = compute_change([new[i] for i in chosen], [old[i] for i in chosen], self.spec)
        return self._known[key]


def plan_bank(settings: Settings) -> list[Cell]:
    """One cell per kind of author, and one for the losses of the global adapter from which all start."""
    common = dict(settings["bank"])
    authors = {**{f"{HONEST}/{domain}": common["honest"] for domain in common["domains"]}}
    authors |= dict.fromkeys(common["attacks"], common["malicious"])
    shared = {name: value for name, value in common.items() if name not in ("honest", "malicious", "attacks")}
    return [
        Cell(f"bank/{author}", "ml.lab.bank:measure_author", {**shared, "author": author, "count": count})
        for author, count in {"reference": 0, **authors}.items()
    ]


def read_bank(cells: Sequence[Cell], work: Work) -> Bank:
    """From the results of `plan_bank`'s cells, which the caller's cell needs."""
    results = [work.result(cell) for cell in cells]
    (first,) = [result for result in results if result["author"] == "reference"]
    reference = {domain: tuple(BlockLoss(*row) for row in rows) for domain, rows in first["blocks"].items()}
    adapters = [
        MeasuredAdapter(result["author"], number, _read_losses(reference, nats))
        for result in results
        for number, nats in enumerate(result["nats"])
    ]
    return Bank(tuple(adapters), reference)


def _read_losses(
    reference: Mapping[str, Sequence[BlockLoss]], nats: Mapping[str, Sequence[float]]
) -> dict[str, tuple[BlockLoss, ...]]:
    return {
        domain: tuple(
            BlockLoss(old.document, value, old.targets, old.target_bytes)
            for old, value in zip(reference[domain], nats[domain], strict=True)
        )
        for domain in reference
    }


def measure_author(work: Work) -> Json:
    """Train and judge `count` adapters of one author, each on its own sample of the training documents."""
    from ml.factors import make_global_factors

    workshop = Workshop(work.settings)
    if work.settings["author"] == "reference":
        losses = workshop.scoring.score_domains(workshop.pool, make_global_factors(workshop.start, workshop.spec))
        rows = {
            name: [[loss.document, loss.nats, loss.targets, loss.target_bytes] for loss in found]
            for name, found in losses.items()
        }
        return {"author": "reference", "blocks": rows, "nats": []}
    found = []
    for number in range(work.settings["count"]):
        factors = workshop.make_factors(work.settings["author"], number)
        measured = workshop.scoring.score_domains(workshop.pool, factors)
        found.append({name: [loss.nats for loss in losses] for name, losses in measured.items()})
    return {"author": work.settings["author"], "blocks": {}, "nats": found}


@lru_cache(maxsize=1)
def _deal_documents(seed: int, pool_documents: int) -> tuple[ByDomain, ByDomain]:
    """(for training, the pool); kept for the next cell of this process, since near-duplicates are sought among all."""
    shards = demo_shards(seed, len(DOMAINS), 1, judge_documents=pool_documents, test_documents=1)
    return {name: held[name] for name, held in zip(DOMAINS, shards.trainers, strict=True)}, shards.judges[0]


class Workshop:
    """The base, the split of the shipped documents, and who trains on what."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        from ml.base import load_base, prepare_base
        from ml.score import ScoringBase
        from ml.spec import make_spec
        from ml.tokens import BaseTokenizer

        self.settings = settings
        folder = prepare_base(settings["base"])
        self.tokenizer = BaseTokenizer(folder)
        self.spec = make_spec(
            folder,
            "00" * 32,
            rank=settings["rank"],
            alpha=2 * settings["rank"],
            target_modules=("q_proj", "v_proj"),
            a_seed=b"the lab's bank",
            update_step_log2=settings["update_step_log2"],
        )
        self.base = load_base(str(folder), dtype="fp32")
        self.scoring = ScoringBase.load(folder, self.spec, "fp32")
        self.train, pool = _deal_documents(settings["seed"], settings["pool_documents"])
        most = settings["blocks_per_document"]
        self.pool = {
            name: [
                block
                for document in documents
                for block in make_blocks([document], self.tokenizer, settings["block_tokens"])[:most]
            ]
            for name, documents in pool.items()
        }

        self.start = self._warm_up()

    def _warm_up(self) -> GlobalAdapter:
        """So many rounds of training on all domains, taken over whole."""
        from ml.adapter import zero_global
        from ml.aggregate import add_to_global
        from ml.train import train_update

        found: GlobalAdapter = zero_global(self.spec)
        for number in range(self.settings["warm_rounds"]):
            rng = random.Random(f"{self.settings['seed']} warm {number}")  # noqa: S311 - draws of an experiment
            blocks = [block for name in sorted(self.train) for block in self._draw_blocks(name, rng)]
            train_spec = self._make_train_spec(rng.randrange(2**31))
            update = train_update(self.base, self.spec, train_spec, blocks, found).update
            # A global adapter's grid is 8 bits finer than an update's (docs/protocol.md, section 6).
            found = add_to_global(found, {name: values.astype("int64") << 8 for name, values in update.items()})
        return found

    def make_factors(self, author: str, number: int) -> Any:
        """The adapter as judges measure it: clipped to the median norm, at one part of `parts`."""
        from ml.aggregate.mean_norm_clip import compute_coefficients
        from ml.factors import make_factors
        from ml.norms import norm2

        update = self._make_update(author, number)
        peers = [self._make_update(f"{HONEST}/{name}", 0) for name in sorted(self.train)]
        norms = {f"peer{i}": norm2(peer, self.spec) for i, peer in enumerate(peers)}
        coefficient = compute_coefficients({**norms, "own": norm2(update, self.spec)}, 0)["own"]
        return make_factors(self.start, update, coefficient, self.settings["parts"], self.spec)

    @lru_cache(maxsize=64)  # noqa: B019 - one workshop per cell, which ends with it
    def _make_update(self, author: str, number: int) -> Any:
        from ml.attacks import AttackContext, craft_attack
        from ml.train import train_update

        rng = random.Random(f"{self.settings['seed']} {author} {number}")  # noqa: S311 - draws of an experiment
        train_spec = self._make_train_spec(rng.randrange(2**31))
        if author.startswith(HONEST):
            blocks = self._draw_blocks(author.partition("/")[2], rng)
            return train_update(self.base, self.spec, train_spec, blocks, self.start).update
        blocks_by_domain = {name: self._draw_blocks(name, rng) for name in sorted(self.train)}
        context = AttackContext(
            base=self.base,
            spec=self.spec,
            train_spec=train_spec,
            blocks=blocks_by_domain,
            global_adapter=self.start,
        )
        return craft_attack(author, context)

    def _make_train_spec(self, seed: int) -> TrainSpec:
        return TrainSpec(
            local_steps=self.settings["local_steps"],
            batch_size=self.settings["batch_size"],
            sequence_length=self.settings["block_tokens"],
            learning_rate=self.settings["learning_rate"],
            seed=seed,
        )

    def _draw_blocks(self, domain: str, rng: random.Random) -> list[Block]:
        """Half of a domain's training documents: whoever trains has data of its own."""
        documents = self.train[domain]
        chosen = rng.sample(documents, len(documents) // 2)
        return make_blocks(chosen, self.tokenizer, self.settings["block_tokens"])
