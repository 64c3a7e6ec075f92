"""What an audit says."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MAX_FINDINGS = 1_000
"""Of each kind; a chain with more is broken enough."""

Progress = Callable[[str, int, int], None]
"""Told (what is being checked, done, of)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something at a height; 0 is genesis."""

    height: int
    what: str


@dataclass(frozen=True, slots=True)
class Unchecked(Finding):
    """What could not be checked. `private`: nobody but its owner ever can, so `--strict` does not ask for it."""

    private: bool = False


@dataclass(slots=True)
class Report:
    """The answer of `flockchain verify`."""

    chain_id: str = ""
    genesis_hash: bytes = b""
    from_height: int = 0
    height: int = 0
    """Last one that was recomputed."""
    rounds: int = 0
    """Settled training rounds that were recomputed."""
    adapters: int = 0
    """Global adapters that were recomputed."""
    problems: list[Finding] = field(default_factory=list)
    unchecked: list[Unchecked] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems

    @property
    def is_complete(self) -> bool:
        """Nothing was left out that more bytes could have shown."""
        return all(item.private for item in self.unchecked)

    def problem(self, height: int, what: str) -> None:
        if len(self.problems) < MAX_FINDINGS:
            self.problems.append(Finding(height, what))

    def leave_out(self, height: int, what: str, *, private: bool = False) -> None:
        if len(self.unchecked) < MAX_FINDINGS:
            self.unchecked.append(Unchecked(height, what, private))

    def to_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "chain_id": self.chain_id,
            "genesis_hash": self.genesis_hash.hex(),
            "from_height": self.from_height,
            "height": self.height,
            "rounds": self.rounds,
            "adapters": self.adapters,
            "problems": [{"height": item.height, "what": item.what} for item in self.problems],
            "unchecked": [
                {"height": item.height, "what": item.what, "private": item.private} for item in self.unchecked
            ],
        }
