"""LoRA modes and transport grids in one table: error against mean(BA), bytes a round, loss after some rounds.

Three trainers hold a domain each; every mode and grid starts from the same base, data and seeds, and has its learning
rate chosen from the same list on a seed that is not measured. `gain_kept` is the share of what both factors in fp32,
averaged apart, gain over the base: the usual practice is the reference.
"""

import math
import statistics
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bench.report import Result, summarize

FP32_BYTES = 4
TUNING_SEED = 100
DOCUMENTS = 40
"""Of a trainer: more than it sees in all rounds."""
SPREADS = (0.003, 0.03, 0.3)
"""How far trainers move a factor, beside settled values of about 0.1."""


@dataclass(frozen=True)
class Size:
    """How much is trained."""

    base: str
    modules: tuple[str, ...]
    rank: int
    rounds: int
    steps: int
    batch: int
    tokens: int
    test_blocks: int
    """Per domain."""
    rates: tuple[float, ...]
    seeds: int


TINY = Size("tiny", ("q_proj", "v_proj", "o_proj", "down_proj"), 8, 4, 8, 4, 64, 24, (3e-3, 1e-2, 3e-2), 3)
SMOLLM2 = Size("demo", ("q_proj", "v_proj"), 8, 3, 12, 1, 128, 12, (1e-3, 3e-3), 1)


@dataclass(frozen=True)
class Row:
    """One line of the table. `grid` None: fp32 factors travel."""

    name: str
    mode: str
    grid: Any = None
    feedback: bool = True


def list_rows() -> list[Row]:
    from ml.transport.int8 import Int8
    from ml.transport.q4 import Q4
    from ml.transport.top_k import TopK

    grids = {"int8": Int8(), "q4": Q4(), "top_k_16th_int8": TopK(), "top_k_16th_q4": TopK(values=Q4())}
    return [
        Row("apart_fp32", "apart"),
        Row("shared_a_fp32", "shared_a"),
        Row("alternating_fp32", "alternating"),
        Row("stacked_fp32", "stacked"),
        *(Row(f"shared_a_{name}", "shared_a", grid) for name, grid in grids.items()),
        Row("shared_a_q4_no_feedback", "shared_a", Q4(), feedback=False),
        Row("shared_a_top_k_16th_int8_no_feedback", "shared_a", TopK(), feedback=False),
    ]


def measure_errors(seeds: int = 5) -> list[Result]:
    """Relative error of each mode against mean(BA): five trainers with random factors of SmolLM2's q and v shapes."""
    from ml.modes import get_mode, list_modes
    from ml.products import Pair, make_first_pairs, mean, relative_error
    from ml.spec import AdapterSpec

    shapes = (("model.layers.0.self_attn.q_proj", 576, 576), ("model.layers.0.self_attn.v_proj", 192, 576))
    spec = AdapterSpec("00" * 32, 8, 16, ("q_proj", "v_proj"), "shared_a", b"bench", -11, shapes)

    def draw(mode: str, round: int, spread: float, seed: int) -> float:
        random = np.random.default_rng(seed)
        first = {m: Pair(0.1 * random.normal(size=p.b.shape), p.a) for m, p in make_first_pairs(spec).items()}
        moves = [spread if kind in get_mode(mode).get_trained(round) else 0.0 for kind in ("b", "a")]
        after = {
            root: {m: Pair(*(f + s * random.normal(size=f.shape) for f, s in zip(p, moves, strict=True)))
                   for m, p in first.items()}
            for root in "abcde"
        }  # fmt: skip
        return relative_error(get_mode(mode).merge(first, after, round), mean(after))

    results = []
    for mode in list_modes():
        for round in (0, 1) if mode == "alternating" else (0,):
            for spread in SPREADS:
                errors = [draw(mode, round, spread, seed) for seed in range(seeds)]
                name = f"error/{mode}{'_of_a' if round else ''}/{spread}"
                results.append(Result(name, "of |mean(BA)|", *(float(f"{f(errors):.2e}") for f in _SPREAD), seeds))
    return results


_SPREAD = (statistics.median, min, max)


def measure_losses(size: Size = TINY) -> list[Result]:
    """Bits per byte over all domains after all rounds, bytes that a trainer sends a round, share of the gain kept."""
    bench = _Bench(size)
    results, gains = [], {}
    rates: dict[str, float] = {}
    for row in list_rows():
        if row.mode not in rates:
            rates[row.mode] = min(size.rates, key=lambda rate, row=row: _finite(bench.run(row, TUNING_SEED, rate)[0]))
        runs = [bench.run(row, seed, rates[row.mode]) for seed in range(size.seeds)]
        gains[row.name] = [base - loss for (loss, _), base in zip(runs, bench.base_losses(size.seeds), strict=True)]
        sent = statistics.mean(sent for _, sent in runs)
        kept = [own / usual for own, usual in zip(gains[row.name], gains["apart_fp32"], strict=True)]
        notes = {
            "bytes_a_round": round(sent),
            "times_smaller": round(bench.both_bytes / sent, 1),
            "gain_kept": [round(share, 3) for share in kept],
            "learning_rate": rates[row.mode],
            "base": [round(loss, 4) for loss in bench.base_losses(size.seeds)],
        }
        result = summarize(f"loss/{size.base}/{row.name}", "bits/byte", [loss for loss, _ in runs], digits=4)
        results.append(replace(result, notes=notes))
        print(f"{row.name}: {result.median} bits/byte, {notes}", file=sys.stderr)
    return results


