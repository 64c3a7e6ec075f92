"""What must hold once a scenario is over, read from the homes that it left."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from flockchain.node.home import Home
from flockchain.store.reader import BlockSummary, Reader, Snapshot
from flockchain.types.rows import TrainingRound, ValidatorRow
from tests.scenarios.world import Finding

NEVER_SAID = ("Traceback", "signer-refused", "internal error")


@dataclass(frozen=True, slots=True)
class Chains:
    """What all nodes agree on."""

    heights: int
    rounds: int
    """Training rounds that settled."""
    aggregated: int
    """Those of them with a new global adapter."""


def check_logs(homes: Sequence[Home]) -> None:
    for index, home in enumerate(homes):
        for path in sorted(home.logs.iterdir()):
            said = path.read_text(errors="replace")
            for words in NEVER_SAID:
                if words in said:
                    raise Finding(f"node {index} said {words!r}: see {path}")


def check_chains(homes: Sequence[Home], task: int) -> Chains:
    """Every block that two nodes hold is the same block with the same state root; nobody was punished for a fault of
    the network; every round but the last is settled, the one that began after the last healing with an adapter."""
    found: dict[int, tuple[bytes, bytes]] = {}
    lowest = min(_check_blocks(index, home, found) for index, home in enumerate(homes))
    reader = Reader(homes[0].chain)
    try:
        with reader.snapshot() as chain:
            _check_validators(chain)
            return _check_rounds(chain, task, lowest)
    finally:
        reader.close()


def _check_blocks(index: int, home: Home, found: dict[int, tuple[bytes, bytes]]) -> int:
    """Compare with `found` and add to it; the node's height."""
    reader = Reader(home.chain)
    try:
        with reader.snapshot() as chain:
            heights = []
            for block in _all_blocks(chain):
                height = block.header.height
                heights.append(height)
                mine = (block.block_id, block.state_root)
                if found.setdefault(height, mine) != mine:
                    others = [root.hex()[:16] for root in found[height]]
                    here = [root.hex()[:16] for root in mine]
                    raise Finding(f"node {index} holds (block, state root) {here} at height {height}, others {others}")
    finally:
        reader.close()
    if sorted(heights) != list(range(1, len(heights) + 1)):
        raise Finding(f"node {index} lacks blocks: {len(heights)} of them up to height {max(heights)}")
    return len(heights)


def _all_blocks(chain: Snapshot) -> Iterator[BlockSummary]:
    cursor: str | None = None
    while True:
        page = chain.blocks(cursor=cursor)
        yield from page.items
        cursor = page.next_cursor
        if cursor is None:
            return


def _check_validators(chain: Snapshot) -> None:
    for row in chain.rows(ValidatorRow).items:
        if row.tombstoned or row.jailed_until_ms or not row.active:
            raise Finding(f"{row.name} is tombstoned, jailed or out, by nothing but faults of the network: {row}")


def _check_rounds(chain: Snapshot, task: int, heights: int) -> Chains:
    rounds = sorted(chain.rows(TrainingRound, task).items, key=lambda row: row.number)
    open_ = [row.number for row in rounds[:-1] if not row.settled_ms]
    if open_:
        raise Finding(f"training rounds {open_} never settled, though later ones began")
    settled = [row for row in rounds if row.settled_ms]
    if not settled or not settled[-1].outcome.startswith("aggregated"):
        raise Finding(f"the last settled round came to nothing: {settled[-1].outcome if settled else 'none settled'}")
    return Chains(heights, len(settled), sum(row.outcome.startswith("aggregated") for row in settled))


def format_outcomes(chain: Snapshot, task: int) -> str:
    """Outcome of each round, for a person who looks into a finding."""
    return json.dumps({row.number: row.outcome for row in chain.rows(TrainingRound, task).items}, indent=1)
