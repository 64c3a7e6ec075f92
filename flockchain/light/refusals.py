"""Why a light block or a proof is not believed.

Refused
+-- NotVerified          it contradicts itself, its chain or its signatures: the provider is faulty
    +-- NotEnoughTrust   too little of the trusted power signed it: try a height between (bisection)
    +-- TrustExpired     what we trust is too old to verify from: begin from a new trusted block
    +-- Diverged         two providers verify different blocks for one height: somebody attacks
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flockchain.errors import Refused


class NotVerified(Refused):
    """The block or proof cannot be what the chain decided."""


class NotEnoughTrust(NotVerified):
    def __init__(self, height: int, power: int, total: int, level: str) -> None:
        super().__init__(
            "not-enough-trust",
            f"power {power} of the {total} trusted at the block we know signed block {height}, more than {level} is "
            "needed to skip to it",
        )


class TrustExpired(NotVerified):
    def __init__(self, height: int, age_ms: int, trusting_period_ms: int) -> None:
        super().__init__(
            "trust-expired",
            f"the trusted block {height} is {age_ms} ms old, the trusting period is {trusting_period_ms} ms: "
            "its validators may have unbonded and could sign anything now; get the id of a recent block from a source "
            "that you believe (several operators, an explorer) and begin again from it with --trust HEIGHT:BLOCK_ID",
        )


@dataclass(frozen=True, slots=True)
class Attack:
    """Two verified blocks for one height: at least a third of the power of the common block broke the rules."""

    common_height: int
    """The newest block on which both agree."""
    primary: Any
    witness: Any
    """The two conflicting light blocks, each with its commit."""
    witness_name: str
    double_signers: Sequence[bytes]
    """Validators that precommitted both in one round: evidence for `slash`. Empty: amnesia, or a forged history."""


class Diverged(NotVerified):
    def __init__(self, attack: Attack, names: Sequence[str]) -> None:
        self.attack = attack
        signed = f"signed both in one round: {', '.join(names)}" if names else "nobody signed both in one round"
        super().__init__(
            "diverged",
            f"block {attack.primary.header.height} has two verified forms since block {attack.common_height}, the "
            f"witness {attack.witness_name} holds the other; {signed}. Nothing was believed: stop, and ask the "
            "operators which fork is theirs",
        )