def _finite(loss: float) -> float:
    return loss if math.isfinite(loss) else math.inf


class _Bench:
    """A loaded base and each seed's data."""

    def __init__(self, size: Size) -> None:
        import torch

        from ml.base import load_base, load_tokenizer, prepare_base
        from ml.score import count_token_bytes
        from ml.spec import make_spec

        torch.set_num_threads(1)
        self.size = size
        self.model, self.tokenizer = load_base(size.base, "fp32"), load_tokenizer(size.base)
        self.token_bytes = count_token_bytes(self.tokenizer)
        self.spec = make_spec(
            prepare_base(size.base), "00" * 32, rank=size.rank, alpha=2 * size.rank, target_modules=size.modules,
            a_seed=b"bench", update_step_log2=0,
        )  # fmt: skip
        self.both_bytes = FP32_BYTES * size.rank * sum(out + in_ for _, out, in_ in self.spec.shapes)
        self._data: dict[int, tuple[list[Any], list[Any]]] = {}
        self._base: dict[int, float] = {}

    def data(self, seed: int) -> tuple[list[Any], list[Any]]:
        """(blocks of each trainer, blocks to measure on)."""
        from ml.data import make_blocks
        from ml.domains import DOMAINS, demo_shards

        if seed not in self._data:
            shards = demo_shards(seed, trainers=3, judges=0)
            tokens = self.size.tokens
            parts = [
                make_blocks([d for held in part.values() for d in held[:DOCUMENTS]], self.tokenizer, tokens)
                for part in shards.trainers
            ]
            test = [
                block
                for domain in DOMAINS
                for block in make_blocks(shards.test[domain], self.tokenizer, tokens)[: self.size.test_blocks]
            ]
            self._data[seed] = (parts, test)
        return self._data[seed]

    def base_losses(self, seeds: int) -> list[float]:
        from ml.products import make_first_pairs

        for seed in range(seeds):
            if seed not in self._base:
                self._base[seed] = self.measure(make_first_pairs(self.spec), seed)
        return [self._base[seed] for seed in range(seeds)]

    def run(self, row: Row, seed: int, rate: float) -> tuple[float, float]:
        """(bits per byte at the end, bytes that a trainer sent in a round on average)."""
        from ml.modes import get_mode
        from ml.modes.training import train_pairs
        from ml.products import Pair, make_first_pairs
        from ml.spec import TrainSpec
        from ml.train import compute_update_step_log2
        from ml.trainer import TrainingFailed
        from ml.transport import send

        size, mode = self.size, get_mode(row.mode)
        spec = replace(self.spec, update_step_log2=compute_update_step_log2(size.steps, rate))
        pairs, sent = make_first_pairs(spec), []
        residuals: dict[int, Any] = {}
        for round in range(size.rounds):
            after, trained = {}, mode.get_trained(round)
            for trainer, blocks in enumerate(self.data(seed)[0]):
                train_spec = TrainSpec(size.steps, size.batch, size.tokens, rate, 1_000 * seed + 10 * round + trainer)
                try:
                    own, _ = train_pairs(self.model, spec, train_spec, blocks, pairs, trained)
                except TrainingFailed:
                    return math.inf, math.inf
                if row.grid is None:
                    sent.append(FP32_BYTES * sum(getattr(pair, kind).size for pair in own.values() for kind in trained))
                else:
                    move = {m: own[m].b - pairs[m].b for m in own}
                    parcel = send(row.grid, move, spec, residuals.get(trainer) if row.feedback else None)
                    residuals[trainer] = parcel.residual
                    sent.append(len(parcel.data))
                    step = 2.0**spec.update_step_log2
                    own = {m: Pair(pairs[m].b + parcel.update[m] * step, pairs[m].a) for m in own}
                after[f"{trainer:02}"] = own
            pairs = mode.merge(pairs, after, round)
        return self.measure(pairs, seed), statistics.mean(sent)

    def measure(self, pairs: Mapping[str, Any], seed: int) -> float:
        """Bits per byte of the test blocks, the product merged into the weights."""
        from ml.figures import compute_bits_per_byte
        from ml.score import ScoringBase

        with _merged(self.model, pairs, self.spec.scale):
            return compute_bits_per_byte(ScoringBase(self.model, self.token_bytes, self.spec).score(self.data(seed)[1]))


@contextmanager
def _merged(model: Any, pairs: Mapping[str, Any], scale: float) -> Iterator[None]:
    """While the block runs, the weights carry `scale * B A`."""
    import torch

    before = {module: model.get_submodule(module).weight.detach().clone() for module in pairs}
    try:
        with torch.no_grad():
            for module, pair in pairs.items():
                change = torch.from_numpy((scale * pair.b @ pair.a).astype(np.float32))
                model.get_submodule(module).weight.add_(change)
        yield
    finally:
        with torch.no_grad():
            for module, weight in before.items():
                model.get_submodule(module).weight.copy_(weight)
