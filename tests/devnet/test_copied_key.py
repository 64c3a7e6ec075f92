"""A validator's key that is copied to a second home: two processes sign with it, and it is slashed once, everywhere."""

import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from flockchain.crypto import format_address
from flockchain.params import ConsensusParams, Params
from tests.support.ledger import BOND_UFLK, make_address
from tests.support.processes import NodeProcess, Processes, wait_until

pytestmark = pytest.mark.devnet
PARAMS = Params(consensus=ConsensusParams(idle_block_interval_ms=200))
"""Blocks come without work, five a second: the two homes soon propose for one height."""


def get(node: NodeProcess, path: str, **query: str | int) -> Any:
    answer = httpx.get(f"{node.url}{path}", params=query, timeout=10, trust_env=False)
    assert answer.status_code == 200, answer.text
    return answer.json()


def find_slashes(node: NodeProcess) -> list[dict[str, Any]]:
    return list(get(node, "/v1/receipts", kind="slash")["items"])


def find_first_seen(nodes: list[NodeProcess]) -> int:
    """Height of the first two conflicting messages that any node saw, from what the nodes log."""
    heights = [
        int(height)
        for node in nodes
        for line in node.errors().splitlines()
        if "equivocation" in line
        for height in re.findall(r"\"?height\"?[=:] ?(\d+)", line)
    ]
    return min(heights)


def test_two_processes_with_one_key_are_slashed_once_within_three_blocks_on_all_nodes(tmp_path: Path) -> None:
    """`init` makes the second home's signer state new, as for a key that never signed: the one thing that the docs
    forbid. Both homes run from the start and go on running; the chain tombstones the key and goes on without it.
    """
    network = Processes(tmp_path, params=PARAMS)
    network.add_twin(3)
    with network:
        witness = network.nodes[0]
        wait_until(lambda: witness.height() > 0 and bool(find_slashes(witness)), 60)
        (slash,) = find_slashes(witness)
        network.wait_for_height(slash["height"] + 4, 60)
        honest = network.nodes[:3]
        for node in network.nodes:
            assert find_slashes(node) == [slash]
        assert slash["height"] <= find_first_seen(honest) + 3
        assert slash["account"] == format_address(make_address("owner3"))
        assert slash["amount_uflk"] == BOND_UFLK // 20
        (tombstone,) = get(witness, "/v1/receipts", kind="tombstone")["items"]
        assert tombstone["height"] == slash["height"]
        validator = get(witness, f"/v1/validators/{format_address(make_address('val3'))}")
        assert (validator["tombstoned"], validator["power"]) == (True, 0)
        roots = {get(node, f"/v1/blocks/{slash['height'] + 3}")["state_root"] for node in network.nodes}
        assert len(roots) == 1
