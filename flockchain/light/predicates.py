"""Does an untrusted light block follow from a trusted one? Pure: time and rules are arguments, a refusal is the answer.

The checks and their order are those of the specification (arXiv:2010.07031, section 3; `ValidAndVerified`):

    the trusted block is young enough   check_not_expired
    the block agrees with itself        check_well_formed: sets have their hashes, the commit is for this header
    it comes after the trusted one      check_place: chain, height, time
    its signatures are real             check_signatures
    the trusted validators vouch        next height: they are its validators. Further: > 1/3 of their power signed
    its own validators decided          > 2/3 of their power signed
"""

from collections.abc import Sequence
from dataclasses import dataclass

from flockchain.light.refusals import NotEnoughTrust, NotVerified, TrustExpired
from flockchain.light.rules import B, LightBlockLike, Rules, ValidatorLike

MAX_CLOCK_DRIFT_MS = 10_000


@dataclass(frozen=True, slots=True)
class Options:
    """How far trust reaches; the defaults are those of the field."""

    trusting_period_ms: int
    """Below the chain's unbonding time, so that who signed what we trust can still be slashed."""
    max_clock_drift_ms: int = MAX_CLOCK_DRIFT_MS
    """How far a header's time may lie ahead of our clock."""
    trust_numerator: int = 1
    trust_denominator: int = 3
    """More than this share of the trusted power must have signed a block to skip to it: from 1/3 to below 1."""

    def __post_init__(self) -> None:
        assert self.trusting_period_ms > 0
        assert self.max_clock_drift_ms >= 0
        assert self.trust_denominator <= 3 * self.trust_numerator < 3 * self.trust_denominator


def verify(rules: Rules[B], trusted: B, block: B, now_ms: int, options: Options) -> None:
    """Refuse (`NotVerified`) unless `block` follows from `trusted`; `NotEnoughTrust` asks for a height between."""
    check_not_expired(trusted, now_ms, options)
    check_well_formed(rules, block)
    check_place(trusted, block, now_ms, options)
    signers = check_signatures(rules, block)
    if block.header.height == trusted.header.height + 1:
        check_adjacent(rules, trusted, block)
    else:
        check_overlap(trusted, block, signers, options)
    check_decided(block, signers)


def verify_root(rules: Rules[B], block: B, chain_id: str, block_id: bytes, now_ms: int, options: Options) -> None:
    """Refuse unless `block` is the one that we were told to trust, whole and young enough."""
    found = rules.compute_block_id(block)
    if found != block_id:
        raise NotVerified(
            "wrong-root",
            f"block {block.header.height} has the id {found.hex()}, you said to trust {block_id.hex()}: the node is "
            "on another chain, or the id is wrong",
        )
    _check_chain(block, chain_id)
    check_well_formed(rules, block)
    check_not_from_future(block, now_ms, options)
    check_not_expired(block, now_ms, options)
    check_decided(block, check_signatures(rules, block))


def verify_parent(rules: Rules[B], child: B, parent: B) -> None:
    """Refuse unless `parent` is the block that the verified `child` names as the one before it (the way back).

    A hash does not age: no trusting period here.
    """
    _check_chain(parent, child.header.chain_id)
    check_well_formed(rules, parent)
    if parent.header.height != child.header.height - 1 or not rules.is_child(child, parent):
        raise NotVerified(
            "not-linked", f"block {child.header.height} does not name this block {parent.header.height} as its parent"
        )
    check_decided(parent, check_signatures(rules, parent))


def check_not_expired(trusted: LightBlockLike, now_ms: int, options: Options) -> None:
    """Refuse to verify from a block whose validators may have unbonded since."""
    age_ms = now_ms - trusted.header.time_ms
    if age_ms >= options.trusting_period_ms:
        raise TrustExpired(trusted.header.height, age_ms, options.trusting_period_ms)


def check_well_formed(rules: Rules[B], block: B) -> None:
    """Refuse a block whose parts do not belong together."""
    header, commit = block.header, block.commit
    found, found_next = rules.compute_set_hashes(block)
    _check_set(rules, block.validators, found, header.validators_hash, header.height)
    _check_set(rules, block.next_validators, found_next, header.next_validators_hash, header.height + 1)
    if commit.height != header.height:
        raise NotVerified("bad-commit", f"the commit is for height {commit.height}, the header for {header.height}")
    block_id = rules.compute_block_id(block)
    if commit.block_id != block_id:
        raise NotVerified(
            "bad-commit", f"the commit is for block {commit.block_id.hex()}, the header hashes to {block_id.hex()}"
        )
    if len(commit.signatures) > len(block.validators):
        raise NotVerified(
            "bad-commit", f"the commit has {len(commit.signatures)} signatures of {len(block.validators)} validators"
        )


