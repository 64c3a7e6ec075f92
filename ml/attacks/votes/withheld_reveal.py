"""Withheld reveal: seal an honest vote, watch the others open theirs, and stay silent when that serves a friend.

Source: the last revealer's choice in commit-and-reveal, Syta et al., "Scalable Bias-Resistant Distributed Randomness",
IEEE S&P 2017, section II.
Knows: the ballots opened so far, and whose adapters are whose.
Formula: None where a friend's adapter harms a domain by the lower median of the opened figures (above the tolerance),
else the honest figures. `always` = 1 never reveals.
Made for: quorums: with more than a third of the seats silent nothing is decided, and the friend keeps its bond.
"""

from ml.attacks.votes import Figures, VoteContext


def vote(context: VoteContext, *, always: int = 0) -> Figures | None:
    return None if always or is_friend_condemned(context) else context.honest


def is_friend_condemned(context: VoteContext) -> bool:
    """Whether the opened ballots, by their lower median, find harm in a friend's adapter on some domain."""
    for root in context.friends & set(context.honest):
        for domain in context.honest[root]:
            said = sorted(
                ballot[root][domain].change_ppm for ballot in context.revealed if domain in ballot.get(root, {})
            )
            if said and said[(len(said) - 1) // 2] > context.tolerance_ppm:
                return True
    return False
