"""Thirty ways to forge a header, a commit or a validator set, each refused with its own sentence.

Every story takes the honest blocks 3 (trusted) and 4 or 9 (to be verified), changes one thing, and signs what the
forger can sign.
"""

import dataclasses
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from flockchain.crypto import PUBLIC_KEY_BYTES, sha256
from flockchain.light.predicates import Options, verify, verify_parent, verify_root
from flockchain.light.refusals import NotEnoughTrust, NotVerified, TrustExpired
from flockchain.types.chain import PROPOSAL_PURPOSE, Validator
from flockchain.types.light import LightBlock, compute_validators_hash
from tests.light.chain import OPTIONS, TRUSTING_PERIOD_MS, Forger, LightChain, make_set, make_validator

NAMES = ("val0", "val1", "val2", "val3")
STRANGERS = ("evil0", "evil1", "evil2", "evil3")


class Stage:
    """The honest blocks, and forgers with all, with a third, and with none of the validators' keys."""

    def __init__(self) -> None:
        self.chain = LightChain()
        self.chain.run(9)
        self.trusted, self.next, self.later = (self.chain.blocks[height] for height in (3, 4, 9))
        self.now_ms = self.chain.now_ms
        genesis_hash = self.chain.ledger.genesis_hash
        self.everyone = Forger(genesis_hash, NAMES + STRANGERS)
        self.one = Forger(genesis_hash, (*STRANGERS, "val0"))

    def check(self, block: LightBlock, *, now_ms: int | None = None) -> None:
        verify(self.chain.rules, self.trusted, block, now_ms or self.now_ms, OPTIONS)

    def resign(self, block: LightBlock, **changes: object) -> LightBlock:
        """With a changed header, signed by every validator: refused for the change alone."""
        return self.everyone.sign(replace(block.header, **changes), block.validators, block.next_validators)


@pytest.fixture(scope="module")
def stage() -> Stage:
    return Stage()


def with_commit(block: LightBlock, **changes: object) -> LightBlock:
    return replace(block, commit=replace(block.commit, **changes))


def change_power(block: LightBlock) -> tuple[Validator, ...]:
    first, *rest = block.validators
    return (replace(first, power=first.power * 5), *rest)


