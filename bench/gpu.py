"""Everything that only a GPU can show, in one script that records as it goes: `python -m bench gpu --out FILE`.

GPU time is short: stages run in the order of their worth, within what is left of `--budget-s`, a stage that fails or
finds something missing leaves a sentence and the next one runs, and the file is written after each. `--stages` picks
some, so that a long run can be cut into several; results of earlier runs in the same file are kept.

On a machine without a GPU it runs the tiny shape: `python -m bench gpu --device cpu --shapes tiny-shaped`.
"""

import argparse
import importlib.util
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from bench.gpu_network import measure_aggregate, measure_task, measure_verdicts
from bench.gpu_run import ADAPTERS, RANK, Run, free, get_allocated, get_peak, reset_peak
from bench.report import Result, describe_machine, summarize
from bench.shapes import SHAPES, build_shaped, count_parameters, count_train_flops
from bench.training import ALL_LINEAR, make_batches_of_tokens, make_random_factors, train_ours

H200_BF16_FLOPS = 989e12
"""Dense, of the SXM part's datasheet."""
ROWS = {"1B-shaped": 16, "8B-shaped": 8, "70B-shaped": 2, "tiny-shaped": 2}
LENGTHS = {"tiny-shaped": 64}
LENGTH = 2_048
STEPS = 6
"""The first two warm up."""
SCORED_BLOCKS = 16
GOAL_70B_BYTES = 120 * 10**9


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench gpu", description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shapes", default="1B-shaped,8B-shaped,70B-shaped", help=", ".join(SHAPES))
    parser.add_argument("--stages", default=",".join(STAGES), help=", ".join(STAGES))
    parser.add_argument("--budget-s", type=float, default=560.0)
    parser.add_argument("--bf16", action="store_true", help="as on a machine without bitsandbytes")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "gpu.json")
    options = parser.parse_args(arguments)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic products need, read once
    four_bit = importlib.util.find_spec("bitsandbytes") is not None and not options.bf16
    deadline = time.monotonic() + options.budget_s
    run = Run(options.device, options.shapes.split(","), options.out, deadline, four_bit, [], {})
    stages = options.stages.split(",")
    run.judges_too = "judge" in stages
    for name in stages:
        _run_stage(run, name)
        run.save()
    _tell(run)
    return 0


def _tell(run: Run) -> None:
    """What was found, and what is still open."""
    for result in run.results:
        beside = f", {result.peer['ratio']:.2f} times the plain loop" if result.peer else ""
        print(f"{result.name:<44} {result.median:>12,} {result.unit}{beside}")
    for name, said in run.notes.items():
        if name.endswith("failed") or str(said).startswith("skipped"):
            print(f"open: {name}: {said}")
    print(f"recorded in {run.out}")


def _run_stage(run: Run, name: str) -> None:
    """A stage's failure is a note, for the next stage may tell something."""
    began = time.monotonic()
    print(f"stage {name}, {run.left_s:.0f} s left", flush=True)
    try:
        STAGES[name](run)
    except Exception as error:
        run.notes[f"{name}/failed"] = f"{type(error).__name__}: {str(error)[:500]}"
        traceback.print_exc()
    run.notes[f"{name}/seconds"] = round(time.monotonic() - began, 1)
    free(run)


def measure_machine(run: Run) -> None:
    """What the figures were taken on."""
    import torch
    import transformers

    run.notes |= {"machine": describe_machine(), "torch": torch.__version__, "transformers": transformers.__version__}
    if run.device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        run.notes |= {"gpu": properties.name, "gpu_bytes": properties.total_memory, "cuda": torch.version.cuda}
    for package in ("peft", "bitsandbytes", "accelerate"):
        found = importlib.util.find_spec(package) is not None
        run.notes[package] = __import__(package).__version__ if found else "missing"
    if not run.four_bit:
        run.notes["4 bit"] = "skipped: bitsandbytes is missing; docs/gpu.md says how to bring it along"


