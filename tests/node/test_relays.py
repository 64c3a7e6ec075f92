"""What real nodes pass on where not everyone is connected: once, and only what they vouch for."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from flockchain.codec import encode
from flockchain.consensus.messages import Proposal
from flockchain.node.height_book import MAX_PROPOSALS_PER_VALIDATOR, HeightBook, to_proposal
from flockchain.node.messages import ProposalMessage, VoteMessage, decode_message
from flockchain.node.ports import Channel, Received
from flockchain.types.chain import PREVOTE, ProposalBody, VoteBody
from tests.simulator.node.mutants import MUTANTS
from tests.support.cluster import Cluster
from tests.support.ledger import Ledger, make_genesis


def test_what_an_equivocator_says_a_third_time_is_passed_on_once(tmp_path: Path) -> None:
    """No core keeps a third id; new on every arrival, it would go round for ever in a ring of relays."""
    cluster = Cluster(tmp_path, validators=5)
    cluster.run_to(2)
    culprit, witness = cluster.machines[4], cluster.machines[0]
    culprit.kill()
    for one, other in ((0, 2), (1, 3)):
        cluster.net.disconnect(cluster.machines[one].id, cluster.machines[other].id)
    cluster.world.run_for(3_000)
    cluster.net.links.add(frozenset((culprit.id, witness.id)))
    height = cluster.min_height() + 1
    carried: Counter[bytes] = Counter()
    sent = [
        encode(VoteMessage((cluster.txs.sign_vote("val4", VoteBody(PREVOTE, height, 9, block_id)),)))
        for block_id in (b"a" * 32, b"b" * 32, b"c" * 32)
    ]

    def count(_: bytes, __: bytes, channel: Channel, data: bytes) -> bool:
        carried.update([data] if channel is Channel.CONSENSUS and data in sent else [])
        return True

    cluster.net.is_kept = count
    for data in sent:
        cluster.net.transmit(culprit.id, witness.id, Channel.CONSENSUS, data)
    cluster.world.run_for(300)
    assert all(4 <= carried[data] <= 9 for data in sent), "in at the witness, then at most once each way on four links"


def test_a_book_displaces_no_proposal_for_a_newer_one() -> None:
    """Whatever left would be new when it comes again, and be passed on again."""
    book, txs = HeightBook(1), Ledger(make_genesis(validators=4))
    proposals = [
        txs.sign_proposal("val1", ProposalBody(1, round, b"y" * 32, -1)) for round in range(MAX_PROPOSALS_PER_VALIDATOR)
    ]
    assert all(book.add_proposal(proposal) for proposal in proposals)
    assert book.add_proposal(proposals[0]), "what is held is held"
    assert not book.add_proposal(txs.sign_proposal("val1", ProposalBody(1, 999, b"y" * 32, -1)))
    assert book.proposal(to_proposal(proposals[0])) == proposals[0]
    assert book.add_proposal(txs.sign_proposal("val2", ProposalBody(1, 999, b"y" * 32, -1)))


def test_who_passes_on_a_lie_about_a_valid_round_is_not_blamed_for_it(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    cluster.run_to(2)
    cluster.world.run_for(1_000)
    node = cluster.machines[0].running
    height = node.ledger.height + 1
    node.driver.begin_height()
    votes = [cluster.txs.sign_vote(f"val{i}", VoteBody(PREVOTE, height, 0, b"v" * 32)) for i in range(1, 4)]
    node.handle(Received(cluster.machines[1].id, Channel.CONSENSUS, encode(VoteMessage(tuple(votes)))))
    assert node.driver.core.polka(height, 0) is not None
    lie = Proposal(height, 1, b"w" * 32, 0, node.ledger.proposer_of(height, 1))
    assert node.driver.signed_polka(lie) == ()
    truth = Proposal(height, 1, b"v" * 32, 0, node.ledger.proposer_of(height, 1))
    assert len(node.driver.signed_polka(truth)) == 3


def test_a_proof_of_lock_that_nobody_looked_at_is_not_passed_on(tmp_path: Path) -> None:
    """Who has seen a polka looks at no other proof of it. Passed on as it came, a false one would be blamed on the node
    that passed it on, by those that have not seen the polka."""
    cluster = Cluster(tmp_path, validators=5)
    cluster.run_to(2)
    culprit, witness = cluster.machines[4], cluster.machines[0]
    culprit.kill()
    cluster.world.run_for(3_000)
    cluster.net.links.add(frozenset((culprit.id, witness.id)))
    node, height = witness.running, cluster.min_height() + 1
    decided = node.ledger.store.block(height - 1)
    assert decided is not None
    block = msgspec.structs.replace(
        decided, header=msgspec.structs.replace(decided.header, time_ms=decided.header.time_ms + 1)
    )
    wanted = VoteBody(PREVOTE, height, 0, block.block_id())
    true_proof = tuple(cluster.txs.sign_vote(f"val{i}", wanted) for i in range(1, 5))
    false_proof = (cluster.txs.sign_vote("val4", VoteBody(PREVOTE, height, 0, b"w" * 32)),)
    assert culprit.signer is not None
    turn = next(round for round in range(1, 9) if node.ledger.proposer_of(height, round) == culprit.signer.address)
    proposal = cluster.txs.sign_proposal("val4", ProposalBody(height, turn, block.block_id(), 0))
    passed_on = []

    def hide_votes(sender: bytes, target: bytes, channel: Channel, data: bytes) -> bool:
        message = decode_message(channel, data)
        if isinstance(message, ProposalMessage) and message.proposal == proposal:
            passed_on.append(message)
        return not isinstance(message, VoteMessage)

    cluster.net.is_kept = hide_votes
    node.handle(Received(culprit.id, Channel.CONSENSUS, encode(VoteMessage(true_proof))))
    assert node.driver.core.polka(height, 0) is not None
    node.handle(Received(culprit.id, Channel.CONSENSUS, encode(ProposalMessage(proposal, encode(block), false_proof))))
    cluster.world.run_for(100)
    assert passed_on
    assert all({vote.body for vote in message.polka} == {wanted} for message in passed_on)
    assert not any(machine.network.penalties for machine in cluster.machines[:4])
    assert all(machine.running.driver.core.polka(height, 0) is not None for machine in cluster.machines[:4])


@pytest.mark.parametrize(
    ("mutant", "story"),
    [
        ("third vote always new", test_what_an_equivocator_says_a_third_time_is_passed_on_once),
        ("unseen proof passed on", test_a_proof_of_lock_that_nobody_looked_at_is_not_passed_on),
    ],
)
def test_these_stories_notice_the_bugs_that_seeds_of_the_simulator_found(
    mutant: str, story: Callable[[Path], None], tmp_path: Path
) -> None:
    with MUTANTS[mutant].patch(), pytest.raises(AssertionError):
        story(tmp_path)