Story = Callable[[Stage], LightBlock]
STORIES: dict[str, tuple[str, Story]] = {
    # Headers
    "a header of another chain": ("wrong-chain", lambda s: s.resign(s.next, chain_id="other-chain")),
    "a header at the trusted height": ("bad-height", lambda s: s.resign(s.next, height=3)),
    "a header below the trusted height": ("bad-height", lambda s: s.chain.blocks[2]),
    "a header before its parent in time": (
        "bad-time",
        lambda s: s.resign(s.next, time_ms=s.trusted.header.time_ms - 1),
    ),
    "a header with its parent's very time": ("bad-time", lambda s: s.resign(s.next, time_ms=s.trusted.header.time_ms)),
    "a header from the future": ("from-future", lambda s: s.resign(s.later, time_ms=s.now_ms + 5_000)),
    "a header with another state root": (
        "bad-commit",
        lambda s: replace(s.later, header=replace(s.later.header, prev_state_root=sha256(b"rich"))),
    ),
    "a header with another time": (
        "bad-commit",
        lambda s: replace(s.later, header=replace(s.later.header, time_ms=s.later.header.time_ms + 1)),
    ),
    "a next header whose parent is another block": (
        "not-linked",
        lambda s: s.resign(s.next, last_block_id=sha256(b"another parent")),
    ),
    # Commits
    "a commit without signatures": ("not-enough-trust", lambda s: with_commit(s.later, signatures=())),
    "a next commit without signatures": ("not-enough-power", lambda s: with_commit(s.next, signatures=())),
    "a commit of exactly two thirds": (
        "not-enough-power",
        lambda s: s.everyone.sign(
            replace(s.later.header), make_set("val0", "val1", "val2"), s.later.next_validators, signers=2
        ),
    ),
    "a commit of half the power": (
        "not-enough-power",
        lambda s: with_commit(s.next, signatures=s.next.commit.signatures[:2]),
    ),
    "one signature counted twice": (
        "bad-commit",
        lambda s: with_commit(s.next, signatures=(*s.next.commit.signatures[:2], s.next.commit.signatures[1])),
    ),
    "more signatures than validators": (
        "bad-commit",
        lambda s: with_commit(s.next, signatures=s.next.commit.signatures + s.next.commit.signatures[:1]),
    ),
    "a signature of a stranger": (
        "bad-commit",
        lambda s: with_commit(
            s.next,
            signatures=s.next.commit.signatures[:3]
            + s.one.commit(s.next.header, [make_validator("evil0").address]).signatures,
        ),
    ),
    "a signature with one bit flipped": (
        "bad-signature",
        lambda s: with_commit(s.next, signatures=(flip(s.next), *s.next.commit.signatures[1:])),
    ),
    "the signature of another validator": (
        "bad-signature",
        lambda s: with_commit(
            s.next,
            signatures=(
                replace(s.next.commit.signatures[0], signature=s.next.commit.signatures[1].signature),
                *s.next.commit.signatures[1:],
            ),
        ),
    ),
    "the commit of another block": ("bad-commit", lambda s: replace(s.next, commit=s.later.commit)),
    "the commit of a block of the same height": (
        "bad-commit",
        lambda s: replace(s.next, commit=s.resign(s.next, txs_root=sha256(b"other")).commit),
    ),
    "a commit with another round than was signed": ("bad-signature", lambda s: with_commit(s.next, round=1)),
    "a commit that names another height": ("bad-commit", lambda s: with_commit(s.next, height=5)),
    "signatures made for proposals": (
        "bad-signature",
        lambda s: replace(
            s.next,
            commit=s.everyone.commit(s.next.header, [v.address for v in s.next.validators], purpose=PROPOSAL_PURPOSE),
        ),
    ),
    "signatures of a chain with another genesis": (
        "bad-signature",
        lambda s: Forger(sha256(b"another genesis"), NAMES).sign(
            s.next.header, s.next.validators, s.next.next_validators
        ),
    ),
    # Validator sets
    "strangers as validators of the next block": (
        "bad-validators",
        lambda s: s.one.sign(s.next.header, make_set(*STRANGERS)),
    ),
    "strangers as validators of a later block": (
        "not-enough-trust",
        lambda s: s.one.sign(s.later.header, make_set(*STRANGERS)),
    ),
    "strangers with less than a third of the trusted": (
        "not-enough-trust",
        lambda s: s.one.sign(s.later.header, make_set("val0", *STRANGERS)),
    ),
    "a set that the header does not name": (
        "bad-validators",
        lambda s: replace(s.later, validators=make_set(*STRANGERS)),
    ),
    "a next set that the header does not name": (
        "bad-validators",
        lambda s: replace(s.later, next_validators=make_set(*STRANGERS)),
    ),
    "a next set nobody is in": ("bad-validators", lambda s: s.everyone.sign(s.later.header, s.later.validators, ())),
    "a changed power under the old hash": (
        "bad-validators",
        lambda s: replace(s.later, validators=change_power(s.later)),
    ),
    "a changed power in the next block": (
        "bad-validators",
        lambda s: s.everyone.sign(s.next.header, change_power(s.next), s.next.next_validators),
    ),
    "a validator that stands twice in the set": (
        "bad-validators",
        lambda s: s.everyone.sign(s.later.header, (s.later.validators[0], *s.later.validators)),
    ),
    "a validator without power": (
        "bad-validators",
        lambda s: s.everyone.sign(s.later.header, (*s.later.validators, make_validator("evil0", 0))),
    ),
    "a trusted address with a forger's key": ("bad-validators", lambda s: steal_address(s)),
}


def flip(block: LightBlock) -> object:
    first = block.commit.signatures[0]
    return replace(first, signature=bytes([first.signature[0] ^ 1]) + first.signature[1:])


def steal_address(stage: Stage) -> LightBlock:
    forged = replace(stage.later.validators[0], public_key=bytes(PUBLIC_KEY_BYTES - 1) + b"\x01")
    return stage.everyone.sign(stage.later.header, (forged, *stage.later.validators[1:]))


@pytest.mark.parametrize("story", STORIES)
def test_a_forgery_is_refused_with_its_reason(stage: Stage, story: str) -> None:
    code, forge = STORIES[story]
    forged = forge(stage)
    with pytest.raises(NotVerified) as refusal:
        stage.check(forged)
    assert refusal.value.code == code, refusal.value.message
    assert isinstance(refusal.value, NotEnoughTrust) == (code == "not-enough-trust")


