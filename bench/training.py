"""Training and judging on a CPU beside a plain loop of transformers and peft: same model, adapter, batch and precision.

Both load one base in the format that is faster on this machine, take the same batches and train the same B; runs of
ours and theirs alternate, so that a busy machine is busy for both.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bench.report import Result, summarize

BATCH, LENGTH, RATE = 4, 128, 3e-3
TARGETS = {"": ("q_proj", "v_proj"), "/all_linear": ("all",)}
ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ADAPTERS, SCORED_BATCHES = 2, 6
"""3,072 tokens for each adapter, of the order that a task asks a judge to score."""


def measure_training(model: str = "demo", runs: int = 5, steps: int = 3) -> list[Result]:
    """`runs` times `steps` steps each way after one to warm up, then the judging of a few adapters."""
    import torch

    from ml.base import load_base, prepare_base
    from ml.precision import choose_cpu_dtype
    from ml.spec import make_spec

    dtype, folder = choose_cpu_dtype(), prepare_base(model)
    base = load_base(str(folder), dtype)
    notes = {"model": model, "dtype": dtype, "threads": torch.get_num_threads(), "batch": BATCH, "length": LENGTH}
    results = []
    for suffix, targets in TARGETS.items():
        chosen = ALL_LINEAR if targets == ("all",) else targets
        spec = make_spec(
            folder, "ab" * 32, rank=8, alpha=16, target_modules=chosen, a_seed=b"bench", update_step_log2=-11
        )
        batches = make_batches_of_tokens(base.config.vocab_size, steps + 1)
        pair = _alternate(
            runs,
            lambda spec=spec, batches=batches: _train_ours(base, spec, batches),
            lambda spec=spec, batches=batches: _train_plain(base, spec, batches),
        )
        results.append(_compare(f"train_tokens_per_s{suffix}", *pair, **notes, targets=chosen))
        scored = make_batches_of_tokens(base.config.vocab_size, SCORED_BATCHES)
        pair = _alternate(
            runs,
            lambda spec=spec, scored=scored: _score_ours(base, spec, scored),
            lambda spec=spec, scored=scored: _score_plain(base, spec, scored),
        )
        results.append(_compare(f"score_tokens_per_s{suffix}", *pair, **notes, targets=chosen, adapters=ADAPTERS))
    return results


def make_batches_of_tokens(vocabulary: int, count: int, batch: int = BATCH, length: int = LENGTH) -> list[Any]:
    """The speed of a product does not depend on its numbers."""
    random = np.random.default_rng(0)
    return [random.integers(0, vocabulary, (batch, length)).tolist() for _ in range(count)]


def make_random_factors(spec: Any, count: int) -> list[dict[str, Any]]:
    """float32 B of adapters of about the size that training gives them."""
    random = np.random.default_rng(1)
    return [
        {module: random.normal(0, 1e-2, (out, spec.rank)).astype(np.float32) for module, out, _ in spec.shapes}
        for _ in range(count)
    ]


def train_ours(base: Any, spec: Any, batches: Sequence[Any], setup: Any) -> list[float]:
    """Seconds of each step."""
    import time

    from ml.data import Block
    from ml.spec import TrainSpec
    from ml.team import Team
    from ml.trainer import Trainer

    rows, length = len(batches[0]), len(batches[0][0])
    seconds = []
    with Trainer(base, spec, TrainSpec(len(batches), rows, length, RATE, 0), setup=setup, team=Team()) as trainer:
        for batch in batches:
            blocks = [Block("d", tuple(row)) for row in batch]
            began = time.perf_counter()
            trainer.step(blocks)
            seconds.append(time.perf_counter() - began)
    return seconds


def _train_ours(base: Any, spec: Any, batches: Sequence[Any]) -> float:
    from ml.train_setup import TrainSetup

    return _count_rate(train_ours(base, spec, batches, TrainSetup()))


def _train_plain(base: Any, spec: Any, batches: Sequence[Any]) -> float:
    from bench import plain

    model = plain.wrap(base, spec)
    seconds = plain.train(model, batches, RATE)
    model.unload()
    return _count_rate(seconds)


def _count_rate(seconds: Sequence[float]) -> float:
    """Tokens per second over all steps but the first."""
    return BATCH * LENGTH * (len(seconds) - 1) / sum(seconds[1:])


def _score_ours(base: Any, spec: Any, batches: Sequence[Any]) -> float:
    import time

    from ml.data import Block
    from ml.score import ScoringBase

    scoring = ScoringBase(base, np.ones(base.config.vocab_size, np.int64), spec)
    blocks = [Block("d", tuple(row)) for batch in batches for row in batch]
    scoring.score(blocks[:BATCH])
    began = time.perf_counter()
    for factors in make_random_factors(spec, ADAPTERS):
        scoring.score(blocks, factors)
    return ADAPTERS * len(blocks) * LENGTH / (time.perf_counter() - began)


def _score_plain(base: Any, spec: Any, batches: Sequence[Any]) -> float:
    from bench import plain

    model = plain.wrap(base, spec)
    adapters = make_random_factors(spec, ADAPTERS)
    plain.score(model, base, spec, adapters[:1], batches[:1])
    seconds = plain.score(model, base, spec, adapters, batches)
    model.unload()
    return ADAPTERS * len(batches) * BATCH * LENGTH / seconds


def _alternate(runs: int, ours: Callable[[], float], plain: Callable[[], float]) -> tuple[list[float], list[float]]:
    mine, theirs = [], []
    for _ in range(runs):
        mine.append(ours())
        theirs.append(plain())
    return mine, theirs


def _compare(name: str, ours: list[float], plain: list[float], **notes: Any) -> Result:
    """Ours, with theirs of the same run as the peer."""
    theirs = summarize("transformers + peft", "tokens/s", plain)
    peer = {"name": theirs.name, "unit": theirs.unit, "median": theirs.median, "min": theirs.min, "max": theirs.max}
    result = summarize(name, "tokens/s", ours, **notes)
    ratios = [one / other for one, other in zip(ours, plain, strict=True)]
    peer["ratio_median"] = round(float(np.median(ratios)), 3)
    return replace(result, peer=peer)