def check_place(trusted: LightBlockLike, block: LightBlockLike, now_ms: int, options: Options) -> None:
    """Refuse a block that does not come after the trusted one, or comes from the future."""
    _check_chain(block, trusted.header.chain_id)
    old, new = trusted.header, block.header
    if new.height <= old.height:
        raise NotVerified("bad-height", f"height {new.height} is not above the trusted height {old.height}")
    if new.time_ms <= old.time_ms:
        raise NotVerified(
            "bad-time", f"time {new.time_ms} ms of block {new.height} is not after the trusted block's {old.time_ms} ms"
        )
    check_not_from_future(block, now_ms, options)


def check_not_from_future(block: LightBlockLike, now_ms: int, options: Options) -> None:
    ahead_ms = block.header.time_ms - now_ms
    if ahead_ms >= options.max_clock_drift_ms:
        raise NotVerified(
            "from-future",
            f"block {block.header.height} is {ahead_ms} ms ahead of this clock, {options.max_clock_drift_ms} ms are "
            "tolerated: is the clock right?",
        )


def check_signatures(rules: Rules[B], block: B) -> frozenset[bytes]:
    """Addresses of the validators that precommitted the block; refuses a commit with any that did not."""
    members = {validator.address: validator for validator in block.validators}
    signers: set[bytes] = set()
    for signature in block.commit.signatures:
        name = rules.format_address(signature.validator)
        member = members.get(signature.validator)
        if member is None:
            raise NotVerified("bad-commit", f"{name} signed but is no validator of height {block.header.height}")
        if member.address in signers:
            raise NotVerified("bad-commit", f"{name} stands twice in the commit of height {block.header.height}")
        if not rules.is_precommit_valid(block, signature, member):
            raise NotVerified(
                "bad-signature", f"the precommit of {name} for height {block.header.height} has a wrong signature"
            )
        signers.add(member.address)
    return frozenset(signers)


def check_adjacent(rules: Rules[B], trusted: B, block: B) -> None:
    """The next block: its validators are those that the trusted header named for it."""
    header = block.header
    if header.validators_hash != trusted.header.next_validators_hash:
        raise NotVerified(
            "bad-validators",
            f"block {header.height} names the validators {header.validators_hash.hex()}, the trusted block "
            f"{trusted.header.height} named {trusted.header.next_validators_hash.hex()} for it",
        )
    if not rules.is_child(block, trusted):
        raise NotVerified("not-linked", f"block {header.height} does not name the trusted block as its parent")


def check_overlap(trusted: LightBlockLike, block: LightBlockLike, signers: frozenset[bytes], options: Options) -> None:
    """A later block: at least one honest validator that we know must have signed it."""
    power, total = _sum_power(trusted.next_validators, signers), _total(trusted.next_validators)
    if power * options.trust_denominator <= total * options.trust_numerator:
        level = f"{options.trust_numerator}/{options.trust_denominator}"
        raise NotEnoughTrust(block.header.height, power, total, level)


def check_decided(block: LightBlockLike, signers: frozenset[bytes]) -> None:
    """More than 2/3 of the block's own validators, by power, precommitted it."""
    if not block.next_validators:
        raise NotVerified("bad-validators", f"block {block.header.height} names nobody to sign the next one")
    power, total = _sum_power(block.validators, signers), _total(block.validators)
    if 3 * power <= 2 * total:
        raise NotVerified(
            "not-enough-power",
            f"power {power} of {total} signed block {block.header.height}, more than 2/3 is needed",
        )


def _check_chain(block: LightBlockLike, chain_id: str) -> None:
    if block.header.chain_id != chain_id:
        raise NotVerified(
            "wrong-chain", f"the block is of chain {block.header.chain_id[:64]!r}, we verify {chain_id!r}"
        )


def _check_set(rules: Rules[B], members: Sequence[ValidatorLike], found: bytes, expected: bytes, height: int) -> None:
    if found != expected:
        raise NotVerified(
            "bad-validators",
            f"the validators given for height {height} hash to {found.hex()}, the header names {expected.hex()}",
        )
    if len({member.address for member in members}) != len(members):
        raise NotVerified("bad-validators", f"the validator set of height {height} names a validator twice")
    for member in members:
        name = rules.format_address(member.address)
        if member.power <= 0:
            raise NotVerified("bad-validators", f"validator {name} of height {height} has power {member.power}")
        if not rules.is_address_valid(member):
            raise NotVerified("bad-validators", f"validator {name} of height {height} has the public key of another")


def _sum_power(members: Sequence[ValidatorLike], signers: frozenset[bytes]) -> int:
    return sum(member.power for member in members if member.address in signers)


def _total(members: Sequence[ValidatorLike]) -> int:
    return sum(member.power for member in members)