def measure_train(run: Run) -> None:
    """Each shape: ours, beside the plain loop with the same base, adapter, batch and optimizer."""
    for shape in run.shapes:
        if run.left_s < 60:
            run.notes[f"train/{shape}"] = "skipped: no time left"
            continue
        if shape == "70B-shaped" and not run.four_bit:
            run.notes[f"train/{shape}"] = "skipped: in bf16 it takes 141 GB, and bitsandbytes is missing"
            continue
        _train_shape(run, shape)
        free(run)
        run.save()


def _train_shape(run: Run, shape: str) -> None:
    from ml.train_setup import set_deterministic

    base, spec = _build(run, shape)
    run.notes[f"memory/{shape}/weights_bytes"] = get_allocated(run)
    length, rows = LENGTHS.get(shape, LENGTH), ROWS[shape]
    batches = make_batches_of_tokens(SHAPES[shape]["vocab_size"], STEPS, rows, length)
    for checkpointing in (True, False):
        name = f"train_tokens_per_s/{shape}" + ("" if checkpointing else "/no_checkpointing")
        try:
            ours = _train_ours(run, base, spec, batches, shape, checkpointing)
        except Exception as error:  # out of memory without checkpointing is an answer too
            run.notes[f"{name}/failed"] = f"{type(error).__name__}: {str(error)[:300]}"
            free(run)
            continue
        plain = _try_plain(run, base, spec, batches, name, checkpointing)
        run.results.append(_compare(name, rows * length, ours, plain, shape, length, run))
        run.save()
    set_deterministic(True)  # as ml/base.py does for who loads a base onto a GPU
    try:
        ours = _train_ours(run, base, spec, batches, shape, True)
        name = f"train_tokens_per_s/{shape}/deterministic"
        run.results.append(_compare(name, rows * length, ours, None, shape, length, run))
    finally:
        set_deterministic(False)
    if run.judges_too:
        _judge_shape(run, base, spec, shape)  # building a 70B shape twice would cost minutes


def _build(run: Run, shape: str) -> tuple[Any, Any]:
    """(base, spec): rank 16 on all linear layers."""
    from ml.spec import AdapterSpec

    began = time.monotonic()
    base = build_shaped(shape, run.device, four_bit=run.four_bit)
    run.notes[f"build_s/{shape}"] = round(time.monotonic() - began, 1)
    spec = AdapterSpec("", RANK, 2 * RANK, ALL_LINEAR, "shared_a", b"bench", -11)
    return base, spec.with_shapes(SHAPES[shape])


def _train_ours(run: Run, base: Any, spec: Any, batches: Any, shape: str, checkpointing: bool) -> list[float]:
    from ml.train_setup import TrainSetup

    paged = run.four_bit and run.device == "cuda"
    setup = TrainSetup(
        optimizer="paged_adamw_8bit" if paged else "adamw", gradient_checkpointing=checkpointing, packing=True
    )
    reset_peak(run)
    seconds = train_ours(base, spec, batches, setup)
    suffix = "" if checkpointing else "/no_checkpointing"
    run.notes[f"memory/{shape}{suffix}/peak_bytes"] = get_peak(run)
    b = sum(spec.rank * out for _, out, _ in spec.shapes)
    a = sum(spec.rank * in_ for _, _, in_ in spec.shapes)
    moments = 2 if paged else 8
    parts = {"a_bytes": 2 * a, "b_bytes": 4 * b, "b_gradient_bytes": 4 * b, "optimizer_bytes": moments * b}
    run.notes |= {f"memory/{shape}/{part}": value for part, value in parts.items()}
    run.notes[f"memory/{shape}{suffix}/planned_bytes"] = _plan_bytes(run, shape, setup)
    left = get_peak(run) - run.notes[f"memory/{shape}/weights_bytes"] - sum(parts.values())
    run.notes[f"memory/{shape}{suffix}/activations_bytes"] = left
    if shape == "70B-shaped" and checkpointing:
        run.notes["goal/70B-shaped under 120 GB"] = get_peak(run) < GOAL_70B_BYTES
    return seconds


