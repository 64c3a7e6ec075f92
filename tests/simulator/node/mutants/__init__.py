"""Bugs planted in the real node, each as a patch that lives for one `with` block. The simulator must notice every one.

They replace functions from outside, so production code carries no switch for them.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from ....support.seeds import spread
from ...invariants import Violation
from ...mutants import first_vote_only, no_lock_rule, no_proof_of_lock, quorum_of_half
from ..run import SIZES, run_seed
from ..scenario import draw_scenario
from . import consensus, disk, peers

Patch = Callable[[], AbstractContextManager[None]]


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
    "valid value forgotten": Mutant(consensus.valid_value_forgotten, "consensus"),
    "no skip of rounds": Mutant(consensus.no_skip_of_rounds, "consensus"),
    "only this round sent again": Mutant(consensus.only_this_round_sent_again, "consensus"),
    "time unchecked": Mutant(consensus.time_unchecked, "consensus"),
    "nothing persisted": Mutant(disk.nothing_persisted, "signer"),
    "signer not synced": Mutant(disk.signer_not_synced, "signer"),
    "signer not written": Mutant(disk.signer_not_written, "signer"),
    "log not replayed": Mutant(disk.log_not_replayed, "log"),
    "log not synced": Mutant(disk.log_not_synced, "log"),
    "log synced late": Mutant(disk.log_synced_late, "log"),
    "log emptied early": Mutant(disk.log_emptied_early, "log"),
    "torn record believed": Mutant(disk.torn_record_believed, "log"),
    "torn tail kept": Mutant(disk.torn_tail_kept, "log"),
    "block without state": Mutant(disk.block_without_state, "store", on_files=True),
    "commit unchecked": Mutant(peers.commit_unchecked, "sync"),
    "commit of another block": Mutant(peers.commit_of_another_block, "sync"),
    "small commit accepted": Mutant(peers.small_commit_accepted, "sync"),
    "signers counted twice": Mutant(peers.signers_counted_twice, "sync"),
    "nobody helped": Mutant(peers.own_blocks_only, "sync"),
    "decision not sent": Mutant(peers.silent_after_decision, "sync"),
    "third vote always new": Mutant(peers.third_vote_always_new, "gossip"),
    "unseen proof passed on": Mutant(peers.unseen_proof_passed_on, "gossip"),
    "mempool emptied": Mutant(peers.mempool_emptied, "mempool"),
    "evidence dropped": Mutant(peers.evidence_dropped, "evidence"),
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


def print_table(seeds: int, processes: int) -> int:
    """The table of docs/testing.md; 1 when a mutant survived."""
    print("| room | mutant: the bug | noticed by | seeds needed |\n|---|---|---|---|", flush=True)
    survivors = 0
    results = spread(find, [(name, seeds) for name in MUTANTS], processes)
    for (name, mutant), found in zip(MUTANTS.items(), results, strict=True):
        survivors += found is None
        invariant, needed = (found[1], str(found[0] + 1)) if found else ("nothing", f"more than {seeds}")
        sentence = (mutant.patch.__doc__ or "").strip().rstrip(".")
        print(f"| {mutant.room} | {name}: {sentence[0].lower()}{sentence[1:]} | {invariant} | {needed} |", flush=True)
    return int(survivors > 0)
