"""Bugs in what a node believes of others, passes on and keeps for them: sync, gossip, mempool, evidence."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import msgspec

from flockchain.consensus.events import VoteReceived
from flockchain.errors import Refused
from flockchain.node import ledger as ledger_module
from flockchain.node.consensus_intake import ConsensusIntake
from flockchain.node.evidence import Accuser
from flockchain.node.gossip import Gossip
from flockchain.node.height_book import to_vote
from flockchain.node.ledger import Ledger
from flockchain.node.mempool import Mempool
from flockchain.node.messages import ProposalMessage
from flockchain.node.records import VoteRecord
from flockchain.node.sync import BlockSync
from flockchain.types.chain import Block, Commit, SignedVote

from ...mutants import replaced


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


def third_vote_always_new() -> AbstractContextManager[None]:
    """What the core does not keep of a validator is new on every arrival, and passed on each time."""

    def receive_vote(self: ConsensusIntake, signed: SignedVote) -> bool:
        driver, vote = self._driver, to_vote(signed)
        if driver.is_active and vote in driver.core.votes_of(vote.round, vote.kind):
            return False
        if not driver.is_active or driver.book.vote(vote) is None:
            self._ledger.check_vote(signed)
        if not driver.is_active:
            driver.begin_height()
        if driver.book.vote(vote) is None and not driver.book.add_vote(signed):
            return False
        driver.feed(VoteReceived(vote), VoteRecord(signed))
        return True

    return replaced(ConsensusIntake, "receive_vote", receive_vote)


def unseen_proof_passed_on() -> AbstractContextManager[None]:
    """A proposal is passed on as it came, with a proof of lock that nobody looked at."""
    original = ConsensusIntake.receive_proposal

    def receive_proposal(self: ConsensusIntake, message: ProposalMessage) -> ProposalMessage | None:
        return None if original(self, message) is None else message

    return replaced(ConsensusIntake, "receive_proposal", receive_proposal)


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
