"""One validator, alone or among four, whose process dies at seeded calls of its disk, life after life.

Between lives time passes and clients send other transfers, so that a forgotten proposal would be built anew with
another content: the second signature that must never leave.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from random import Random

from flockchain.errors import Fault
from flockchain.node.home import Home
from flockchain.txs import transfer
from tests.support.cluster import Cluster
from tests.support.ledger import Ledger as TxMaker
from tests.support.ledger import make_address, make_genesis
from tests.support.sim_clock import SimWorld
from tests.support.sim_network import SimNet

from .disk import REMAINS, Disk, Kind, Trouble
from .life import PEER_ID, Life, Signatures, make_home, quiet
from .replay import check_replay
from .story import PATIENCE_MS, RESTART_LIMIT_S
from .system_calls import installed

KILLS_PER_CHAIN = 50
"""Then a new chain begins, so that the files to copy stay small."""
MAX_CALLS = 150
"""A start takes about 30 calls, a block about 50."""
_DEATHS: tuple[Kind, ...] = ("die-before", "die-torn", "die-after")


@dataclass
class Report:
    kills: int = 0
    blocks: int = 0
    signatures: int = 0
    slowest_start_s: float = 0.0


class Kills:
    """The lives of one chain's validator. `validators`: 1, or 4 with three others that never die."""

    def __init__(self, folder: Path, seed: int, validators: int) -> None:
        self._rng = Random(f"kills {seed} {validators}")
        self._folder = folder
        self._signatures = Signatures()
        self._others: Cluster | None = None
        if validators == 1:
            self._net = SimNet(SimWorld(), seed)
        else:
            self._others = Cluster(folder / "others", validators=validators, seed=seed)
            self._net = self._others.net
            self._others.machines.pop(0).kill()
        self._maker = TxMaker(make_genesis(validators=validators))
        make_home(folder / "0", validators)

    def run(self, kills: int) -> Report:
        """Die so often, then live to the end of two more blocks; raises `AssertionError` with what went wrong."""
        report = Report()
        for number in range(kills):
            trouble = Trouble(self._rng.randint(1, MAX_CALLS), self._rng.choice(_DEATHS))
            disk = self._live(self._folder / str(number), trouble, report)
            disk.leave(self._folder / str(number + 1), self._rng.choice(REMAINS))
            shutil.rmtree(disk.root)
            report.kills += 1
        last = self._live(self._folder / str(kills), None, report)
        report.signatures = len(self._signatures.values)
        report.blocks = check_replay(Home(last.root))
        return report

    def _live(self, folder: Path, trouble: Trouble | None, report: Report) -> Disk:
        """From a start to the death at the trouble's call, or, without a trouble, to a clean end two blocks later."""
        with installed(Disk(folder, trouble)) as disk:
            self._net.world.run_for(self._rng.randint(0, 3_000))
            life = Life(disk, self._net, self._signatures)
            report.slowest_start_s = max(report.slowest_start_s, life.start())
            assert not isinstance(life.ended_by, Fault) or disk.is_dead, str(life.ended_by)
            if self._others is not None and life.is_running:
                for other in self._others.machines:
                    self._net.connect(PEER_ID, other.id)
            goal, end_ms = life.height + 2, self._net.world.now_ms + PATIENCE_MS
            while life.is_running and (trouble is not None or life.height < max(goal, self._height_of_others())):
                assert self._net.world.now_ms < end_ms, f"stuck at height {life.height}"
                self._send_transfer(life)
                self._net.world.run_for(self._rng.randint(1, 60))
            if trouble is None:
                self._check_agreement(life)
            assert not isinstance(life.ended_by, Fault) or disk.is_dead, str(life.ended_by)
            life.end()
        assert not self._signatures.doubles, f"{trouble}: {self._signatures.doubles}"
        assert report.slowest_start_s < RESTART_LIMIT_S
        return disk

    def _send_transfer(self, life: Life) -> None:
        """One that waits for its block is not followed by another."""
        if life.node is None or not life.is_running or len(life.node.mempool) > 0:
            return
        amount_uflk, expires_ms = self._rng.randint(1, 10**6), self._net.world.now_ms + 600_000
        body = transfer.Body(make_address("bob"), amount_uflk, "")
        data = self._maker.tx("alice", body, nonce=life.nonce("alice"), expires_ms=expires_ms)
        node = life.node
        life.guard(lambda: node.submit(data))

    def _height_of_others(self) -> int:
        return self._others.min_height() if self._others is not None else 0

    def _check_agreement(self, life: Life) -> None:
        if self._others is None or not life.is_running:
            return
        for other in self._others.machines:
            assert not other.network.penalties, f"{other.name} found our node at fault: {other.network.penalties}"
            if other.store.height >= life.height:
                assert other.store.state_roots[life.height - 1] == life.state_root
        self._others.check_agreement()


def kill(folder: Path, seed: int, validators: int, kills: int) -> Report:
    """`kills` deaths over chains of `KILLS_PER_CHAIN` each; the first chain has `seed`, the next `seed + 1` ..."""
    total = Report()
    while total.kills < kills:
        chain = folder / f"chain{seed}"
        chain.mkdir(parents=True)
        with quiet():
            report = Kills(chain, seed, validators).run(min(KILLS_PER_CHAIN, kills - total.kills))
        shutil.rmtree(chain)
        seed += 1
        total.kills += report.kills
        total.blocks += report.blocks
        total.signatures += report.signatures
        total.slowest_start_s = max(total.slowest_start_s, report.slowest_start_s)
    return total
