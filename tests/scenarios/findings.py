"""What must hold once a scenario is over, read from the homes that it left."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from flockchain.crypto import address_of
from flockchain.node.home import Home
from flockchain.store.reader import Reader, Snapshot, iterate_pages
from flockchain.types.rows import Submission, TrainingRound, ValidatorRow
from tests.devnet.network import make_key
from tests.scenarios.plan import Plan
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
    first: int
    """Lowest height of the node that joined: 1 when it took blocks, or when none joined."""


def check_logs(homes: Sequence[Home]) -> None:
    for index, home in enumerate(homes):
        for path in sorted(home.logs.iterdir()):
            said = path.read_text(errors="replace")
            for words in NEVER_SAID:
                if words in said:
                    raise Finding(f"node {index} said {words!r}: see {path}")


def check_chains(homes: Sequence[Home], task: int, plan: Plan) -> Chains:
    """Every block that two nodes hold is the same block with the same state root; nobody was punished for a fault of
    the network; every round but the last is settled, the one that began after the last healing with an adapter; who
    came late took part, and no round was held up for it."""
    found: dict[int, tuple[bytes, bytes]] = {}
    held = [_check_blocks(index, home, found) for index, home in enumerate(homes)]
    is_whole = [heights[0] == 1 for heights in held]
    if not all(is_whole[: plan.n]) or (
        plan.newcomer is not None and plan.newcomer.kind == "join-by-blocks" and not all(is_whole)
    ):
        raise Finding(f"first blocks of the nodes: {[heights[0] for heights in held]}, all should begin at 1")
    reader = Reader(homes[0].chain)
    try:
        with reader.snapshot() as chain:
            _check_validators(chain)
            rounds = _read_rounds(chain, task)
            settled = _check_rounds(rounds)
            _check_late(chain, settled, plan)
            aggregated = sum(row.outcome.startswith("aggregated") for row in settled)
            return Chains(min(heights[-1] for heights in held), len(settled), aggregated, held[-1][0])
    finally:
        reader.close()


def _check_blocks(index: int, home: Home, found: dict[int, tuple[bytes, bytes]]) -> range:
    """Compare with `found` and add to it; the heights that the node holds, without a gap."""
    reader = Reader(home.chain)
    try:
        with reader.snapshot() as chain:
            heights = []
            for block in iterate_pages(lambda cursor: chain.blocks(cursor=cursor)):
                height = block.header.height
                heights.append(height)
                mine = (block.block_id, block.state_root)
                if found.setdefault(height, mine) != mine:
                    others = [root.hex()[:16] for root in found[height]]
                    here = [root.hex()[:16] for root in mine]
                    raise Finding(f"node {index} holds (block, state root) {here} at height {height}, others {others}")
    finally:
        reader.close()
    held = range(min(heights), max(heights) + 1)
    if sorted(heights) != list(held):
        raise Finding(f"node {index} lacks blocks: {len(heights)} of them from height {held[0]} to {held[-1]}")
    return held


def _check_validators(chain: Snapshot) -> None:
    for row in chain.rows(ValidatorRow).items:
        if row.tombstoned or row.jailed_until_ms or not row.active:
            raise Finding(f"{row.name} is tombstoned, jailed or out, by nothing but faults of the network: {row}")


def _read_rounds(chain: Snapshot, task: int) -> list[TrainingRound]:
    return sorted(chain.all_rows(TrainingRound, task), key=lambda row: row.number)


def _check_rounds(rounds: Sequence[TrainingRound]) -> list[TrainingRound]:
    """Those that settled."""
    open_ = [row.number for row in rounds[:-1] if not row.settled_ms]
    if open_:
        raise Finding(f"training rounds {open_} never settled, though later ones began")
    settled = [row for row in rounds if row.settled_ms]
    if not settled or not settled[-1].outcome.startswith("aggregated"):
        raise Finding(f"the last settled round came to nothing: {settled[-1].outcome if settled else 'none settled'}")
    return settled


def _check_late(chain: Snapshot, settled: Sequence[TrainingRound], plan: Plan) -> None:
    """A trainer that came late was not drawn at first, one that stood still was missed in a round that made an adapter
    without it; either submitted in the last round."""
    for name in sorted(plan.late_workers | plan.stragglers):
        address = address_of(bytes(make_key(name).verify_key))
        drawn = [row for row in settled if address in row.trainers]
        came = [row.number for row in drawn if _has_submitted(chain, row, address)]
        missed = [row for row in drawn if row.number not in came]
        if settled[-1].number not in came:
            raise Finding(f"{name} submitted in rounds {came}, not in the last, {settled[-1].number}")
        if name in plan.late_workers and drawn[0] is settled[0]:
            raise Finding(f"{name} was drawn in round {drawn[0].number}, before it started")
        if name in plan.stragglers and not any(row.outcome.startswith("aggregated") for row in missed):
            raise Finding(f"no round made an adapter without {name}, which missed {[row.number for row in missed]}")


def _has_submitted(chain: Snapshot, row: TrainingRound, trainer: bytes) -> bool:
    return any(found.trainer == trainer for found in chain.rows(Submission, row.task, row.number).items)


def format_outcomes(chain: Snapshot, task: int) -> str:
    """Outcome of each round, for a person who looks into a finding."""
    return json.dumps({row.number: row.outcome for row in chain.rows(TrainingRound, task).items}, indent=1)
