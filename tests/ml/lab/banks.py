"""A bank of made-up adapters for the tests of experiments on the ledger: what the real one holds, without training."""

import random

from ml.figures import BlockLoss
from ml.lab.bank import Bank, MeasuredAdapter

DOMAINS = ("code", "law", "medicine")
DOCUMENTS, BLOCKS = 40, 3


def make_bank(*, honest: int = 4, bad: int = 3, gain: float = 0.04, harm: float = 0.06, noise: float = 0.01) -> Bank:
    """Specialists help their own domain, poisoners harm all; documents share a deviation, as real ones do."""
    rng = random.Random(5)
    reference = {
        domain: tuple(
            BlockLoss(f"{domain} {document}", rng.uniform(200, 300), 127, 500)
            for document in range(DOCUMENTS)
            for _ in range(BLOCKS)
        )
        for domain in DOMAINS
    }

    def make_losses(changes: dict[str, float]) -> dict[str, tuple[BlockLoss, ...]]:
        losses = {}
        for domain, blocks in reference.items():
            deviation = {block.document: rng.gauss(0, noise) for block in blocks}
            losses[domain] = tuple(
                BlockLoss(b.document, b.nats * (1 + changes[domain] + deviation[b.document]), b.targets, b.target_bytes)
                for b in blocks
            )
        return losses

    adapters = [
        MeasuredAdapter(f"honest/{own}", number, make_losses({d: -gain if d == own else 0.0 for d in DOMAINS}))
        for own in DOMAINS
        for number in range(honest)
    ]
    adapters += [
        MeasuredAdapter("sign_flip", number, make_losses(dict.fromkeys(DOMAINS, harm))) for number in range(bad)
    ]
    return Bank(tuple(adapters), reference)
