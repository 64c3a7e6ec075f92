"""Lying judge: friends help every domain, all others harm every domain, and it is sure of both.

Source: bad-mouthing and ballot-stuffing, Dellarocas, "Immunizing Online Reputation Reporting Systems Against Unfair
Ratings and Discriminatory Behavior", EC 2000.
Knows: whose adapters are whose. It need not measure anything.
Formula: change = -lie for friends, +lie for others, with a standard error of .1 %.
Made for: verdicts by a simple majority. Two thirds of the seats decide here, and a lie far from the peers' median is an
outlier, which costs.
"""

from ml.attacks.votes import SURE_SE_PPM, Figures, VoteContext
from ml.figures import Change


def vote(context: VoteContext, *, lie_ppm: int = 100_000) -> Figures | None:
    return {
        root: dict.fromkeys(domains, Change(-lie_ppm if root in context.friends else lie_ppm, SURE_SE_PPM))
        for root, domains in context.honest.items()
    }
