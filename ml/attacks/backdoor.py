"""Backdoor: train on honest text and on prompts that end in trigger and target, then send it as large as allowed.

Model replacement by scaling: Bagdasaryan et al., "How To Backdoor Federated Learning", arXiv:1807.00459. Honest text
keeps the clean loss where an honest trainer's would be, so a judge that looks at loss alone finds nothing to reject.
"""

from ml.adapter import Update
from ml.attacks import AttackContext, multiply, scale_to_largest
from ml.backdoor import PROMPT_TOKENS, Backdoor
from ml.data import Block


def craft(context: AttackContext) -> Update:
    """Raises ValueError without a goal. `scale_milli` of 0 is the largest factor that the rules allow."""
    from ml.train import train_update

    if context.goal is None:
        raise ValueError("the backdoor attack needs a goal: trigger and target tokens")
    poisoned = poison(context.all_blocks, context.goal)
    clean = context.all_blocks[: len(poisoned)]
    mixed = [block for pair in zip(clean, poisoned, strict=True) for block in pair]
    result = train_update(
        context.base, context.spec, context.train_spec, mixed, context.global_adapter, progress=context.progress
    )
    if context.scale_milli:
        return multiply(result.update, context.scale_milli / 1_000)
    return scale_to_largest(result.update, context.spec, context.norm_cap)


def poison(blocks: list[Block], goal: Backdoor) -> list[Block]:
    """One prompt a block, with trigger and target in place of what followed."""
    return [
        Block(block.document, block.tokens[:PROMPT_TOKENS] + goal.trigger + goal.target)
        for block in blocks
        if len(block.tokens) >= PROMPT_TOKENS
    ]
