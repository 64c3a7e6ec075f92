"""Decided blocks and rows: in memory with the atomicity of `ChainStore`, or in `ChainStore` itself."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from flockchain.codec import encode
from flockchain.execution.genesis import build_state
from flockchain.genesis import Genesis
from flockchain.node.ports import Decided
from flockchain.store.chain_store import ChainStore
from flockchain.types.chain import Block, Commit
from flockchain.types.light import LightBlock
from flockchain.types.rows import Row

from ...support.memory_ports import MemoryStore
from .dice import Dice

Step = Callable[[], None]


class SimMemoryStore(MemoryStore):
    """A crash falls before or after `persist_blocks`, never within."""

    def __init__(self, genesis: Genesis, before_call: Step, before_return: Step) -> None:
        super().__init__(build_state(genesis).rows())
        self._before_call, self._before_return = before_call, before_return

    def persist_blocks(self, decided: Sequence[Decided]) -> None:
        self._before_call()
        super().persist_blocks(decided)
        self._before_return()

    def crash(self, dice: Dice) -> bool:
        """Nothing is torn here."""
        return False

    def reopen(self) -> None:
        pass


class SimFileStore:
    """`ChainStore` on files. A crash within a commit leaves a part of what SQLite had written to its log by then."""

    def __init__(self, genesis: Genesis, folder: Path, before_call: Step, before_return: Step) -> None:
        self._folder = folder
        self._before_call, self._before_return = before_call, before_return
        self._life = 0
        self._commit: tuple[int, int] | None = None
        """Size of SQLite's log before and after the commit in progress."""
        self._chain = self._open()
        self._chain.initialize(encode(genesis), build_state(genesis).rows())

    @property
    def height(self) -> int:
        return self._chain.height

    def block(self, height: int) -> Block | None:
        return self._chain.block(height)

    def commit(self, height: int) -> Commit | None:
        return self._chain.commit(height)

    @property
    def first_height(self) -> int:
        return self._chain.first_height

    def light_block(self, height: int) -> LightBlock | None:
        return self._chain.light_block(height)

    def load_rows(self) -> Iterator[Row]:
        return self._chain.load_rows()

    def persist_blocks(self, decided: Sequence[Decided]) -> None:
        self._before_call()
        before = self._chain.log_bytes
        self._chain.persist_blocks(decided)
        self._commit = (before, self._chain.log_bytes)
        self._before_return()
        self._commit = None

    def crash(self, dice: Dice) -> bool:
        """Take what is on the disk to another place and give up the process; True when a write was torn."""
        path = self._path
        self._life += 1
        self._path.parent.mkdir()
        shutil.copyfile(path, self._path)
        log, is_torn = path.with_name(path.name + "-wal").read_bytes(), False
        if self._commit is not None and (is_torn := dice.chance(75)):
            before, after = self._commit
            cut = before + (after - before - 1) * dice.below(1_000) // 1_000
            log = log[:cut] + (bytes(after - cut) if dice.chance(30) else b"")
        self._path.with_name(path.name + "-wal").write_bytes(log)
        self._commit = None
        self._chain.close()
        shutil.rmtree(path.parent)
        return is_torn

    def reopen(self) -> None:
        self._chain = self._open()

    def close(self) -> None:
        self._chain.close()

    @property
    def _path(self) -> Path:
        return self._folder / str(self._life) / "chain.sqlite"

    def _open(self) -> ChainStore:
        return ChainStore(self._path)
