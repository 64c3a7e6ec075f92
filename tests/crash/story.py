"""One validator's story, told with a failure at one call of the disk, and again without."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flockchain.chunks import CHUNK_BYTES, compute_bytes_root
from flockchain.errors import Fault
from flockchain.merkle import compute_proof, hash_leaf
from flockchain.node.home import Home
from flockchain.txs import transfer
from flockchain.types.rows import Account
from tests.support.ledger import Ledger, make_address, make_genesis
from tests.support.sim_clock import START_MS, SimWorld
from tests.support.sim_network import SimNet

from .disk import Disk, Remains, Trouble
from .life import Life, Signatures
from .replay import check_replay
from .system_calls import installed

RESTART_LIMIT_S = 5.0
PATIENCE_MS = 60_000
FETCHED = bytes(range(256)) * 1_040
"""A file of two chunks that comes from peers."""
UPLOADED = b"adapter" * 3_000


def _make_transfers() -> list[bytes]:
    maker = Ledger(make_genesis(validators=1))
    return [
        maker.tx("alice", transfer.Body(make_address("bob"), i + 1, ""), expires_ms=START_MS + 600_000)
        for i in range(3)
    ]


TRANSFERS = _make_transfers()


@dataclass(frozen=True)
class Outcome:
    state_root: bytes
    accounts: tuple[Account, ...]
    """Of the transfers' sender and receiver."""
    height: int
    struck: str
    """The call that failed; empty when the story ended before it was reached."""
    fault: str
    """What the operator read, when the process ended by itself."""
    restart_s: float
    calls: int


class Story:
    """Five steps, each repeated after a crash until it is done: what a client does that was not answered."""

    def __init__(self, folder: Path, template: Path, trouble: Trouble | None, remains: Remains = "kept") -> None:
        self._folder = folder
        self._remains = remains
        self._net = SimNet(SimWorld())
        self._signatures = Signatures()
        self._lives = 0
        self.restart_s = 0.0
        shutil.copytree(template, folder / "0")
        self._disk = Disk(folder / "0", trouble)

    def tell(self) -> Outcome:
        steps = [self._wait_for_height(2), self._transfer(0), self._fetch, self._upload, self._transfer(1)]
        steps += [self._checkpoint, self._transfer(2)]
        struck, fault, calls = "", "", 0
        while True:
            with installed(self._disk) as disk:
                life = self._begin(disk)
                while life.is_running and steps and steps[0](life):
                    steps.pop(0)
                is_done = life.is_running
                height, state_root, accounts = life.height, life.state_root, life.accounts("alice", "bob")
                fault = fault or (str(life.ended_by) if isinstance(life.ended_by, Fault) else "")
                closing = life.end()
                fault = fault or "".join(map(str, closing))
            struck, calls = struck or disk.struck, calls or disk.calls
            assert not self._signatures.doubles, self._signatures.doubles
            if is_done and not disk.struck:
                assert check_replay(Home(disk.root)) == height
                return Outcome(state_root, accounts, height, struck, fault, self.restart_s, calls)
            self._recover(disk)

    def _begin(self, disk: Disk) -> Life:
        life = Life(disk, self._net, self._signatures)
        self.restart_s = max(self.restart_s, life.start())
        return life

    def _recover(self, disk: Disk) -> None:
        """What the crash left is what the next process finds; the disk has space again."""
        self._lives += 1
        assert self._lives < 3, "a healthy disk, and still the process ends"
        folder = self._folder / str(self._lives)
        disk.leave(folder, self._remains)
        self._disk = Disk(folder)

    # -- steps: each returns whether it is done, and may be repeated --------------------------------------------------

    def _run_until(self, life: Life, is_done: Callable[[], bool]) -> bool:
        end_ms = self._net.world.now_ms + PATIENCE_MS
        while life.is_running and not is_done():
            assert self._net.world.now_ms < end_ms, "the chain does not go on"
            assert self._net.world.step(), "nothing is left to happen"
        return life.is_running

    def _wait_for_height(self, height: int) -> Callable[[Life], bool]:
        return lambda life: self._run_until(life, lambda: life.height >= height)

    def _transfer(self, nonce: int) -> Callable[[Life], bool]:
        def send(life: Life) -> bool:
            assert life.node is not None
            node = life.node
            if life.nonce("alice") == nonce:
                life.guard(lambda: node.submit(TRANSFERS[nonce]))
            return self._run_until(life, lambda: life.nonce("alice") > nonce and not node.driver.is_active)

        return send

    def _fetch(self, life: Life) -> bool:
        """A file of two chunks, each with its proof, as peers send it."""
        root = compute_bytes_root(FETCHED)
        chunks = [FETCHED[at : at + CHUNK_BYTES] for at in range(0, len(FETCHED), CHUNK_BYTES)]
        hashes = [hash_leaf(chunk) for chunk in chunks]

        def fetch() -> None:
            life.blobs.expect(root, len(FETCHED))
            for index in life.blobs.missing(root):
                life.blobs.put_chunk(root, index, chunks[index], compute_proof(hashes, index))
            assert life.blobs.chunk(root, 0)[0] == FETCHED[:CHUNK_BYTES]

        life.guard(fetch)
        return life.is_running

    def _upload(self, life: Life) -> bool:
        """A file in two ranges, as its owner sends it."""
        root = compute_bytes_root(UPLOADED)

        def upload() -> None:
            life.blobs.expect(root, len(UPLOADED))
            while not life.blobs.has(root):
                at = life.blobs.received_bytes(root)
                life.blobs.write_range(root, at, UPLOADED[at : at + len(UPLOADED) // 2 + 1])
            assert life.blobs.chunk(root, 0)[0] == UPLOADED

        life.guard(upload)
        return life.is_running

    def _checkpoint(self, life: Life) -> bool:
        """A failed one is no reason to stop (run.py): the log of the store stays as it is."""

        def checkpoint() -> None:
            try:
                life.store.checkpoint()
            except Fault:
                pass

        life.guard(checkpoint)
        return life.is_running
