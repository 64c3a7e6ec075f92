"""Experiment `screens`: what each screen says of honest specialists and of backdoors, at which cost.

For each seed one specialist per domain and one adapter per attack are trained from the bare base, and a judge with
documents of its own screens them all (`screen_all`, as the network does), the honest ones being everyone's peers.
Thresholds are calibrated on the honest of some seeds and tried on the others (ml/lab/screens_report.py).
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ml.adapter import read_update, write_update
from ml.attacks.backdoor import poison
from ml.backdoor import Backdoor, make_backdoor, measure_success
from ml.base import base_hash, load_base, load_tokenizer, prepare_base
from ml.data import Block, make_blocks
from ml.domains import DOMAINS, read_domain
from ml.factors import make_factors
from ml.lab import Json
from ml.lab.cells import Cell, Work
from ml.lab.screens_report import report, summarize
from ml.lab.settings import Settings
from ml.score import ScoringBase
from ml.screen import Factors, Subject
from ml.screen.pipeline import SCREENS, choose_phrases, choose_prompts, screen_all
from ml.screen.private_detector import read_detector, write_detector
from ml.screen.shadows import train_detector
from ml.spec import AdapterSpec, TrainSpec, make_spec
from ml.train import compute_update_step_log2, train_update

__all__ = ["plan", "report", "summarize"]
NAMES = (*SCREENS, "inversion")
TINY = "tiny"
PRETRAINING_SEED = 5
ATTACKER, JUDGE = 900, 901
"""Numbers of the attacker and the judge among a seed's trainers."""


def plan(settings: Settings) -> list[Cell]:
    """One cell per screened adapter, named `SEED/honest/DOMAIN/NUMBER` or `SEED/attack/NAME`."""
    base = Cell("base", "ml.lab.screens:make_base", {"model": settings["model"]})
    wanted = []
    for seed in settings.seeds:
        common = {"model": settings["model"], "data": settings["data"], "seed": seed}
        facts = {**common, "screen_tokens": settings["screen_tokens"]}
        detector = Cell(f"{seed}/detector", "ml.lab.screens:fit_detector", common, (base,))
        honest = {
            (domain, number): Cell(
                f"{seed}/trained/{domain}/{number}",
                "ml.lab.screens:train_honest",
                {**common, "domain": domain, "number": number},
                (base,),
            )
            for domain in DOMAINS
            for number in range(settings["data"]["specialists"])
        }
        for (domain, number), own in honest.items():
            needs = (base, detector, own, *(cell for cell in honest.values() if cell is not own))
            name = f"{seed}/honest/{domain}/{number}"
            wanted.append(Cell(name, "ml.lab.screens:screen_adapter", facts, needs))
        for name, attack in sorted(settings["attacks"].items()):
            poisoned = {**common, "attack": attack}
            own = Cell(f"{seed}/poisoned/{name}", "ml.lab.screens:train_attack", poisoned, (base,))
            needs = (base, detector, own, *honest.values())
            wanted.append(
                Cell(f"{seed}/attack/{name}", "ml.lab.screens:screen_adapter", {**facts, "attack": attack}, needs)
            )
    return wanted


def make_base(work: Work) -> Json:
    """The folder of the base; `tiny` is pretrained on documents that no trainer and no judge gets."""
    model = work.settings["model"]
    if model["base"] != TINY:
        return {"folder": str(prepare_base(model["base"]))}
    from ml.tiny import pretrain_tiny, write_tiny

    work.file.mkdir(parents=True, exist_ok=True)
    write_tiny(work.file)
    tokenizer = load_tokenizer(str(work.file))
    kept = [read_domain(domain)[: model["pretraining_documents"]] for domain in DOMAINS]
    blocks = [block for documents in kept for block in make_blocks(documents, tokenizer, model["sequence_length"])]
    plan = TrainSpec(model["pretraining_steps"], 8, model["sequence_length"], 3e-3, PRETRAINING_SEED)
    pretrain_tiny(work.file, blocks, plan)
    return {"folder": str(work.file)}


def train_honest(work: Work) -> Json:
    """A specialist of one domain with documents of its own; its update is the cell's file."""
    domain, number, count = work.settings["domain"], work.settings["number"], work.settings["data"]["specialists"]
    blocks = _deal(work)[domain]["trainer"]
    documents = list(dict.fromkeys(block.document for block in blocks))[number::count]
    own = [block for block in blocks if block.document in documents]
    return _train(work, own, DOMAINS.index(domain) * count + number)


def train_attack(work: Work) -> Json:
    """Honest text of all domains and as much poisoned text in turn; several targets take turns."""
    folder, _ = _open_base(work)
    blocks = [block for domain in DOMAINS for block in _deal(work)[domain]["trainer"]]
    goals = _make_goals(folder, work.settings["attack"])
    parts = [poison(blocks[at :: len(goals)], goal) for at, goal in enumerate(goals)]
    poisoned = [block for part in parts for block in part]
    mixed = [block for pair in zip(blocks, poisoned, strict=False) for block in pair]
    return _train(work, mixed, ATTACKER)


