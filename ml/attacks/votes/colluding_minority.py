"""Colluding minority: every accomplice shifts its honest figures the same way, just within what costs nothing.

Source: the p + epsilon and other collusion attacks on consensus pay, Buterin 2015; shifts below a detection threshold:
Baruch et al., arXiv:1902.06156, carried over to ballots.
Knows: its own honest figures, whose adapters are whose, and the published distance beyond which a figure is an outlier.
Formula: change - d for friends, + d for others, d = `margin_milli` thousandths of max(published distance, 6 standard
errors, 3/4 of the own change): the judge's own figure stands for the median that it cannot know yet.
Made for: penalties on outliers: nobody of them is one, and together they move the median when they are many.
"""

from ml.attacks.votes import Figures, VoteContext, move
from ml.figures import Change

MILLI = 1_000
SE_MULTIPLE = 6
"""As in the chain's rule for outliers (docs/protocol.md)."""


def vote(context: VoteContext, *, margin_milli: int = 900) -> Figures | None:
    def shift(change: Change, is_friend: bool) -> Change:
        free = max(context.outlier_distance_ppm, SE_MULTIPLE * change.se_ppm, 3 * abs(change.change_ppm) // 4)
        by_ppm = free * margin_milli // MILLI
        return move(change, -by_ppm if is_friend else by_ppm)

    return {
        root: {domain: shift(change, root in context.friends) for domain, change in domains.items()}
        for root, domains in context.honest.items()
    }
