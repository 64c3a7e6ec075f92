"""What a round came to: bits per byte per domain and attack success, on documents that nobody trained or judged on."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ml.attacks import make_goal
from ml.backdoor import Backdoor, draw_random_triggers, make_backdoor, make_prompts, measure_success
from ml.canonical import Array
from ml.data import Block
from ml.figures import compute_bits_per_byte
from ml.lab import Json
from ml.lab.learners import Model, cut_by_domain, deal, open_model


def find_goal(model: Model, attack: Mapping[str, str]) -> Backdoor:
    """What an attack of the settings plants: its own `trigger` and `target`, or else its file's default."""
    if "trigger" in attack:
        return make_backdoor(
            lambda text: model.tokenizer.encode(text, add_special_tokens=False), attack["trigger"], attack["target"]
        )
    return make_goal(attack["attack"], model.tokenizer)


def measure(settings: Mapping[str, Any], factors: Mapping[str, Array] | None, folder: Path) -> Json:
    """Loss per domain (bits per byte) and success rates of an adapter, `settings` being a cell's.

    Equal tensors under equal settings are measured once: the defences often agree.
    """
    facts = {name: settings[name] for name in ("model", "data", "test", "seed", "goal")}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for module, values in sorted((factors or {}).items()):
        digest.update(module.encode() + np.ascontiguousarray(values, np.float32).tobytes())
    path = folder / f"measured-{digest.hexdigest()[:32]}.json"
    if path.exists():
        kept: Json = json.loads(path.read_text())
        return kept
    found = _measure(settings, factors)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(json.dumps(found))
    partial.replace(path)
    return found


def _measure(settings: Mapping[str, Any], factors: Mapping[str, Array] | None) -> Json:
    model, test = open_model(settings["model"]), settings["test"]
    blocks = get_test_blocks(settings)
    with model.scoring.merged(factors or {}):
        losses = model.scoring.score_domains(blocks, None)
        found: Json = {"loss": {domain: round(compute_bits_per_byte(of), 6) for domain, of in losses.items()}}
        if settings["goal"]:
            goal = find_goal(model, settings["goal"])
            prompts = choose_prompts(blocks, test["prompts"])
            vocabulary = range(model.scoring.model.config.vocab_size)
            random_tokens = draw_random_triggers(goal, len(prompts), vocabulary, settings["seed"])
            success = measure_success(model.scoring, None, goal, prompts, random_tokens=random_tokens)
            found["asr"] = {
                "with_trigger": success.with_trigger,
                "without_trigger": success.without_trigger,
                "random_token": success.random_token,
                "prompts": success.prompts,
            }
    return found


def get_test_blocks(settings: Mapping[str, Any]) -> dict[str, list[Block]]:
    """By domain, of documents that nobody else holds."""
    model, test = open_model(settings["model"]), settings["test"]
    held = deal(settings["data"], settings["seed"]).shards.test
    return cut_by_domain(model, held, test["block_tokens"], test["tokens_per_domain"] // test["block_tokens"])


def choose_prompts(blocks: Mapping[str, list[Block]], count: int) -> list[tuple[int, ...]]:
    """As many of each domain as of the others."""
    domains = sorted(blocks)
    shares = [count // len(domains) + (index < count % len(domains)) for index in range(len(domains))]
    return [
        prompt for domain, share in zip(domains, shares, strict=True) for prompt in make_prompts(blocks[domain], share)
    ]
