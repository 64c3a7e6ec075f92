"""Bugs planted in the real node, each as a patch that lives for one `with` block. The simulator must notice every one.

They replace functions from outside, so production code carries no switch for them.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from flockchain import files
from flockchain.consensus import machine
from flockchain.consensus.core import Core
from flockchain.consensus.messages import CommitCertificate, Message
from flockchain.consensus.votes import VoteKeeper
from flockchain.errors import Refused
from flockchain.node import ledger as ledger_module
from flockchain.node import signer as signer_module
from flockchain.node import wal as wal_module
from flockchain.node.consensus_driver import ConsensusDriver
from flockchain.node.consensus_intake import ConsensusIntake
from flockchain.node.evidence import Accuser
from flockchain.node.gossip import Gossip
from flockchain.node.ledger import Ledger
from flockchain.node.mempool import Mempool
from flockchain.node.node import Node
from flockchain.node.sync import BlockSync
from flockchain.node.wal import WriteAheadLog
from flockchain.store import writing
from flockchain.store.chain_store import ChainStore
from flockchain.types.chain import Block, Commit

from ..invariants import Violation
from ..mutants import first_vote_only, no_lock_rule, no_proof_of_lock, quorum_of_half, replaced
from .disk import SimDisk
from .run import SIZES, run_seed
from .scenario import draw_scenario

Patch = Callable[[], AbstractContextManager[None]]


# -- consensus ---------------------------------------------------------------------------------------------------------


def no_skip_of_rounds() -> AbstractContextManager[None]:
    """A third of the power in a later round does not take a node there (L55)."""
    return replaced(VoteKeeper, "skip_round", lambda self: None)


def valid_value_forgotten() -> AbstractContextManager[None]:
    """A proposer that saw a polka builds a new block instead of proposing that one again (L16)."""
    original = machine.start_round

    def start_round(state: machine.RoundState, address: Any, round: int, is_proposer: bool) -> machine.Transition:
        forgetful = replace(state, valid_value=None)
        entered, effects = original(forgetful, address, round, is_proposer)
        return replace(entered, valid_value=state.valid_value), effects

    return replaced(machine, "start_round", start_round)


def time_unchecked() -> AbstractContextManager[None]:
    """Any block time after the last is prevoted."""
    return replaced(ConsensusIntake, "_is_timely", lambda *_: True)


def only_this_round_sent_again() -> AbstractContextManager[None]:
    """The precommits that ended the round before are not sent again, so peers may stay there."""
    original = Core.current_messages

    def current_messages(self: Core) -> tuple[Message, ...]:
        return tuple(m for m in original(self) if isinstance(m, CommitCertificate) or m.round == self.round)

    return replaced(Core, "current_messages", current_messages)


# -- signer ------------------------------------------------------------------------------------------------------------


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


# -- log ---------------------------------------------------------------------------------------------------------------


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


# -- store -------------------------------------------------------------------------------------------------------------


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


# -- sync --------------------------------------------------------------------------------------------------------------


def commit_unchecked() -> AbstractContextManager[None]:
    """Peers are believed without a certificate."""
    return replaced(Ledger, "check_commit", lambda *_: None)


def commit_of_another_block() -> AbstractContextManager[None]:
    """A certificate is checked for the block that it names, not for the one that came with it."""
    original = ledger_module.check_commit

    def check_commit(self: Ledger, block: Block, commit: Commit) -> None:
        members, height = self.members(self.height + 1), self.height + 1
        original(commit, members, height, commit.block_id, self.chain.genesis_hash)

    return replaced(Ledger, "check_commit", check_commit)


def small_commit_accepted() -> AbstractContextManager[None]:
    """Any power is enough for a certificate."""
    original = ledger_module.check_commit

    def check_commit(*arguments: Any) -> None:
        try:
            original(*arguments)
        except Refused as refusal:
            if "more than 2/3 is needed" not in refusal.message:
                raise

    return replaced(ledger_module, "check_commit", check_commit)


def signers_counted_twice() -> AbstractContextManager[None]:
    """One signature may stand in a certificate many times."""
    original = ledger_module.check_commit

    def check_commit(commit: Commit, members: Any, *rest: Any) -> None:
        powers = {member.address: member.power for member in members}
        given = [one.validator for one in commit.signatures]
        distinct = tuple({one.validator: one for one in commit.signatures}.values())
        power = sum(powers.get(address, 0) for address in given)
        try:
            original(msgspec.structs.replace(commit, signatures=distinct), members, *rest)
        except Refused as refusal:
            if "more than 2/3 is needed" not in refusal.message or 3 * power <= 2 * sum(powers.values()):
                raise

    return replaced(ledger_module, "check_commit", check_commit)


def own_blocks_only() -> AbstractContextManager[None]:
    """Nobody who lags is helped: no decision, no blocks."""

    @contextmanager
    def patch() -> Iterator[None]:
        with replaced(Gossip, "_send_decision", lambda *_: None), replaced(BlockSync, "serve", lambda *_: None):
            yield

    return patch()


def silent_after_decision() -> AbstractContextManager[None]:
    """Who is one height behind is not sent the decision; block sync begins at two."""
    return replaced(Gossip, "_send_decision", lambda *_: None)


# -- mempool and evidence ----------------------------------------------------------------------------------------------


def mempool_emptied() -> AbstractContextManager[None]:
    """After a block everything that waited is gone."""
    original = Mempool.update

    def update(self: Mempool, *arguments: Any) -> None:
        original(self, *arguments)
        for waiting in list(self._by_hash.values()):
            self._remove(waiting)

    return replaced(Mempool, "update", update)


def evidence_dropped() -> AbstractContextManager[None]:
    """Who sees an equivocation tells nobody."""
    return replaced(Accuser, "note", lambda *_: None)


@dataclass(frozen=True)
class Mutant:
    """A patch and the invariant that breaks under it (others may break first)."""

    patch: Patch
    room: str
    sizes: tuple[int, ...] = SIZES
    on_files: bool = False
    """Run over the real database in every seed."""


MUTANTS = {
    "no lock rule": Mutant(no_lock_rule, "consensus"),
    "quorum of half": Mutant(quorum_of_half, "consensus", sizes=(5,)),
    "no proof of lock": Mutant(no_proof_of_lock, "consensus"),
    "first vote only": Mutant(first_vote_only, "consensus"),
    "valid value forgotten": Mutant(valid_value_forgotten, "consensus"),
    "no skip of rounds": Mutant(no_skip_of_rounds, "consensus"),
    "only this round sent again": Mutant(only_this_round_sent_again, "consensus"),
    "time unchecked": Mutant(time_unchecked, "consensus"),
    "nothing persisted": Mutant(nothing_persisted, "signer"),
    "signer not synced": Mutant(signer_not_synced, "signer"),
    "signer not written": Mutant(signer_not_written, "signer"),
    "log not replayed": Mutant(log_not_replayed, "log"),
    "log not synced": Mutant(log_not_synced, "log"),
    "log synced late": Mutant(log_synced_late, "log"),
    "log emptied early": Mutant(log_emptied_early, "log"),
    "torn record believed": Mutant(torn_record_believed, "log"),
    "torn tail kept": Mutant(torn_tail_kept, "log"),
    "block without state": Mutant(block_without_state, "store", on_files=True),
    "commit unchecked": Mutant(commit_unchecked, "sync"),
    "commit of another block": Mutant(commit_of_another_block, "sync"),
    "small commit accepted": Mutant(small_commit_accepted, "sync"),
    "signers counted twice": Mutant(signers_counted_twice, "sync"),
    "nobody helped": Mutant(own_blocks_only, "sync"),
    "decision not sent": Mutant(silent_after_decision, "sync"),
    "mempool emptied": Mutant(mempool_emptied, "mempool"),
    "evidence dropped": Mutant(evidence_dropped, "evidence"),
}


def find(name: str, seeds: int, first: int = 0) -> tuple[int, str] | None:
    """The first seed that notices the mutant, and the invariant that broke (or what the program tripped over)."""
    mutant = MUTANTS[name]
    with mutant.patch():
        for seed in range(first, first + seeds):
            n = mutant.sizes[seed % len(mutant.sizes)]
            scenario = replace(draw_scenario(seed, n), is_on_files=True) if mutant.on_files else None
            try:
                run_seed(seed, n, scenario=scenario)
            except Violation as violation:
                return seed, violation.invariant
            except Exception as error:
                return seed, type(error).__name__
    return None


def print_table(seeds: int) -> int:
    """The table of docs/testing.md; 1 when a mutant survived."""
    print("| room | mutant: the bug | noticed by | seeds needed |\n|---|---|---|---|", flush=True)
    survivors = 0
    for name, mutant in MUTANTS.items():
        found = find(name, seeds)
        survivors += found is None
        invariant, needed = (found[1], str(found[0] + 1)) if found else ("nothing", f"more than {seeds}")
        sentence = (mutant.patch.__doc__ or "").strip().rstrip(".")
        print(f"| {mutant.room} | {name}: {sentence[0].lower()}{sentence[1:]} | {invariant} | {needed} |", flush=True)
    return int(survivors > 0)