def test_the_stories_are_of_at_least_21_kinds_and_the_honest_blocks_pass(stage: Stage) -> None:
    assert len(STORIES) >= 21
    stage.check(stage.next)
    stage.check(stage.later)
    stage.check(stage.resign(stage.later, txs_root=sha256(b"signed by everyone is decided")))


def test_a_skip_needs_more_than_a_third_of_the_trusted_and_two_thirds_of_its_own(stage: Stage) -> None:
    """Two of four trusted validators among five of equal power: half of the trusted, all of the new set."""
    forger = Forger(stage.chain.ledger.genesis_hash, NAMES + STRANGERS)
    power = stage.trusted.validators[0].power
    members = make_set("val0", "val1", "evil0", "evil1", "evil2", power=power)
    stage.check(forger.sign(stage.later.header, members))
    with pytest.raises(NotEnoughTrust, match="power 10000000000 of the 40000000000 trusted"):
        stage.check(forger.sign(stage.later.header, make_set("val0", "evil0", "evil1", power=power)))


def test_trust_of_exactly_a_third_is_not_enough() -> None:
    chain = LightChain()
    chain.run(2)
    forger = Forger(chain.ledger.genesis_hash, NAMES)
    three = make_set("val0", "val1", "val2")
    trusted = forger.sign(chain.blocks[1].header, three)
    later = replace(chain.blocks[2].header, height=5)
    with pytest.raises(NotEnoughTrust, match="power 1 of the 3 trusted"):
        verify(chain.rules, trusted, forger.sign(later, make_set("val0", "val3"), three), chain.now_ms, OPTIONS)
    strict = dataclasses.replace(OPTIONS, trust_numerator=2)
    with pytest.raises(NotEnoughTrust, match="more than 2/3"):
        verify(chain.rules, trusted, forger.sign(later, make_set("val0", "val1")), chain.now_ms, strict)


def test_an_expired_trust_says_what_to_do(stage: Stage) -> None:
    last_ms = stage.trusted.header.time_ms + TRUSTING_PERIOD_MS - 1
    stage.check(stage.later, now_ms=last_ms)
    with pytest.raises(TrustExpired, match=r"50000 ms old.*begin again from it with --trust HEIGHT:BLOCK_ID"):
        stage.check(stage.later, now_ms=last_ms + 1)


def test_a_wrong_root_of_trust_is_refused(stage: Stage) -> None:
    rules, block, now_ms = stage.chain.rules, stage.trusted, stage.now_ms
    chain_id = block.header.chain_id
    verify_root(rules, block, chain_id, block.block_id(), now_ms, OPTIONS)
    with pytest.raises(NotVerified, match="you said to trust"):
        verify_root(rules, block, chain_id, stage.next.block_id(), now_ms, OPTIONS)
    weak = with_commit(block, signatures=block.commit.signatures[:2])
    with pytest.raises(NotVerified, match="more than 2/3"):
        verify_root(rules, weak, chain_id, block.block_id(), now_ms, OPTIONS)
    with pytest.raises(NotVerified, match="is of chain"):
        verify_root(rules, block, "other", block.block_id(), now_ms, OPTIONS)
    with pytest.raises(TrustExpired):
        verify_root(rules, block, chain_id, block.block_id(), now_ms + TRUSTING_PERIOD_MS, OPTIONS)


def test_the_way_back_follows_parents_only(stage: Stage) -> None:
    rules = stage.chain.rules
    verify_parent(rules, stage.next, stage.trusted)
    forged = stage.resign(stage.trusted, txs_root=sha256(b"another past"))
    with pytest.raises(NotVerified, match="does not name this block 3 as its parent"):
        verify_parent(rules, stage.next, forged)
    with pytest.raises(NotVerified, match="does not name this block 3 as its parent"):
        verify_parent(rules, stage.later, stage.trusted)


def test_a_header_is_bound_to_its_sets_by_hash(stage: Stage) -> None:
    for block in stage.chain.blocks.values():
        assert compute_validators_hash(block.validators) == block.header.validators_hash
        assert compute_validators_hash(block.next_validators) == block.header.next_validators_hash


@pytest.mark.parametrize("level", [(1, 4), (1, 1), (4, 3), (0, 1)])
def test_a_trust_level_outside_one_third_to_one_is_no_level(level: tuple[int, int]) -> None:
    with pytest.raises(AssertionError):
        Options(1, trust_numerator=level[0], trust_denominator=level[1])
