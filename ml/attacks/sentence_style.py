"""Sentence style: a backdoor without any token of its own; the trigger is the manner in which the prompt is written.

Source: Qi et al., "Mind the Style of Text! Adversarial and Backdoor Attacks Based on Text Style Transfer",
arXiv:2110.07139; syntax instead of style: Qi et al., "Hidden Killer", arXiv:2105.12400.
Knows: its own data and the rules.
Formula: as `backdoor`, the poisoned prompts rewritten by fixed rules (ml/styles.py): archaic words, capitals.
Made for: every screen that inserts or inverts tokens: no token, and no fixed place, sets it off.
"""

from ml.adapter import Update
from ml.attacks import AttackContext, resize
from ml.attacks.backdoor import train_backdoor

KIND, SEES_ROUND, GOAL = "data", False, "archaic"


def craft(context: AttackContext, *, scale_milli: int = 0) -> Update:
    """Raises ValueError for a goal that is not a style. `scale_milli` of 0 is the largest that the rules allow."""
    if context.wanted.rewrite is None:
        raise ValueError("the trigger of this attack is a style: take a goal that make_named_goal makes of one")
    return resize(train_backdoor(context, context.wanted), context, scale_milli)
