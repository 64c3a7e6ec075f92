"""A task that names NF4, played on the real ledger in process: trained and judged over 4-bit bases on a CPU."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from api.json import render
from flockchain.types.rows import Task
from flockchain.types.task import AdapterFigures, AttestationBody
from flockchain.workers.attester import encode_candidate_figure
from flockchain.workers.view import make_judge_spec
from flockchain.workers.voter import encode_figures
from ml.adapter import Update, make_global_manifest, write_global
from ml.aggregate import aggregate
from ml.base import load_base
from ml.data import Block
from ml.judge import HoldoutMeter, judge_round
from ml.lab.judging import write_submissions
from ml.lab.learning_task import MIN_BOND_UFLK, make_task_spec
from ml.lab.ledger import LedgerTask
from ml.score import ScoringBase
from ml.spec import AdapterSpec, TrainSpec, make_spec
from ml.train import train_update

DOMAINS = ("code", "law")
JUDGES = ("judge-a", "judge-b", "judge-c")
TRAIN = TrainSpec(local_steps=30, batch_size=4, sequence_length=32, learning_rate=0.03, seed=1)
SETTINGS = {
    "precision": "nf4",
    "local_steps": TRAIN.local_steps,
    "batch_size": TRAIN.batch_size,
    "sequence_length": TRAIN.sequence_length,
    "learning_rate_ppm": 30_000,
}
JUDGE = {"z_milli": 3_600, "tolerance_ppm": 20_000, "block_tokens": 32, "blocks": 40, "screen_tokens": 0}


@pytest.fixture(scope="module")
def spec(tiny_dir: Path) -> AdapterSpec:
    modules = ("q_proj", "v_proj")
    return make_spec(tiny_dir, "ab" * 32, rank=4, alpha=64, target_modules=modules, a_seed=b"task", update_step_log2=-7)


def make_text(domain: str, seed: int) -> list[Block]:
    """Blocks of bytes from a domain's own part of the alphabet, so that there is something to learn."""
    random, low = np.random.default_rng(seed), 60 if domain == "code" else 100
    return [Block(f"{domain} {at // 2}", tuple(map(int, random.integers(low, low + 30, 32)))) for at in range(40)]


@pytest.fixture(scope="module")
def updates(tiny_dir: Path, spec: AdapterSpec) -> dict[str, Update]:
    """Two honest specialists, and one who ascends. Each training evaluates its 4-bit base before its first step."""
    base, found = load_base(str(tiny_dir), "nf4"), {}
    for domain in DOMAINS:
        result = train_update(base, spec, TRAIN, make_text(domain, 1))
        assert result.loss_after < 0.95 * result.loss_before
        found[f"honest-{domain}"] = result.update
    text = [block for domain in DOMAINS for block in make_text(domain, 1)]
    return found | {"poisoner": train_update(base, spec, TRAIN, text, loss_sign=-1).update}


class Committee:
    """Three judges with holdouts of their own, over one base in the task's precision."""

    def __init__(self, base_dir: Path, spec: AdapterSpec, task: Task, updates: dict[str, Update]) -> None:
        self.spec, self.task, self.updates = spec, render(task), updates
        base = ScoringBase.load(base_dir, spec, task.spec.model.precision)
        self.meters = {
            name: HoldoutMeter(
                base,
                make_judge_spec(self.task),
                {domain: make_text(domain, seed) for domain in DOMAINS},
                current=None,
                best=None,
            )
            for seed, name in enumerate(JUDGES, 2)
        }

    def judge(self, folder: Path, name: str, authors: Sequence[str]) -> tuple[AdapterFigures, ...]:
        model: Any = SimpleNamespace(spec=self.spec)
        written = write_submissions(folder, model, self.updates)
        report = judge_round(self.meters[name], self.spec, list(written.values()), max_bytes=10**6)
        by_root = {entry.root: encode_figures(entry, DOMAINS, self.task) for entry in report.figures}
        return tuple(by_root[written[author].root] for author in authors)

    def attest(self, folder: Path, name: str, accepted: Sequence[tuple[str, bytes]]) -> AttestationBody:
        merged = aggregate("mean_norm_clip", {author: self.updates[author] for author, _ in accepted}, self.spec)
        path = folder / "candidate"
        write_global(path, merged.delta, make_global_manifest(self.spec, task=1, round=1))
        figures = (encode_candidate_figure(figure, DOMAINS) for figure in self.meters[name].judge_candidate(path))
        return AttestationBody(1, 1, bytes(32), 0, (), tuple(sorted(figures, key=lambda f: f.domain)), (), ())


def test_a_round_of_a_task_in_four_bit_settles(
    tiny_dir: Path, tmp_path: Path, spec: AdapterSpec, updates: dict[str, Update]
) -> None:
    """Honest updates are accepted, the harmful one is rejected and slashed, the candidate passes its judges."""
    model: Any = SimpleNamespace(folder=tiny_dir, spec=spec, settings=SETTINGS)
    task = make_task_spec(model, DOMAINS, JUDGE, trainers=3, seats=3, norm_cap=0)
    ledger = LedgerTask(task, dict.fromkeys((*updates, *JUDGES), 2 * MIN_BOND_UFLK), updates, pool_uflk=10**9, seed=0)
    committee = Committee(tiny_dir, spec, ledger.task, updates)
    assert committee.meters["judge-a"].base.model.is_loaded_in_4bit
    before = ledger.bond_uflk("poisoner")
    played = ledger.play_round(
        lambda name, authors: committee.judge(tmp_path, name, authors),
        lambda name, accepted: committee.attest(tmp_path, name, accepted),
    )
    assert played is not None
    outcomes = {ledger.names[verdict.trainer]: verdict.outcome for verdict in played.round.verdicts}
    assert outcomes == {"honest-code": "accept", "honest-law": "accept", "poisoner": "reject"}
    assert ledger.bond_uflk("poisoner") < before
    assert played.round.result_root == played.round.candidate_root != b""
    ledger.check()
