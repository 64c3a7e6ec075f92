"""Bugs in what must be on a disk, and when: signer state, log, store."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

from flockchain import files
from flockchain.node import signer as signer_module
from flockchain.node import wal as wal_module
from flockchain.node.consensus_driver import ConsensusDriver
from flockchain.node.node import Node
from flockchain.node.wal import WriteAheadLog
from flockchain.store import writing
from flockchain.store.chain_store import ChainStore
from flockchain.types.chain import Block, Commit

from ...mutants import replaced
from ..disk import SimDisk


def nothing_persisted() -> AbstractContextManager[None]:
    """Signatures leave before log and signer state are on disk: neither is there to answer for the other."""

    @contextmanager
    def patch() -> Iterator[None]:
        with signer_not_written(), log_not_synced():
            yield

    return patch()


def signer_not_synced() -> AbstractContextManager[None]:
    """The signer's file is written and renamed, and never synced."""

    def replace_file(path: Any, data: bytes, mode: int = files.PRIVATE_MODE) -> None:
        temporary, system = path.with_name(path.name + ".tmp"), files.os
        file = system.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        system.write(file, data)
        system.close(file)
        system.replace(temporary, path)

    return replaced(signer_module, "replace_file", replace_file)


def signer_not_written() -> AbstractContextManager[None]:
    """The signer's state stays empty on disk: a restart that lost its log signs anything."""
    original = files.replace_file

    def replace_file(path: Any, data: bytes, *rest: Any) -> None:
        if not path.exists():
            original(path, data, *rest)

    return replaced(signer_module, "replace_file", replace_file)


def log_not_replayed() -> AbstractContextManager[None]:
    """A restart begins the height anew."""
    return replaced(ConsensusDriver, "replay", lambda self: self._wal.reset())


def log_not_synced() -> AbstractContextManager[None]:
    """Signatures leave before the log is on disk."""
    return replaced(WriteAheadLog, "sync", lambda self: None)


def log_synced_late() -> AbstractContextManager[None]:
    """The log is synced just after a signature left, not before."""

    def late(send: Callable[[ConsensusDriver, Any], None]) -> Callable[[ConsensusDriver, Any], None]:
        def send_first(self: ConsensusDriver, message: Any) -> None:
            with replaced(self._wal, "sync", lambda: None):
                send(self, message)
            WriteAheadLog.sync(self._wal)

        return send_first

    @contextmanager
    def patch() -> Iterator[None]:
        driver = ConsensusDriver
        with (
            replaced(driver, "_send_vote", late(driver._send_vote)),
            replaced(driver, "_send_proposal", late(driver._send_proposal)),
        ):
            yield

    return patch()


def log_emptied_early() -> AbstractContextManager[None]:
    """The log is emptied before the block that it led to is persisted."""
    original = Node._apply

    def apply(self: Node, block: Block, commit: Commit) -> None:
        self.driver.leave_height()
        original(self, block, commit)

    return replaced(Node, "_apply", apply)


def torn_record_believed() -> AbstractContextManager[None]:
    """The checksums of the log are not looked at."""

    def scan(data: bytes) -> tuple[list[bytes], int]:
        records, offset = [], 0
        while offset + 12 <= len(data):
            head = data[offset : offset + 4]
            length = 8 if head == wal_module._MARK else int.from_bytes(head, "big")
            if head != wal_module._MARK:
                records.append(data[offset + 12 : offset + 12 + length])
            offset += 12 + length
        return records, min(offset, len(data))

    return replaced(wal_module, "_scan", scan)


def torn_tail_kept() -> AbstractContextManager[None]:
    """What a crash tore is left in the log, and records are written behind it."""
    original = SimDisk.truncate

    def truncate(self: SimDisk, file: Any, size_bytes: int) -> None:
        if size_bytes == 0:
            original(self, file, size_bytes)

    return replaced(SimDisk, "truncate", truncate)


def block_without_state() -> AbstractContextManager[None]:
    """A block and the rows it leaves are two transactions of the database."""

    def persist_blocks(self: ChainStore, decided: Any) -> None:
        for block, commit, outcome in decided:
            with self._engine.begin() as connection:
                writing.write_block(connection, block, commit, replace(outcome, write_set={}))
            with self._engine.begin() as connection:
                writing.write_changes(connection, outcome.write_set)
            self._height = block.height

    return replaced(ChainStore, "persist_blocks", persist_blocks)
