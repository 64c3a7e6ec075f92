"""Domains: kinds of real English text shipped with the project (sources and licences in NOTICE).

Each is a small extract under `ml/data/`. `deal_shards` deals whole near-duplicate clusters to trainers, judges and a
final test set, so that no two hold the same or nearly the same document.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ml.data import Document, read_documents
from ml.near_duplicates import find_clusters

DATA = Path(__file__).parent / "data"
DOMAINS = ("code", "literature", "medicine")
"""The demo's."""
SHIPPED = (*DOMAINS, "geography", "law", "recipes")

ByDomain = dict[str, list[Document]]


@dataclass(frozen=True)
class Shards:
    """Who holds which documents; no document or near-duplicate occurs twice."""

    trainers: tuple[ByDomain, ...]
    """Trainer i holds domain i, counted round, alone; the generalists follow and hold all domains."""
    judges: tuple[ByDomain, ...]
    """Each judge's private holdout, all domains."""
    test: ByDomain
    """Seen by nobody: for the figures before and after. The held-out domains stand here alone."""


def read_domain(domain: str) -> list[Document]:
    """All documents of one domain. Raises ValueError for an unknown one."""
    if domain not in SHIPPED:
        raise ValueError(f"unknown domain {domain!r}; the project ships: {', '.join(SHIPPED)}")
    return read_documents(DATA / f"{domain}.jsonl.gz")


def demo_shards(
    seed: int, trainers: int, judges: int, *, generalists: int = 0, judge_documents: int = 24, test_documents: int = 24
) -> Shards:
    """`deal_shards` of the demo's domains."""
    return deal_shards(
        seed,
        trainers,
        judges,
        generalists=generalists,
        judge_documents=judge_documents,
        test_documents=test_documents,
    )


def deal_shards(
    seed: int,
    trainers: int,
    judges: int,
    *,
    domains: Sequence[str] = DOMAINS,
    held_out: Sequence[str] = (),
    generalists: int = 0,
    judge_documents: int = 24,
    test_documents: int = 24,
) -> Shards:
    """Deal the documents: to the judges and the test set first, so many each; the trainers share the rest evenly.

    `trainers` hold one domain each, `generalists` all (the demo's poisoner, a pooled control). Of `held_out` domains
    there are test documents alone. A domain is dealt alike whatever the others are. Raises ValueError for an unknown
    domain, for one that is held out and not, and when the extracts are too small for so many.
    """
    if trainers < 1 or judges < 0 or generalists < 0:
        raise ValueError(f"cannot deal to {trainers} trainers, {generalists} generalists and {judges} judges")
    if set(domains) & set(held_out):
        raise ValueError(f"held out and not: {', '.join(sorted(set(domains) & set(held_out)))}")
    held: list[ByDomain] = [{} for _ in range(trainers + generalists)]
    holdouts: list[ByDomain] = [{} for _ in range(judges)]
    test: ByDomain = {}
    for domain in domains:
        clusters = _shuffle_clusters(read_domain(domain), f"{seed} {domain}")
        test[domain] = _take(clusters, test_documents, domain)
        for holdout in holdouts:
            holdout[domain] = _take(clusters, judge_documents, domain)
        holders = [i for i in range(len(held)) if i >= trainers or domains[i % len(domains)] == domain]
        if len(clusters) < len(holders):
            raise ValueError(f"too few documents of {domain}: {len(clusters)} are left for {len(holders)} trainers")
        for at, holder in enumerate(holders):
            held[holder][domain] = [document for cluster in clusters[at :: len(holders)] for document in cluster]
    for domain in held_out:
        test[domain] = _take(_shuffle_clusters(read_domain(domain), f"{seed} {domain}"), test_documents, domain)
    return Shards(tuple(held), tuple(holdouts), test)


def _shuffle_clusters(documents: Sequence[Document], seed: str) -> list[list[Document]]:
    """Near-duplicate clusters in an order drawn by sha256 of the seed and the cluster's id."""
    by_id = {document.id: document for document in documents}
    clusters = find_clusters({document.id: document.text for document in documents})
    order = sorted(
        clusters, key=lambda cluster: hashlib.sha256(f"flockchain/demo/1 {seed} {cluster}".encode()).digest()
    )
    return [[by_id[member] for member in clusters[cluster]] for cluster in order]


def _take(clusters: list[list[Document]], count: int, domain: str) -> list[Document]:
    """Remove clusters from the front until they hold `count` documents. Of a cluster one document is kept: twins
    would count as independent evidence."""
    if len(clusters) <= count:
        raise ValueError(f"too few documents of {domain}: {count} wanted, {len(clusters)} left; ask for fewer judges")
    taken = [cluster[0] for cluster in clusters[:count]]
    del clusters[:count]
    return taken
