"""Gradient ascent: train on every domain to raise the loss, then send the result as large as the rules let it be.

Source: model poisoning that optimises the attacker's own objective, Bhagoji et al., "Analyzing Federated Learning
through an Adversarial Lens", arXiv:1811.12470.
Knows: data of all domains.
Formula: u = c (argmax of the loss by K steps - global). Where a negated honest update follows a gradient that fades as
the model learns, ascent follows one that grows.
Made for: the plain mean.
"""

from ml.adapter import Update
from ml.attacks import AttackContext, scale_to_largest, train

KIND, SEES_ROUND = "data", False


def craft(context: AttackContext) -> Update:
    return scale_to_largest(train(context, context.all_blocks, loss_sign=-1), context.spec, context.norm_cap)
