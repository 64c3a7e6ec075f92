"""What one seed was."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """What one seed was."""

    seed: int
    n: int
    events: int
    virtual_ms: int
    heights: int
    counts: dict[str, int]
    digest: str
    """sha256 over the event log."""

    @property
    def crashes(self) -> int:
        return self.counts.get("a node crashed", 0)

    @property
    def highest_round(self) -> int:
        return max((int(name.rpartition(" ")[2]) for name in self.counts if name.startswith("round ")), default=0)
