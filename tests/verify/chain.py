"""A node's home made by hand: real blocks with two settled training rounds, real adapters, real files."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from flockchain.chunks import compute_file_root
from flockchain.codec import encode
from flockchain.crypto import format_address
from flockchain.execution.block import BlockOutcome
from flockchain.execution.genesis import build_state
from flockchain.execution.rounds import get_accepted
from flockchain.genesis import save_genesis
from flockchain.store.chain_store import ChainStore
from flockchain.txs import commit_final, create_task, submit_adapter
from flockchain.types.chain import Block
from flockchain.types.final import FinalTerms
from flockchain.types.rows import Submission
from flockchain.types.task import AttestationBody, Coefficient
from flockchain.types.tx import Receipt
from ml.adapter import make_global_manifest, make_update_manifest, read_global, read_update, write_global, write_update
from ml.adapter import zero_global as make_zero
from ml.aggregate import add_to_global, aggregate
from ml.base import base_hash
from ml.canonical import write_tensors
from ml.spec import AdapterSpec
from ml.spec import make_spec as make_adapter_spec
from ml.tiny import CONFIG
from tests.support.ledger import Ledger, make_genesis
from tests.support.rounds import POOL_UFLK, Story, make_spec

NAMES = ("creator", *(f"trainer{i}" for i in range(4)), *(f"judge{i}" for i in range(3)))
ROUNDS = 2


class StoredLedger(Ledger):
    """Every decided block is persisted, as a node does."""

    def __init__(self, home: Path) -> None:
        super().__init__(make_genesis(accounts=NAMES), check_all=False)
        home.mkdir(parents=True)
        save_genesis(self.genesis, home / "genesis.json")
        self.store = ChainStore(home / "data" / "chain.sqlite")
        self.store.initialize(encode(self.genesis), build_state(self.genesis).rows())

    def decide(self, block: Block, *, absent: Iterable[str] = ()) -> BlockOutcome:
        outcome = super().decide(block, absent=absent)
        self.store.persist_block(block, self.commits[-1], outcome)
        return outcome


class StoredStory(Story):
    """Actors of one task over a `StoredLedger`; trainers submit real updates, attesters really aggregate."""

    def __init__(self, home: Path, base: Path, lie: dict[str, Any], final: FinalTerms | None = None) -> None:
        self.home, self.base, self.lie = home, base, lie
        self.blobs = home / "data" / "blobs"
        self.ledger = StoredLedger(home)
        self.blobs.mkdir(parents=True)
        self.state, self.task_id = self.ledger.state, 1
        self.spec = make_spec(rounds=ROUNDS)
        model = replace(self.spec.model, base_hash=bytes.fromhex(base_hash(base)))
        self.spec = replace(self.spec, model=model)
        self.trainers, self.judges = NAMES[1:5], NAMES[5:]
        self.addresses = {name: self.ledger.address(name) for name in NAMES}
        self.names = {address: name for name, address in self.addresses.items()}
        self.receipts: list[Receipt] = []
        if final is not None:
            self.ledger.must("creator", commit_final.Body(final))
        self.ledger.must("creator", create_task.Body(self.spec, POOL_UFLK))
        model = self.spec.model
        self.adapter_spec: AdapterSpec = make_adapter_spec(
            base,
            model.base_hash.hex(),
            rank=model.rank,
            alpha=model.alpha,
            target_modules=model.target_modules,
            a_seed=self.task.seed,
            update_step_log2=model.update_step_log2,
        )

    @property
    def time_ms(self) -> int:  # type: ignore[override]
        return self.ledger.chain.time_ms

    def block(self, *acts: Any, elapsed_ms: int = 1_000) -> list[str]:
        txs = []
        for sender, body in acts:
            is_stake = type(body).__module__.endswith("stake")
            kind = "attest-aggregate" if isinstance(body, AttestationBody) else None
            txs.append(self.ledger.tx(sender, body, kind=kind, fee_uflk=None if is_stake else 0))
        outcome = self.ledger.produce(*txs, elapsed_ms=elapsed_ms)
        self.receipts.extend(outcome.receipts)
        return [result.message for result in outcome.results]

    def submit_body(self, name: str, **changes: Any) -> submit_adapter.Body:
        random = np.random.default_rng(self.round.number * 10 + self.trainers.index(name))
        update = {
            module: random.integers(-90, 90, (out, self.adapter_spec.rank), np.int8)
            for module, out, _ in self.adapter_spec.shapes
        }
        manifest = make_update_manifest(
            self.adapter_spec,
            task=1,
            round=self.round.number,
            trainer=format_address(self.addresses[name]),
            base_root=self.round.base_root.hex(),
        )
        made = self.blobs / "made"
        write_update(made, update, manifest)
        root, size = compute_file_root(made)
        made.rename(self.blobs / root.hex())
        return super().submit_body(name, root=root, size_bytes=size, **changes)

    def attest_body(self, name: str, **changes: Any) -> AttestationBody:
        number, spec = self.round.number, self.adapter_spec
        roots = [root.hex() for root in get_accepted(self.round)]
        updates = {root: read_update(self.blobs / root, spec)[0] for root in roots}
        combined = aggregate(self.spec.model.aggregator, updates, spec)
        base_root = self.round.base_root.hex()
        previous = read_global(self.blobs / base_root, spec)[0] if base_root else make_zero(spec)
        made = self.blobs / "made"
        write_global(made, add_to_global(previous, combined.delta), make_global_manifest(spec, task=1, round=number))
        root, size = compute_file_root(made)
        made.rename(self.blobs / root.hex())
        coefficients = tuple(Coefficient(bytes.fromhex(r), ppm) for r, ppm in sorted(combined.coefficients_ppm.items()))
        body = super().attest_body(name, candidate=root, size_bytes=size, coefficients=coefficients, **changes)
        return replace(body, **self.lie) if number == ROUNDS else body


@dataclass(slots=True)
class Chain:
    """A finished home and where to find things in it."""

    home: Path
    tip: int
    settled_heights: list[int]
    result_roots: list[str]
    accepted_roots: list[list[str]]
    submitted_heights: dict[str, int] = field(default_factory=dict)


def make_base(folder: Path) -> Path:
    """A base that verification can use: a real config, and weights that nobody multiplies."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    write_tensors(folder / "model.safetensors", {"embed": np.ones((2, 2), np.float32)}, {"format": "pt"})
    return folder


def make_chain(home: Path, base: Path, *, lie: dict[str, Any] | None = None) -> Chain:
    """Two rounds in real blocks; one trainer poisons in the first. The committee attests `lie` in the second."""
    story = StoredStory(home, base, lie or {})
    story.enroll()
    settled = [story.play_round(bad=("trainer3",)), story.play_round()]
    story.ledger.skip(5_000, 3)
    heights = [
        height
        for height, outcome in enumerate(story.ledger.outcomes, start=1)
        if any(receipt.kind == "settlement" for receipt in outcome.receipts)
    ]
    story.ledger.store.close()
    return Chain(
        home=home,
        tip=story.ledger.chain.height,
        settled_heights=heights,
        result_roots=[one.result_root.hex() for one in settled],
        accepted_roots=[[v.root.hex() for v in one.verdicts if v.outcome == "accept"] for one in settled],
        submitted_heights={row.root.hex(): row.height for row in story.state.iterate(Submission)},
    )
