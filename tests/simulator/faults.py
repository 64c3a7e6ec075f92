"""One seed's network: sizes, powers, and the faults that will hit it."""

from dataclasses import dataclass
from random import Random

SIZES = (4, 5, 7)


@dataclass(frozen=True)
class Faults:
    """Rates of ordinary faults during the safety phase (times in virtual ms)."""

    loss: float
    duplication: float
    tail: float  # share of messages that take up to `tail_ms` instead of up to `delay_ms`
    delay_ms: int
    tail_ms: int
    untimely: float
    crashes: tuple[tuple[int, int, int], ...]  # (time, index of honest node, steps of a node's work until it falls)
    partitions: tuple[tuple[int, int, int], ...]  # (from, to, bit mask of one side)


@dataclass(frozen=True)
class Network:
    """Validators in address order, with the equivocator among them."""

    addresses: tuple[bytes, ...]
    powers: tuple[int, ...]
    equivocator: bytes


def draw_network(rng: Random, n: int) -> Network:
    """n validators; the equivocator holds less than a third of the power, in the worst case just less."""
    addresses = tuple(bytes([index + 1]) * 20 for index in range(n))
    while True:
        powers = [1] * n if rng.random() < 0.4 else [rng.randint(1, 10) for _ in range(n)]
        index = rng.randrange(n)
        if rng.random() < 0.5:
            powers[index] = max(1, (sum(powers) - powers[index] - 1) // 2)  # 3p < total, as large as can be
        if 3 * powers[index] < sum(powers):
            return Network(addresses, tuple(powers), addresses[index])


def draw_powers(rng: Random, network: Network) -> dict[bytes, int]:
    """The powers of one height: in a third of them one honest validator is stronger or gone."""
    powers = dict(zip(network.addresses, network.powers, strict=True))
    if rng.random() < 1 / 3:
        address = rng.choice([address for address in network.addresses if address != network.equivocator])
        if rng.random() < 0.5 and 3 * powers[network.equivocator] < sum(powers.values()) - powers[address]:
            del powers[address]
        else:
            powers[address] += rng.randint(1, 5)
    return powers


def draw_faults(rng: Random, n: int, phase_ms: int) -> Faults:
    """How rough this seed is."""
    crashes = [(rng.randrange(phase_ms // 4), rng.randrange(n - 1), rng.randint(1, 6)) for _ in range(rng.randrange(6))]
    partitions = []
    for _ in range(rng.randrange(3)):
        begin = rng.randrange(phase_ms // 4)
        partitions.append((begin, begin + rng.randint(200, 3000), rng.randrange(1, 2**n - 1)))
    return Faults(
        loss=rng.choice((0.0, 0.02, 0.1, 0.25)),
        duplication=rng.choice((0.0, 0.05, 0.3)),
        tail=rng.choice((0.0, 0.05, 0.2)),
        delay_ms=rng.choice((5, 30, 100)),
        tail_ms=rng.choice((300, 1500)),
        untimely=rng.choice((0.0, 0.05)),
        crashes=tuple(crashes),
        partitions=tuple(partitions),
    )
