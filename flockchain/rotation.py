"""Weighted round robin over validators by priority: who proposes.

Each turn adds its power to every validator's priority, the highest priority proposes (ties: lowest address) and
pays the total power. Over a period each validator proposes in exact proportion to its power. Rules for changes of
the set follow CometBFT's specification (spec/consensus/proposer-selection.md): priorities are scaled to
a spread of at most twice the total power and centred at zero, and a newcomer starts at -1.125 times the total, so that
leaving and joining again gains nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rotation:
    """Powers and priorities of one height's validators, all tuples in the order of sorted `addresses`."""

    addresses: tuple[bytes, ...]
    powers: tuple[int, ...]
    priorities: tuple[int, ...]

    @property
    def total_power(self) -> int:
        return sum(self.powers)


def compute_proposer(rotation: Rotation, turns: int) -> bytes:
    """Proposer after `turns` further turns: turn 0 is the height's round 0."""
    assert turns >= 0
    priorities = list(rotation.priorities)
    leader = 0
    for _ in range(turns + 1):
        leader = _take_turn(priorities, rotation)
    return rotation.addresses[leader]


def compute_next_rotation(rotation: Rotation) -> Rotation:
    """The rotation one turn later: what the next height starts from, however many rounds this height took."""
    priorities = list(rotation.priorities)
    _take_turn(priorities, rotation)
    return Rotation(rotation.addresses, rotation.powers, tuple(priorities))


def compute_changed_rotation(rotation: Rotation | None, powers: Mapping[bytes, int]) -> Rotation:
    """The rotation for a new set of powers (all positive): members keep their priority, newcomers start last."""
    assert powers
    assert all(power > 0 for power in powers.values())
    old = dict(zip(rotation.addresses, rotation.priorities, strict=True)) if rotation else {}
    total = sum(powers.values())
    newcomer = -(total + total // 8) if old else 0
    addresses = tuple(sorted(powers))
    priorities = [old.get(address, newcomer) for address in addresses]
    return Rotation(addresses, tuple(powers[a] for a in addresses), tuple(_centred(_scaled(priorities, total))))


def _take_turn(priorities: list[int], rotation: Rotation) -> int:
    for i, power in enumerate(rotation.powers):
        priorities[i] += power
    leader = max(range(len(priorities)), key=lambda i: (priorities[i], -i))  # ties: lowest address, the first
    priorities[leader] -= rotation.total_power
    return leader


def _scaled(priorities: list[int], total: int) -> list[int]:
    """Divide (towards zero) so that the spread is at most twice the total power."""
    spread, window = max(priorities) - min(priorities), 2 * total
    if spread <= window:
        return priorities
    ratio = -(-spread // window)
    return [p // ratio if p >= 0 else -(-p // ratio) for p in priorities]


def _centred(priorities: list[int]) -> list[int]:
    """Subtract the mean, rounded down."""
    mean = sum(priorities) // len(priorities)
    return [p - mean for p in priorities]
