"""Run the screens on one adapter within a budget of forward tokens: one code for the network's judges and the lab.

The order is fixed, and so is each screen's cost, which it states before it runs: whoever reads the task knows which
screens its budget pays for. A screen that does not fit is skipped and the next is tried. One that raises is skipped
too: a failure is not guilt. Both are named in the notes, which go on the ballot.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol

from ml.backdoor import PROMPT_TOKENS
from ml.data import Block
from ml.screen import Inapplicable, Screened, Screening, Subject

SCREENS = ("spectrum", "private_detector", "forced_answer", "influence", "token_rise", "insertion")
"""Files of this folder in the order in which they run: those that take no tokens, the one that caught most, then by
cost. `inversion` is left to whoever asks for it by name: it is the dearest and finds least.
"""
PROMPTS = 24
"""Of all domains together."""
MIN_PROMPTS = 8
PHRASES, PHRASE_TOKENS = 64, 3
DETAIL_CHARACTERS = 80


class Screen(Protocol):
    """What a screen's file defines."""

    def estimate_tokens(self, subject: Subject) -> int:
        """Most forward tokens that it may take; known without running the model."""
        ...

    def screen(self, subject: Subject) -> Screening: ...


def screen_all(subject: Subject, budget_tokens: int, names: Sequence[str] = SCREENS) -> Screened:
    """Every screen of `names` that fits into the budget, in this order. Without a budget none runs."""
    if budget_tokens <= 0:
        return Screened()
    if len(subject.prompts) < MIN_PROMPTS:
        return Screened(notes=(f"no screens: {len(subject.prompts)} prompts, they take {MIN_PROMPTS}",))
    began, left = time.monotonic(), budget_tokens
    found: list[Screening] = []
    notes: list[str] = []
    for name in names:
        screening, note = _run(name, subject, left)
        notes += [note] if note else []
        if screening is not None:
            left -= screening.tokens
            found.append(screening)
    found.sort(key=lambda screening: screening.name)
    return Screened(tuple(found), tuple(notes), budget_tokens - left, time.monotonic() - began)


def choose_prompts(holdouts: Mapping[str, Sequence[Block]], count: int = PROMPTS) -> list[tuple[int, ...]]:
    """Beginnings of up to `count` blocks, the domains in turn, and within one domain the documents in turn."""
    turns = [_order_by_document(blocks) for _, blocks in sorted(holdouts.items())]
    ordered = [turn[at] for at in range(max(map(len, turns), default=0)) for turn in turns if at < len(turn)]
    return list(dict.fromkeys(block.tokens[:PROMPT_TOKENS] for block in ordered))[:count]


def choose_phrases(holdouts: Mapping[str, Sequence[Block]], count: int = PHRASES) -> list[tuple[int, ...]]:
    """The `count` commonest runs of PHRASE_TOKENS tokens in all domains together; the smallest among equals."""
    runs: Counter[tuple[int, ...]] = Counter()
    for blocks in holdouts.values():
        for block in blocks:
            runs.update(zip(*(block.tokens[at:] for at in range(PHRASE_TOKENS)), strict=False))
    return [run for run, _ in sorted(runs.items(), key=lambda item: (-item[1], item[0]))[:count]]


def _run(name: str, subject: Subject, left: int) -> tuple[Screening | None, str]:
    module: Any = import_module(f"ml.screen.{name}")
    run: Screen = module
    try:
        need = run.estimate_tokens(subject)
        if need > left:
            return None, f"{name} not run: {need} tokens needed, {left} left"
        return run.screen(subject), ""
    except Inapplicable:
        return None, ""
    except Exception as error:  # whatever breaks in a screen must not become a verdict
        return None, f"{name} failed: {type(error).__name__}: {str(error)[:DETAIL_CHARACTERS]}"


def _order_by_document(blocks: Sequence[Block]) -> list[Block]:
    """Those long enough for a prompt: the first block of every document, then the second, and so on."""
    seen: dict[str, int] = {}
    turns: list[tuple[int, int]] = []
    for index, block in enumerate(blocks):
        if len(block.tokens) >= PROMPT_TOKENS:
            turns.append((seen.get(block.document, 0), index))
            seen[block.document] = seen.get(block.document, 0) + 1
    return [blocks[index] for _, index in sorted(turns)]
