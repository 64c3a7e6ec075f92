"""Who takes part, with which data, and what the task says."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flockchain.params import UFLK_PER_FLK
from flockchain.types.task import (
    JudgeSpec,
    ModelSpec,
    PenaltySpec,
    PhaseSpec,
    RewardSpec,
    TaskSpec,
)

CHAIN_ID = "flockchain-demo"
CREATOR = "creator"
HONEST = ("trainer-code", "trainer-literature", "trainer-medicine")
POISONER = "poisoner"
JUDGES = ("judge-1", "judge-2", "judge-3")
PARTICIPANTS = (*HONEST, POISONER, *JUDGES)
POOL_UFLK = 9_000 * UFLK_PER_FLK
BOND_UFLK = 1_000 * UFLK_PER_FLK
MIN_BOND_UFLK = 500 * UFLK_PER_FLK
LONGEST_PHASE_MS = 900_000
TOLERANCE_PPM = 7_500
"""Between the largest lower bound of an honest specialist's harm elsewhere and the least of a poisoner's, at the
strength of use: docs/decisions/0021-demo-sizes.md."""


@dataclass(frozen=True, slots=True)
class Size:
    """How large a demo is; chosen so that two cores finish within the stated time."""

    model: str
    """Reference of the base: demo or tiny."""
    name: str
    rounds: int
    rank: int
    local_steps: int
    sequence_length: int
    learning_rate_ppm: int
    update_step_log2: int
    block_tokens: int
    blocks: int
    """Per domain and judge."""
    judge_documents: int
    norm_cap: int
    slowest_tokens_per_s: int
    precision: str
    test_documents: int
    test_tokens: int


SIZES: dict[str, Size] = {
    "demo": Size(
        model="demo",
        name="SmolLM2-135M-Instruct",
        rounds=3,
        rank=8,
        local_steps=12,
        sequence_length=128,
        learning_rate_ppm=10_000,
        update_step_log2=-10,
        block_tokens=32,
        blocks=40,
        judge_documents=24,
        norm_cap=0,
        slowest_tokens_per_s=50,
        precision="bf16",
        test_documents=12,
        test_tokens=128,
    ),
    "tiny": Size(
        model="tiny",
        name="tiny-random-Llama",
        rounds=3,
        rank=8,
        local_steps=24,
        sequence_length=128,
        learning_rate_ppm=20_000,
        update_step_log2=-8,
        block_tokens=128,
        blocks=40,
        judge_documents=24,
        norm_cap=0,
        slowest_tokens_per_s=1_000,
        precision="fp32",
        test_documents=12,
        test_tokens=128,
    ),
}


def make_task_spec(size: Size, base_hash: bytes, tokenizer_hash: bytes, domains: tuple[str, ...]) -> TaskSpec:
    """The task that the demo's creator opens."""
    return TaskSpec(
        name=f"demo on {size.name}",
        model=ModelSpec(
            name=size.name,
            base_hash=base_hash,
            tokenizer_hash=tokenizer_hash,
            precision="bf16" if size.precision == "bf16" else "fp32",
            rank=size.rank,
            alpha=2 * size.rank,
            target_modules=("q_proj", "v_proj"),
            local_steps=size.local_steps,
            batch_size=1,
            sequence_length=size.sequence_length,
            learning_rate_ppm=size.learning_rate_ppm,
            update_step_log2=size.update_step_log2,
            norm_cap=size.norm_cap,
        ),
        domains=domains,
        rounds=size.rounds,
        phases=PhaseSpec(
            enroll_ms=LONGEST_PHASE_MS,
            train_ms=LONGEST_PHASE_MS,
            publish_ms=LONGEST_PHASE_MS,
            commit_ms=LONGEST_PHASE_MS,
            reveal_ms=LONGEST_PHASE_MS,
            aggregate_ms=LONGEST_PHASE_MS,
            enroll_limit_ms=2 * LONGEST_PHASE_MS,
        ),
        trainers_min=2,
        trainers_max=len(HONEST) + 1,
        judge=JudgeSpec(
            seats=len(JUDGES),
            block_tokens=size.block_tokens,
            tolerance_ppm=TOLERANCE_PPM,
            slowest_tokens_per_s=size.slowest_tokens_per_s,
            judge_tokens=size.block_tokens * size.blocks * len(domains),
        ),
        penalties=PenaltySpec(),
        rewards=RewardSpec(),
        min_bond_uflk=MIN_BOND_UFLK,
        max_adapter_bytes=8 * 2**20,
    )


@dataclass(frozen=True, slots=True)
class DataFiles:
    """Paths of everyone's private data, written for this demo."""

    trainers: dict[str, Path]
    judges: dict[str, dict[str, Path]]
    test: dict[str, Path]


def write_data(size: Size, folder: Path, seed: int) -> DataFiles:
    """Deal the shipped documents and write each participant's own files: no document is in two of them."""
    from ml.domains import demo_shards

    shards = demo_shards(
        seed,
        len(HONEST),
        len(JUDGES),
        generalists=1,
        judge_documents=size.judge_documents,
        test_documents=size.test_documents,
    )
    trainers = {}
    for name, by_domain in zip((*HONEST, POISONER), shards.trainers, strict=True):
        documents = [document for domain in sorted(by_domain) for document in by_domain[domain]]
        trainers[name] = _write(folder / f"{name}.jsonl", documents)
    judges = {
        name: {domain: _write(folder / f"{name}-{domain}.jsonl", found) for domain, found in sorted(by_domain.items())}
        for name, by_domain in zip(JUDGES, shards.judges, strict=True)
    }
    test = {domain: _write(folder / f"test-{domain}.jsonl", found) for domain, found in sorted(shards.test.items())}
    return DataFiles(trainers, judges, test)


def _write(path: Path, documents: Sequence[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    lines = (json.dumps({"text": document.text, "source": document.source}) + "\n" for document in documents)
    path.write_text("".join(lines), encoding="utf-8")
    return path
