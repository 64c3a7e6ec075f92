"""A real validator process killed by -9 at seeded moments: what it signed is read from its own files and its REST."""

import json
import time
from pathlib import Path
from random import Random

import httpx
import psutil

from flockchain.codec import decode
from flockchain.crypto import format_address
from flockchain.txs import transfer
from flockchain.types.chain import ProposalBody, VoteBody
from tests.support.ledger import Ledger, make_address
from tests.support.processes import NodeProcess, Processes, wait_until

START_LIMIT_CPU_S = 5.0
"""In the processor's time, imports included: the wall's depends on what else the machine does."""


class SignedValues:
    """What a signer state said at each look: an entry never changes, and the height never falls."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._height = 0
        self.values: dict[tuple[int, int, int], str] = {}

    def look(self) -> None:
        document = json.loads(self._path.read_bytes())
        assert document["height"] >= self._height, "the signer state went back"
        self._height = document["height"]
        for entry in document["signed"]:
            slot = (self._height, entry["round"], entry["step"])
            kind = VoteBody if entry["step"] else ProposalBody
            assert decode(kind, bytes.fromhex(entry["message"])).height == self._height
            known = self.values.setdefault(slot, entry["message"])
            assert known == entry["message"], f"two values were signed at {slot}"


def kill_processes(folder: Path, seed: int, kills: int) -> str:
    """Start, send a transfer, kill after a random while, `kills` times; returns what was found in a sentence."""
    rng = Random(f"processes {seed}")
    processes = Processes(folder, validators=1)
    node, txs = processes.nodes[0], Ledger(processes.genesis)
    signed = SignedValues(node.home.signer_state)
    slowest_s, slowest_cpu_s, height = 0.0, 0.0, 0
    with processes:
        wait_until(lambda: node.height() >= 2, 30)
        for number in range(kills):
            send_transfer(node, txs, number + 1)
            time.sleep(rng.uniform(0, 0.12))  # the seeded moment itself; nothing is waited for
            node.kill()
            signed.look()
            begin = time.monotonic()
            node.start()
            wait_until(lambda: node.height() > 0, 60)
            assert node.process is not None
            times = psutil.Process(node.process.pid).cpu_times()
            slowest_cpu_s = max(slowest_cpu_s, times.user + times.system)
            slowest_s = max(slowest_s, time.monotonic() - begin)
            assert node.height() >= height, "a decided block is gone"
            height = node.height()
        signed.look()
        assert "Traceback" not in node.errors()
        assert "signer-refused" not in node.errors()
    assert slowest_cpu_s < START_LIMIT_CPU_S, f"a start took {slowest_cpu_s:.1f} s of a core"
    return (
        f"processes: {kills} killed by -9, height {height}, none signed twice; "
        f"slowest start {slowest_s:.1f} s, {slowest_cpu_s:.1f} s of a core"
    )


def send_transfer(node: NodeProcess, txs: Ledger, amount_uflk: int) -> None:
    """With the nonce that the chain knows: the one sent before may have died with the process."""
    with httpx.Client(base_url=node.url, timeout=10, trust_env=False) as client:
        account = client.get(f"/v1/accounts/{format_address(make_address('alice'))}").json()
        body, expires_ms = transfer.Body(make_address("bob"), amount_uflk, ""), time.time_ns() // 1_000_000 + 600_000
        data = txs.tx("alice", body, nonce=int(account["nonce"]), expires_ms=expires_ms)
        client.post("/v1/txs", content=data, headers={"content-type": "application/octet-stream"})