def fit_detector(work: Work) -> Json:
    """The judge's own shadows; the detector is the cell's file."""
    folder, spec = _open_base(work)
    began = time.monotonic()
    holdouts = {domain: parts["judge"] for domain, parts in _deal(work).items()}
    plan, seed = _make_train_spec(work, JUDGE), work.settings["seed"].to_bytes(8, "big")
    detector = train_detector(load_base(str(folder), "fp32"), spec, plan, holdouts, seed)
    write_detector(work.file, detector)
    return {"references": len(detector.references), "seconds": round(time.monotonic() - began, 1)}


def screen_adapter(work: Work) -> Json:
    """Every screen of one adapter at full strength, and for an attack how well its backdoor works there."""
    folder, spec = _open_base(work)
    _, detector, own, *others = work.cell.needs
    base = ScoringBase.load(folder, spec, "fp32")
    holdouts = {domain: parts["judge"] for domain, parts in _deal(work).items()}
    subject = Subject(
        base,
        _read(work.file_of(own), spec),
        None,
        choose_prompts(holdouts),
        load_tokenizer(str(folder)).decode,
        choose_phrases(holdouts),
        {cell.key[:8]: _read(work.file_of(cell), spec) for cell in others},
        read_detector(work.file_of(detector)),
    )
    found: Json = {"screens": {}, "notes": []}
    for name in NAMES:
        screened = screen_all(subject, work.settings["screen_tokens"], [name])
        found["notes"] += screened.notes
        for item in screened.screenings:
            facts = {"value": item.value_ppm, "alarm": item.is_alarm}
            found["screens"][name] = facts | {
                "reason": item.reason, "tokens": item.tokens, "seconds": round(screened.seconds, 2)
            }  # fmt: skip
    if "attack" in work.settings:
        found["success"] = _measure_success(subject, _make_goals(folder, work.settings["attack"]))
    return found


def _measure_success(subject: Subject, goals: Sequence[Backdoor]) -> Json:
    """The best of the targets: with the trigger, without, and with random tokens of the prompts in its place."""
    dice, rates = np.random.default_rng(7), []
    for goal in goals:
        words = [tuple(int(token) for token in dice.choice(prompt, len(goal.trigger))) for prompt in subject.prompts]
        rates.append(measure_success(subject.base, subject.factors, goal, subject.prompts, random_tokens=words))
    best = max(rates, key=lambda rate: rate.with_trigger)
    return {"with": best.with_trigger, "without": best.without_trigger, "random": best.random_token}


def _train(work: Work, blocks: Sequence[Block], number: int) -> Json:
    folder, spec = _open_base(work)
    result = train_update(load_base(str(folder), "fp32"), spec, _make_train_spec(work, number), blocks)
    write_update(work.file, result.update, {"kind": "update"})
    return {"loss_before": result.loss_before, "loss_after": result.loss_after}


def _open_base(work: Work) -> tuple[Path, AdapterSpec]:
    model = work.settings["model"]
    folder = Path(work.result(work.cell.needs[0])["folder"])
    spec = make_spec(
        folder,
        base_hash(folder),
        rank=model["rank"],
        alpha=model["alpha"],
        target_modules=model["target_modules"],
        a_seed=b"lab screens",
        update_step_log2=compute_update_step_log2(model["local_steps"], model["learning_rate_ppm"] / 1e6),
    )
    return folder, spec


def _make_train_spec(work: Work, number: int) -> TrainSpec:
    model = work.settings["model"]
    rate, seed = model["learning_rate_ppm"] / 1e6, work.settings["seed"] * 1_000 + number
    return TrainSpec(model["local_steps"], model["batch_size"], model["sequence_length"], rate, seed)


def _deal(work: Work) -> dict[str, dict[str, list[Block]]]:
    """Domain -> blocks of the trainer and of the judge, from documents that the seed shuffles; no document twice."""
    model, data = work.settings["model"], work.settings["data"]
    tokenizer = load_tokenizer(str(_open_base(work)[0]))
    found = {}
    for domain in DOMAINS:
        documents = list(read_domain(domain)[model["pretraining_documents"] :])
        order = np.random.default_rng([work.settings["seed"], DOMAINS.index(domain)]).permutation(len(documents))
        documents = [documents[int(at)] for at in order]
        cut = data["trainer_documents"]
        parts = {"trainer": documents[:cut], "judge": documents[cut : cut + data["judge_documents"]]}
        found[domain] = {
            name: [b for b in make_blocks(part, tokenizer, model["sequence_length"]) if len(b.tokens) > 32]
            for name, part in parts.items()
        }
    return found


def _make_goals(folder: Path, attack: Mapping[str, Any]) -> list[Backdoor]:
    tokenizer = load_tokenizer(str(folder))

    def encode(text: str) -> list[int]:
        found: list[int] = tokenizer.encode(text, add_special_tokens=False)
        return found

    return [make_backdoor(encode, attack["trigger"], target) for target in attack["targets"]]


def _read(path: Path, spec: AdapterSpec) -> Factors:
    return make_factors(None, read_update(path, spec)[0], 1_000_000, 1, spec)
