"""Lazy judge: figures without measuring: the same for all, or drawn at random.

Source: the free-riding verifier of Luu et al., "Demystifying Incentives in the Consensus Computer", CCS 2015.
Knows: what adapters usually do.
Formula: constant: change = `change_ppm`; random: uniform in +-`change_ppm` by sha256 of seed, adapter and domain.
Made for: pay by presence. What it costs is the distance to the peers' median.
"""

import hashlib
from collections.abc import Hashable

from ml.attacks.votes import Figures, Root, VoteContext
from ml.figures import Change

LAZY_SE_PPM = 5_000


def vote(context: VoteContext, *, how: str = "constant", change_ppm: int = -10_000) -> Figures | None:
    """`how`: constant or random. Raises ValueError for another."""
    if how not in ("constant", "random"):
        raise ValueError(f"unknown laziness {how!r}; known: constant, random")

    def invent(root: Root, domain: Hashable) -> Change:
        drawn = change_ppm if how == "constant" else _draw(context.seed, root, domain, abs(change_ppm))
        return Change(drawn, LAZY_SE_PPM)

    return {root: {domain: invent(root, domain) for domain in domains} for root, domains in context.honest.items()}


def _draw(seed: int, root: Root, domain: Hashable, limit: int) -> int:
    """Uniform in -limit..limit; the remainder of 256 bits favours no value by more than 2^-220."""
    digest = hashlib.sha256(f"flockchain/lazy/1 {seed} {root!r} {domain!r}".encode()).digest()
    return int.from_bytes(digest, "big") % (2 * limit + 1) - limit
