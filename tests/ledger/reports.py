"""Bodies of `slash`: evidence against validators, trainers and judges. Some prove something."""

from msgspec.structs import replace

from flockchain.codec import Canonical, decode, encode
from flockchain.crypto import sha256
from flockchain.execution.evidence import double_proposal, double_vote
from flockchain.execution.evidence.signed_pair import make_pair
from flockchain.txs import slash, submit_adapter, vote
from flockchain.types.chain import PRECOMMIT, PREVOTE, ProposalBody, VoteBody
from flockchain.types.tx import SignedTx, Tx
from tests.ledger.choices import pick_member, pick_validator
from tests.ledger.dice import Dice
from tests.ledger.world import World
from tests.support.ledger import make_address


def report_validator(world: World, dice: Dice) -> slash.Body:
    validator = pick_validator(world, dice)
    name, height = world.validator_names[validator.address], world.ledger.chain.height
    height = dice.pick([max(height, 1), height + 1, height + 2, max(height - 60, 1)])
    blocks = dice.pick([(sha256(b"one"), b""), (sha256(b"one"), sha256(b"one")), (b"", sha256(b"two"))])
    signer = name if dice.is_one_in(6) else "stranger"  # most are forged: validators are few
    if dice.below(2):
        proposals = [world.ledger.sign_proposal(signer, ProposalBody(height, 0, b, -1)) for b in blocks]
        claimed = [_replace_sender(proposal, "proposer", validator.address) for proposal in proposals]
        return slash.Body("double-proposal", encode(double_proposal.make_evidence(*claimed)))
    kind = dice.pick([PREVOTE, PRECOMMIT])
    votes = [world.ledger.sign_vote(signer, VoteBody(kind, height, 0, b)) for b in blocks]
    claimed = [_replace_sender(item, "validator", validator.address) for item in votes]
    return slash.Body("double-vote", encode(double_vote.make_evidence(*claimed)))


def report_submissions(world: World, dice: Dice) -> slash.Body:
    training, member = pick_member(world, dice, "trainer")
    bodies = [
        submit_adapter.Body(training.task, training.number, sha256(bytes([dice.below(4)])), 1, b"", 1, "")
        for _ in range(2)
    ]
    return slash.Body("double-submission", _pair(world, member, "submit-adapter", bodies))


def report_seals(world: World, dice: Dice) -> slash.Body:
    training, member = pick_member(world, dice, "voter")
    bodies = [vote.Body(training.task, training.number, seal=sha256(bytes([dice.below(4)]))) for _ in range(2)]
    return slash.Body("double-seal", _pair(world, member, "vote", bodies))


def _pair(world: World, sender: str, kind: str, bodies: list[Canonical]) -> bytes:
    """Evidence of two signed transactions, which need not be in any block."""
    chain = world.ledger.chain
    txs = [Tx(chain.chain_id, kind, make_address(sender), nonce, 0, 0, encode(b)) for nonce, b in enumerate(bodies)]
    signed = [decode(SignedTx, world.ledger.sign_tx(sender, tx)) for tx in txs]
    return encode(make_pair(*signed))


def _replace_sender(item: Canonical, field: str, address: bytes) -> Canonical:
    return replace(item, **{field: address})
