"""A judge on one device and a judge on another, over one set of adapters: same verdicts, figures within their margins.

The set is made on the CPU: trained ones of two strengths, negated and shuffled ones, noise, and nothing, each judged in
the strength of use against the bare base. A verdict is what the chain makes of a figure: harm, help, or neither.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from bench.report import Result

LENGTH, STEPS, RATE = 128, 12, 1e-2
JUDGES_BLOCKS = 40


def compare_judges(model: str, device: str, dtype: str = "bf16") -> list[Result]:
    """Counts of verdicts that differ, and of figures that differ by more than the two printed errors together."""
    from ml.figures import is_harm, is_help
    from ml.judge import HoldoutMeter

    folder, spec, train, holdouts, judge_spec = _prepare(model)
    adapters = _make_adapters(folder, spec, train)
    measured = []
    for where in ("cpu", device):
        base = _load(folder, spec, dtype, where)
        meter = HoldoutMeter(base, judge_spec, holdouts, current=None, best=None)
        measured.append({name: meter.measure_update(update, 10**6, 1) for name, update in adapters.items()})
    verdicts, beyond, rows = 0, 0, {}
    for name in adapters:
        for one, other in zip(*(found[name].domains for found in measured), strict=True):
            a, b = one.current, other.current
            said = [(is_harm(change, judge_spec), is_help(change, judge_spec)) for change in (a, b)]
            verdicts += said[0] != said[1]
            beyond += abs(a.change_ppm - b.change_ppm) > a.se_ppm + b.se_ppm
            rows[f"{name}/{one.domain}"] = [a.change_ppm, b.change_ppm, a.se_ppm, b.se_ppm]
    notes = {"model": model, "dtype": dtype, "devices": ["cpu", device], "cpu_ppm_device_ppm_se_ppm": rows}
    count, suffix = len(rows), "" if dtype == "bf16" else f"/{dtype}"
    return [
        Result(f"verdicts_that_differ{suffix}", f"of {count}", verdicts, verdicts, verdicts, 1, notes=notes),
        Result(f"figures_beyond_their_margin{suffix}", f"of {count}", beyond, beyond, beyond, 1),
    ]


def _prepare(model: str) -> tuple[Any, ...]:
    from ml.base import base_hash, load_tokenizer, prepare_base
    from ml.data import Holdout, make_blocks
    from ml.domains import read_domain
    from ml.spec import JudgeSpec, make_spec
    from ml.train import compute_update_step_log2

    folder = prepare_base(model)
    spec = make_spec(
        folder,
        base_hash(folder),
        rank=8,
        alpha=16,
        target_modules=("q_proj", "v_proj"),
        a_seed=b"verdicts",
        update_step_log2=compute_update_step_log2(STEPS, RATE),
    )
    tokenizer = load_tokenizer(model)
    documents = {domain: read_domain(domain) for domain in ("code", "medicine")}
    train = {domain: make_blocks(found[: len(found) // 2], tokenizer, LENGTH) for domain, found in documents.items()}
    rest = {domain: found[len(found) // 2 :] for domain, found in documents.items()}
    holdout = Holdout.from_documents(rest, tokenizer, LENGTH)
    holdouts = {domain: holdout.draw(domain, b"verdicts", JUDGES_BLOCKS) for domain in rest}
    judge_spec = JudgeSpec(min_blocks=10, min_documents=4, block_tokens=LENGTH, judge_tokens=LENGTH * JUDGES_BLOCKS)
    return folder, spec, train, holdouts, judge_spec


def _make_adapters(folder: Any, spec: Any, train: dict[str, Any]) -> dict[str, Any]:
    from ml.base import load_base
    from ml.spec import TrainSpec
    from ml.train import train_update

    base, adapters = load_base(str(folder), "fp32"), {}
    train_spec = TrainSpec(STEPS, 2, LENGTH, RATE, 0)
    random = np.random.default_rng(0)
    for domain, blocks in train.items():
        update = train_update(base, spec, train_spec, blocks).update
        short = train_update(base, spec, replace(train_spec, local_steps=STEPS // 4), blocks).update
        adapters[f"honest-{domain}"] = update
        adapters[f"short-{domain}"] = short
        adapters[f"negated-{domain}"] = {name: (-values).astype(np.int8) for name, values in update.items()}
        adapters[f"shuffled-{domain}"] = {name: random.permutation(values) for name, values in update.items()}
    adapters["noise"] = {name: random.integers(-127, 128, v.shape, np.int8) for name, v in update.items()}
    adapters["nothing"] = {name: np.zeros_like(values) for name, values in update.items()}
    return adapters


def _load(folder: Any, spec: Any, dtype: str, device: str) -> Any:
    from ml.score import ScoringBase

    return ScoringBase.load(folder, spec, dtype, device)
