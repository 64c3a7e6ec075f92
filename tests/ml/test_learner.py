"""Three functions make a learner: LoRA on a language model is one, a logistic regression another."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ml.adapter import zero_global
from ml.base import base_hash
from ml.data import make_blocks
from ml.domains import DOMAINS, read_domain
from ml.learner import Learner, LoraLearner
from ml.spec import TrainSpec, make_spec
from ml.train import compute_update_step_log2

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "logistic_regression.py"


def load_example() -> Any:
    spec = importlib.util.spec_from_file_location("logistic_regression", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def run_round(learner: Learner[Any, Any, Any], state: Any, shards: dict[str, Any], seed: int) -> Any:
    """A training round, whatever is learned."""
    return learner.aggregate(state, {name: learner.train(state, data, seed) for name, data in shards.items()})


def test_lora_learns_from_three_specialists(tiny_dir: Path, tiny_model: Any, tiny_tokenizer: Any) -> None:
    spec = make_spec(
        tiny_dir,
        base_hash(tiny_dir),
        rank=8,
        alpha=16,
        target_modules=("q_proj", "v_proj", "o_proj", "down_proj"),
        a_seed=b"task",
        update_step_log2=compute_update_step_log2(12, 1e-2),
    )
    learner = LoraLearner(tiny_model, tiny_tokenizer, spec, TrainSpec(12, 2, 64, 1e-2, seed=0))
    shards = {domain: make_blocks(read_domain(domain)[:12], tiny_tokenizer, 64) for domain in DOMAINS}
    unseen = {domain: make_blocks(read_domain(domain)[20:26], tiny_tokenizer, 64) for domain in DOMAINS}
    state = zero_global(spec)
    before = {domain: learner.evaluate(state, blocks) for domain, blocks in unseen.items()}
    for round in range(2):
        state = run_round(learner, state, shards, round)
    assert all(learner.evaluate(state, blocks) < before[domain] for domain, blocks in unseen.items())


def test_the_same_round_fits_a_logistic_regression() -> None:
    example = load_example()
    tables = {f"{at}": example.make_table(at, 0.0) for at in range(3)}
    learner = example.LogisticRegression()
    state = np.zeros(4, np.int64)
    after = run_round(learner, state, tables, 0)
    assert after.dtype == np.int64
    assert learner.evaluate(after, tables["0"]) < learner.evaluate(state, tables["0"])


def test_the_example_runs_without_torch() -> None:
    script = (
        f"import runpy, sys; runpy.run_path({str(EXAMPLE)!r}, run_name='__main__'); assert 'torch' not in sys.modules"
    )
    ran = subprocess.run([sys.executable, "-c", script], check=True, timeout=60, capture_output=True, text=True)
    losses = [float(word) for word in ran.stdout.split(":")[1].split()]
    assert losses[0] == 1.0
    assert losses[-1] < 0.6
