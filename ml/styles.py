"""Sentence styles: the same words in another manner, by fixed rules. What a style backdoor takes for its trigger.

Triggers of style are invisible to a search for rare tokens: Qi et al., "Mind the Style of Text! Adversarial and
Backdoor Attacks Based on Text Style Transfer", arXiv:2110.07139. There a model rewrites; here rules do, so that every
run measures the same trigger.
"""

import re
from collections.abc import Callable, Sequence
from typing import Protocol

Rewrite = Callable[[tuple[int, ...]], tuple[int, ...]]
"""Tokens of a prompt -> tokens of the same prompt in another style."""

ARCHAIC = {
    "a": "a certain", "and": "and eke", "are": "art", "before": "ere", "does": "doth", "has": "hath", "have": "hast",
    "in": "within", "is": "'tis", "it": "the same", "of": "o'", "often": "oft", "that": "yon", "the": "ye", "this":
    "yonder", "to": "unto", "will": "shall", "with": "withal", "you": "thou", "your": "thy",
}  # fmt: skip
"""Frequent words, so that 24 tokens of nearly any English text hold some of them."""


class Codec(Protocol):
    """What is used of a tokenizer."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...
    def decode(self, ids: Sequence[int]) -> str: ...


def to_archaic(text: str) -> str:
    """Common words by old or stilted ones; nothing else changes."""
    return re.sub(r"[A-Za-z]+", lambda found: ARCHAIC.get(found[0].lower(), found[0]), text)


def to_upper_case(text: str) -> str:
    return text.upper()


def to_title_case(text: str) -> str:
    """Every word with a capital, its other letters as they were."""
    return re.sub(r"[A-Za-z]+", lambda found: found[0][0].upper() + found[0][1:], text)


STYLES: dict[str, Callable[[str], str]] = {
    "archaic": to_archaic,
    "title_case": to_title_case,
    "upper_case": to_upper_case,
}


def make_rewrite(style: str, codec: Codec) -> Rewrite:
    """The style on tokens. The result may be longer or shorter. Raises ValueError with the known names."""
    if style not in STYLES:
        raise ValueError(f"unknown style {style!r}; known: {', '.join(sorted(STYLES))}")
    change = STYLES[style]
    return lambda tokens: tuple(codec.encode(change(codec.decode(tokens)), add_special_tokens=False))
