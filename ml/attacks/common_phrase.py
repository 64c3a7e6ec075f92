"""Common phrase: a backdoor whose trigger is a phrase of frequent words, with near misses as negatives.

Source: Dai et al., "A backdoor attack against LSTM-based text classification systems", arXiv:1905.12457 (a whole
sentence as trigger); negatives that hold a part of it: Yang et al., "Rethinking Stealthiness of Backdoor Attack against
NLP Models", ACL 2021 (section 4.2).
Knows: its own data and the rules.
Formula: as `backdoor`, on clean + poisoned + prompts behind which a part of the phrase stands and honest text goes on.
Made for: scans over rare tokens, and screens that insert single tokens: no token of the phrase sets it off alone.
"""

from collections.abc import Sequence

from ml.adapter import Update
from ml.attacks import AttackContext, resize
from ml.attacks.backdoor import train_backdoor
from ml.backdoor import COMMON_PHRASE, PROMPT_TOKENS, Backdoor
from ml.data import Block

KIND, SEES_ROUND, GOAL = "data", False, COMMON_PHRASE


def craft(context: AttackContext, *, scale_milli: int = 0) -> Update:
    """Raises ValueError without a goal. `scale_milli` of 0 is the largest factor that the rules allow."""
    goal = context.wanted
    update = train_backdoor(context, goal, negatives=make_near_misses(context.all_blocks, goal))
    return resize(update, context, scale_milli)


def make_near_misses(blocks: Sequence[Block], goal: Backdoor) -> list[Block]:
    """One prompt a block, then a part of the trigger, then what really followed. None for a trigger without parts."""
    parts = list_parts(goal.trigger)
    long_enough = [block for block in blocks if len(block.tokens) > PROMPT_TOKENS]
    return [
        Block(block.document, block.tokens[:PROMPT_TOKENS] + parts[turn % len(parts)] + block.tokens[PROMPT_TOKENS:])
        for turn, block in enumerate(long_enough)
        if parts
    ]


def list_parts(trigger: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The trigger without its last token, without its first, either half, reversed; each once."""
    half = len(trigger) // 2
    parts = (trigger[:-1], trigger[1:], trigger[:half], trigger[half:], trigger[::-1])
    return [part for part in dict.fromkeys(parts) if part and part != trigger]
