"""Figures of `domains` from its cells: losses, and how two arms compare, with documents drawn again for the bounds."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ml.canonical import Array
from ml.lab import Json
from ml.lab.settings import Settings
from ml.lab.tables import make_figure

DRAWS = 2_000
BASE, POOLED, LOCAL, LONG = "base", "pooled", "local-", "-long"
HOLDINGS, OWN = "holdings", "own"
"""The cell that says who holds what; the name of a trainer's own mixture of domains, in place of a domain."""

Losses = Mapping[str, Sequence[Sequence[float]]]
"""[nats, bytes] of each document, by domain."""
Shares = Mapping[str, float]
"""Of each domain in a mixture."""


def summarize(settings: Settings, results: Mapping[str, Json]) -> Json:
    """`loss_bpb/<arm>/<domain>`, `relative_loss/<arm>/<other arm>/<domain or own>`, `gain_kept/<arm>/<trainer>`."""
    by_arm: dict[str, dict[int, Any]] = {}
    for name, result in results.items():
        arm, _, seed = name.rpartition("/seed")
        by_arm.setdefault(arm, {})[int(seed)] = result["holdings" if arm == HOLDINGS else "documents"]
    holdings = by_arm.pop(HOLDINGS)
    domains = sorted(next(iter(by_arm[BASE].values())))
    figures: Json = {}
    for arm, by_seed in by_arm.items():
        for domain in domains:
            losses = {seed: compute_loss(documents, {domain: 1.0}) for seed, documents in by_seed.items()}
            figures[f"loss_bpb/{arm}/{domain}"] = make_figure(losses)
    for arm in (arm["name"] for arm in settings["global_arms"]):
        for other in by_arm:
            if other != arm:
                figures |= _compare_everywhere(by_arm, arm, other, domains, holdings)
        for trainer in next(iter(holdings.values())):
            figures |= _compute_gain_kept(by_arm, arm, trainer, holdings)
    return figures


def get_trainer(arm: str) -> str | None:
    """Whose arm it is; None for what no single trainer did."""
    return arm.removeprefix(LOCAL).removesuffix(LONG) if arm.startswith(LOCAL) else None


def _compare_everywhere(
    by_arm: Mapping[str, Mapping[int, Losses]],
    arm: str,
    other: str,
    domains: Sequence[str],
    holdings: Mapping[int, Mapping[str, Mapping[str, int]]],
) -> Json:
    found = {}
    for domain in domains:
        shares = {seed: {domain: 1.0} for seed in by_arm[arm]}
        found[f"relative_loss/{arm}/{other}/{domain}"] = compare(by_arm[arm], by_arm[other], shares)
    trainer = get_trainer(other)
    if trainer is not None:
        own = {seed: compute_shares(holdings[seed][trainer]) for seed in by_arm[arm]}
        found[f"relative_loss/{arm}/{other}/{OWN}"] = compare(by_arm[arm], by_arm[other], own)
    return found


def _compute_gain_kept(
    by_arm: Mapping[str, Mapping[int, Losses]],
    arm: str,
    trainer: str,
    holdings: Mapping[int, Mapping[str, Mapping[str, int]]],
) -> Json:
    """(base - arm) / (base - specialist) on the specialist's own mixture; nothing where it gained nothing."""
    kept = {}
    for seed in by_arm[arm]:
        own = compute_shares(holdings[seed][trainer])
        base, reached, alone = (compute_loss(by_arm[name][seed], own) for name in (BASE, arm, LOCAL + trainer))
        if alone >= base:
            return {}
        kept[seed] = (base - reached) / (base - alone)
    return {f"gain_kept/{arm}/{trainer}": make_figure(kept)}


def compute_shares(documents: Mapping[str, int]) -> dict[str, float]:
    """Of each domain among a trainer's documents."""
    return {domain: count / sum(documents.values()) for domain, count in documents.items()}


def compute_loss(losses: Losses, shares: Shares) -> float:
    """Bits per byte of a mixture of domains."""
    totals = {domain: np.array(losses[domain]).sum(axis=0) for domain in shares}
    return float(sum(share * totals[domain][0] / np.log(2) / totals[domain][1] for domain, share in shares.items()))


def compare(one: Mapping[int, Losses], other: Mapping[int, Losses], shares: Mapping[int, Shares]) -> Json:
    """Loss of one over that of the other, less 1; bounds over seeds and documents, both drawn with replacement."""
    seeds = sorted(one)
    relative = {
        seed: compute_loss(one[seed], shares[seed]) / compute_loss(other[seed], shares[seed]) - 1 for seed in seeds
    }
    random = np.random.Generator(np.random.Philox(len(seeds)))
    slots = random.integers(len(seeds), size=(DRAWS, len(seeds)))
    ratios = np.empty(slots.shape)
    for at, seed in enumerate(seeds):
        chosen = slots == at
        ratios[chosen] = _draw_ratios(one[seed], other[seed], shares[seed], int(chosen.sum()), random)
    draws = ratios.mean(axis=1) - 1
    bounds = {"lower": float(np.quantile(draws, 0.05)), "upper": float(np.quantile(draws, 0.95))}
    return make_figure(relative) | bounds


def _draw_ratios(one: Losses, other: Losses, shares: Shares, count: int, random: np.random.Generator) -> Array:
    """float64 (count,): the ratio of both losses on documents drawn with replacement, the same ones for both."""
    losses = np.zeros((2, count))
    for domain, share in sorted(shares.items()):
        rows = np.column_stack([np.array(one[domain])[:, 0], np.array(other[domain])])
        sums = rows[random.integers(len(rows), size=(count, len(rows)))].sum(axis=1)
        losses += share * sums[:, :2].T / sums[:, 2]
    return losses[0] / losses[1]
