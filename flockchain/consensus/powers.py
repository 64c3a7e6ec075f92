"""Who votes with how much power, and what counts as enough of it. Whose turn it is comes from `flockchain.rotation`."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ValidatorPowers:
    """Addresses (20 bytes each, distinct, in the chain's order) with their integer voting powers, all positive."""

    addresses: tuple[bytes, ...]
    powers: tuple[int, ...]
    total: int = field(init=False, compare=False)
    _power_of: dict[bytes, int] = field(init=False, repr=False, compare=False, hash=False)

    def __post_init__(self) -> None:
        power_of = dict(zip(self.addresses, self.powers, strict=True))
        assert len(power_of) == len(self.addresses) > 0, "validators are distinct and at least one"
        assert all(power > 0 for power in self.powers), "a validator without power is none"
        object.__setattr__(self, "total", sum(self.powers))
        object.__setattr__(self, "_power_of", power_of)

    def power_of(self, address: bytes) -> int:
        """Power of a validator, 0 for anyone else."""
        return self._power_of.get(address, 0)

    def is_quorum(self, power: int) -> bool:
        """More than two thirds: any two such sets share an honest validator."""
        return 3 * power > 2 * self.total

    def is_one_third(self, power: int) -> bool:
        """More than a third: at least one of them is honest."""
        return 3 * power > self.total
