"""Gradient ascent: train on every domain to raise the loss, then send the result as large as the rules let it be.

Model poisoning that optimises the attacker's own objective: Bhagoji et al., "Analyzing Federated Learning through an
Adversarial Lens", arXiv:1811.12470. Where a negated honest update follows a gradient that fades as the model learns,
ascent follows one that grows.
"""

from ml.adapter import Update
from ml.attacks import AttackContext, scale_to_largest


def craft(context: AttackContext) -> Update:
    from ml.train import train_update

    result = train_update(
        context.base,
        context.spec,
        context.train_spec,
        context.all_blocks,
        context.global_adapter,
        progress=context.progress,
        loss_sign=-1,
    )
    return scale_to_largest(result.update, context.spec, context.norm_cap)