def _plan_bytes(run: Run, shape: str, setup: Any) -> int:
    """What `flockchain plan` says of the same training: to lie within a tenth of the peak."""
    from ml.plan.memory import plan_memory
    from ml.plan.models import ModelShape
    from ml.plan.setup import Setup

    plan = Setup(
        rank=RANK,
        targets=ALL_LINEAR,
        length=LENGTHS.get(shape, LENGTH),
        batch=ROWS[shape],
        precision="nf4" if run.four_bit else "bf16",
        optimizer=setup.optimizer,
        checkpointing=setup.gradient_checkpointing,
    )
    return plan_memory(ModelShape(shape, dict(SHAPES[shape])), plan, on_gpu=run.device == "cuda").total


def _try_plain(run: Run, base: Any, spec: Any, batches: Any, name: str, checkpointing: bool) -> dict[str, Any] | None:
    """transformers + peft + bitsandbytes as their examples have it, with the task's A frozen too."""
    from bench import plain

    free(run)
    reset_peak(run)
    model = plain.wrap(base, spec)
    try:
        paged = run.four_bit and run.device == "cuda"
        seconds = plain.train(model, batches, 1e-3, checkpointing=checkpointing, paged=paged)
        return {"seconds": seconds, "peak_bytes": get_peak(run)}
    except Exception as error:
        run.notes[f"{name}/plain_failed"] = f"{type(error).__name__}: {str(error)[:300]}"
        return None
    finally:
        model.unload()


def _compare(
    name: str, tokens: int, ours: list[float], plain: dict[str, Any] | None, shape: str, length: int, run: Run
) -> Result:
    rates = [tokens / seconds for seconds in ours[2:]]
    flops = count_train_flops(shape, length)
    notes = {
        "parameters": count_parameters(shape)[0],
        "rank": RANK,
        "length": length,
        "rows": tokens // length,
        "format": "nf4, double quantisation" if run.four_bit else "bf16",
        "model_flop_utilisation": round(median(rates) * flops / H200_BF16_FLOPS, 4) if run.device == "cuda" else None,
    }
    result = summarize(name, "tokens/s", rates, **notes)
    if plain is None:
        return result
    theirs = [tokens / seconds for seconds in plain["seconds"][2:]]
    peer = {
        "name": "transformers + peft + bitsandbytes",
        "median": round(median(theirs), 1),
        "min": round(min(theirs), 1),
        "max": round(max(theirs), 1),
        "ratio": round(median(rates) / median(theirs), 3),
        "peak_bytes": plain["peak_bytes"],
    }
    return Result(**{**asdict(result), "peer": peer})


def measure_judge(run: Run) -> None:
    """Ten adapters one after another over one loaded base, with the switching counted in."""
    for shape in run.shapes:
        if shape in run.judged:
            continue
        if run.left_s < 60 or (shape == "70B-shaped" and not run.four_bit):
            run.notes[f"judge/{shape}"] = "skipped: no time left, or no bitsandbytes"
            continue
        base, spec = _build(run, shape)
        _judge_shape(run, base, spec, shape)
        del base
        free(run)


def _judge_shape(run: Run, base: Any, spec: Any, shape: str) -> None:
    """Over a base that stays loaded."""
    import numpy as np

    from ml.data import Block
    from ml.score import ScoringBase

    length, vocabulary = LENGTHS.get(shape, LENGTH), SHAPES[shape]["vocab_size"]
    (rows,) = make_batches_of_tokens(vocabulary, 1, SCORED_BLOCKS, length)
    blocks = [Block("d", tuple(row)) for row in rows]
    reset_peak(run)
    scoring = ScoringBase(base, np.ones(vocabulary, np.int64), spec)
    scoring.score(blocks)
    rates = []
    for factors in make_random_factors(spec, ADAPTERS):
        began = time.perf_counter()
        scoring.score(blocks, factors)
        rates.append(len(blocks) * length / (time.perf_counter() - began))
    notes = {"adapters": ADAPTERS, "length": length, "blocks": len(blocks), "peak_bytes": get_peak(run)}
    run.results.append(summarize(f"score_tokens_per_s/{shape}", "tokens/s", rates, **notes))
    run.judged.add(shape)
    run.save()


STAGES: dict[str, Callable[[Run], None]] = {
    "machine": measure_machine,
    "train": measure_train,
    "judge": measure_judge,
    "aggregate": measure_aggregate,
    "verdicts": measure_verdicts,
    "task": measure_task,
}


if __name__ == "__main__":
    sys.exit(main())
