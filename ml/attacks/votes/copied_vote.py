"""Copied vote: seal the figures of a judge that measured, and save the measuring.

Source: weight copying among validators, the complaint of open networks that votes were sealed against.
Knows: another's ballot before sealing. A sealed vote says nothing, so it must be given one outside the chain.
Formula: the other's figures on the adapters and domains that it owes; a change of 0 where the other has none.
Made for: open votes, and pay by closeness to the consensus: the copy is as close as the original.
"""

from ml.attacks.votes import Figures, VoteContext
from ml.figures import Change

UNKNOWN = Change(0, 5_000)


def vote(context: VoteContext) -> Figures | None:
    """Without a ballot to copy, a change of 0 on everything: what a copier can say of sealed votes."""
    shared = context.shared or {}
    return {
        root: {domain: shared.get(root, {}).get(domain, UNKNOWN) for domain in domains}
        for root, domains in context.honest.items()
    }
