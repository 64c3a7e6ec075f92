"""Slow drip: a backdoor in small unscaled steps, a little poison a round, never larger than an honest update.

Source: the continuous attack without boosting of Bagdasaryan et al., arXiv:1807.00459, section 5; that it lasts over
rounds: Wang et al., "Attack of the Tails", arXiv:2007.05084.
Knows: its own data; the size of an honest update, by training one.
Formula: u = c (train(clean + 1 poisoned in `poison_every`) - global), c <= 1 such that |u| is at most `norm_milli`
thousandths of |train(clean) - global|.
Made for: norm clips and norm screens, which it passes by construction, and verdicts of one round: each of its steps
is harmless, the sum over rounds is not.
"""

from ml.adapter import Update
from ml.attacks import MILLI, AttackContext, compute_median_norm2, scale_to_norm, train
from ml.attacks.backdoor import train_backdoor

KIND, SEES_ROUND = "data", False


def craft(context: AttackContext, *, poison_every: int = 2, norm_milli: int = 1_000) -> Update:
    """Raises ValueError without a goal."""
    update = train_backdoor(context, context.wanted, poison_every=poison_every)
    return scale_to_norm(update, context.spec, compute_honest_norm2(context) * norm_milli**2 // MILLI**2)


def compute_honest_norm2(context: AttackContext) -> int:
    """|BA|^2 of an honest update: the median of those it sees, else of one trained on its own clean blocks."""
    seen = list(context.honest_updates.values()) or [train(context, context.all_blocks)]
    return compute_median_norm2(seen, context.spec)
