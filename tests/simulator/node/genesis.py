"""The chain of one seed: keys, genesis, signed bytes. What does not depend on the powers is made once per process."""

from functools import cache

from flockchain.codec import encode
from flockchain.crypto import sign, signing_context
from flockchain.execution.beacon import BeaconChain
from flockchain.genesis import Genesis, GenesisAccount, GenesisValidator, sign_possession
from flockchain.params import UFLK_PER_FLK, ConsensusParams, Params
from flockchain.txs import transfer
from flockchain.types.chain import (
    PROPOSAL_PURPOSE,
    TX_PURPOSE,
    VOTE_PURPOSE,
    ProposalBody,
    SignedProposal,
    SignedVote,
    VoteBody,
)
from flockchain.types.tx import SignedTx, Tx

from ...support.ledger import GENESIS_TIME_MS, make_address, make_key

CHAIN_ID = "flock-sim"
POWER_UFLK = 1_000 * UFLK_PER_FLK
"""Bond behind one unit of a scenario's power: the least that a validator may bond."""
BEACON_LINKS = 1_024
PAYERS = tuple(f"payer{i}" for i in range(6))
PARAMS = Params(
    consensus=ConsensusParams(
        idle_block_interval_ms=1_500,
        timeout_propose_ms=300,
        timeout_propose_delta_ms=100,
        timeout_prevote_ms=100,
        timeout_prevote_delta_ms=50,
        timeout_precommit_ms=100,
        timeout_precommit_delta_ms=50,
        precision_ms=500,
        message_delay_ms=1_000,
    )
)


@cache
def beacon_of(name: str) -> BeaconChain:
    return BeaconChain(b"simulated " + name.encode(), BEACON_LINKS)


@cache
def _possession(index: int) -> bytes:
    return sign_possession(make_key(f"val{index}"), CHAIN_ID, make_address(f"owner{index}"))


@cache
def key_of(name: str) -> "Key":
    return Key(name)


class Key:
    """A signing key with its address; validators are `val0` ..., payers `payer0` ..., last wishes `wish0` ..."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.signing = make_key(name)
        self.public = bytes(self.signing.verify_key)
        self.address = make_address(name)


@cache
def make_genesis(powers: tuple[int, ...]) -> Genesis:
    """Validator `val<i>` has `powers[i]`."""
    names = [*PAYERS, *(f"wish{i}" for i in range(len(powers))), *(f"owner{i}" for i in range(len(powers)))]
    accounts = [GenesisAccount(make_address(name), 1_000 * UFLK_PER_FLK) for name in names]
    members = [
        GenesisValidator(
            owner=make_address(f"owner{i}"),
            public_key=key_of(f"val{i}").public,
            possession=_possession(i),
            bond_uflk=power * POWER_UFLK,
            beacon_head=beacon_of(f"val{i}").head,
            name=f"val{i}",
        )
        for i, power in enumerate(powers)
    ]
    return Genesis(
        chain_id=CHAIN_ID,
        time_ms=GENESIS_TIME_MS,
        params=PARAMS,
        accounts=tuple(sorted(accounts, key=lambda row: row.address)),
        validators=tuple(sorted(members, key=lambda member: member.public_key)),
    )


class Pen:
    """Signs for anyone on one chain, and remembers nothing."""

    def __init__(self, genesis_hash: bytes) -> None:
        self._contexts = {
            purpose: signing_context(purpose, genesis_hash) for purpose in (VOTE_PURPOSE, PROPOSAL_PURPOSE, TX_PURPOSE)
        }

    def sign_vote(self, name: str, body: VoteBody) -> SignedVote:
        key = key_of(name)
        return SignedVote(body, key.address, sign(key.signing, self._contexts[VOTE_PURPOSE], encode(body)))

    def sign_proposal(self, name: str, body: ProposalBody) -> SignedProposal:
        key = key_of(name)
        return SignedProposal(body, key.address, sign(key.signing, self._contexts[PROPOSAL_PURPOSE], encode(body)))

    def transfer(self, name: str, nonce: int, now_ms: int, amount_uflk: int = 1) -> bytes:
        """Signed bytes of a small payment to the first payer."""
        key = key_of(name)
        tx = Tx(
            chain_id=CHAIN_ID,
            kind=transfer.KIND,
            sender=key.address,
            nonce=nonce,
            fee_uflk=10_000,
            expires_ms=now_ms + 600_000,
            body=encode(transfer.Body(make_address(PAYERS[0]), amount_uflk, "")),
        )
        return encode(SignedTx(tx, key.public, sign(key.signing, self._contexts[TX_PURPOSE], encode(tx))))
