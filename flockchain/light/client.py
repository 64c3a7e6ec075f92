"""The light client: which blocks to ask for, in which order, and whom to compare with. No I/O but through its ports.

Bisection: a block too far away to be vouched for by a third of the validators we know is reached through blocks
between. With an unchanged validator set that is one step, in the worst case it is every height.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Literal, Protocol

from flockchain.errors import FlockchainError, Refused
from flockchain.light.predicates import Options, check_not_expired, verify, verify_parent, verify_root
from flockchain.light.refusals import Attack, Diverged, NotEnoughTrust, NotVerified
from flockchain.light.rules import B, B_co, LightBlockLike, Rules

MAX_BLOCKS_ASKED = 1_000
"""Of one provider for one verification: a provider cannot keep us busy for ever."""
Mode = Literal["skipping", "sequential"]


class Provider(Protocol[B_co]):
    """Who gives light blocks; nothing it says is believed. `flockchain.client.Client` is one."""

    @property
    def node(self) -> str:
        """How to name it in a sentence."""

    def light_block(self, height: int | None = None) -> B_co:
        """The light block of a height, or the newest; raises a `FlockchainError` when it has none."""


class TrustedStore(Protocol[B]):
    """Verified light blocks by height."""

    def heights(self) -> Sequence[int]:
        """Ascending."""

    def get(self, height: int) -> B: ...

    @property
    def root(self) -> tuple[int, bytes] | None:
        """Height and id of the block that everything else was verified from."""

    def begin(self, block: B, block_id: bytes) -> None:
        """Trust this block and forget all others."""

    def put(self, blocks: Sequence[B]) -> None:
        """Keep these too, in one step; the store may forget old ones, never the newest."""


@dataclass(frozen=True, slots=True)
class WitnessReport:
    """What one witness said about the newest verification."""

    node: str
    agrees: bool
    message: str
    """Why it does not count; empty when it agrees."""


class LightClient(Generic[B]):
    """Believes what follows from its trusted blocks; raises `NotVerified` otherwise, and keeps nothing then."""

    def __init__(
        self,
        rules: Rules[B],
        primary: Provider[B],
        witnesses: Sequence[Provider[B]],
        store: TrustedStore[B],
        options: Options,
        *,
        mode: Mode = "skipping",
    ) -> None:
        self.rules = rules
        self.options = options
        self.witness_reports: Sequence[WitnessReport] = ()
        self._primary = primary
        self._witnesses = list(witnesses)
        self._store = store
        self._mode = mode

    @property
    def newest(self) -> B:
        """The highest trusted block; raises `Refused` before `trust`."""
        heights = self._store.heights()
        if not heights:
            raise Refused("no-trust", "nothing is trusted yet: name a block with --trust HEIGHT:BLOCK_ID")
        return self._store.get(heights[-1])

    def trust(self, height: int, block_id: bytes, chain_id: str, now_ms: int) -> B:
        """Begin from a block whose id you know to be right; the witnesses must hold the same.

        What was trusted from another root is forgotten; with the same root as before all of it stays.
        """
        if self._store.root == (height, block_id):
            return self.newest
        block = self._ask(self._primary, height)
        verify_root(self.rules, block, chain_id, block_id, now_ms, self.options)
        self._compare(block, block, now_ms)
        self._store.begin(block, block_id)
        return block

    def update(self, now_ms: int) -> B:
        """Verify the newest block that the primary has."""
        newest = self.newest
        check_not_expired(newest, now_ms, self.options)
        block = self._primary.light_block()
        if block.header.height < newest.header.height:
            raise NotVerified(
                "behind",
                f"{self._primary.node} is at height {block.header.height}, we have verified {newest.header.height}: "
                "ask another node",
            )
        return self._verify(block, now_ms)

    def verify_height(self, height: int, now_ms: int) -> B:
        """The verified block of a height: from the store, forward by bisection, or back by parents."""
        if height in self._store.heights():
            return self._store.get(height)
        return self._verify(self._ask(self._primary, height), now_ms)

    def _verify(self, block: B, now_ms: int) -> B:
        """Verify by way of the nearest trusted block, compare with the witnesses, then keep what was passed."""
        heights, height = self._store.heights(), block.header.height
        if not heights:
            raise Refused("no-trust", "nothing is trusted yet: name a block with --trust HEIGHT:BLOCK_ID")
        below = [known for known in heights if known <= height]
        if not below:
            passed = self._walk_back(self._store.get(heights[0]), block)
            self._store.put(passed)
            return passed[-1]
        root = self._store.get(below[-1])
        if root.header.height == height:
            self._check_same(root, block)
            passed = [root]
        else:
            passed = self._walk_forward(self._primary, root, block, now_ms)
        self._compare(root, block, now_ms)
        self._store.put(passed)
        return block

    def _check_same(self, known: B, block: B) -> None:
        if self.rules.compute_block_id(known) != self.rules.compute_block_id(block):
            raise NotVerified(
                "bad-block", f"{self._primary.node} gives another block {block.header.height} than the verified one"
            )

    def _walk_forward(self, provider: Provider[B], trusted: B, target: B, now_ms: int) -> list[B]:
        """Verified blocks from `trusted` (not in it) to `target`; raises `NotVerified`."""
        passed: list[B] = []
        ahead = [target]
        asked = 0
        while ahead:
            block = ahead[-1]
            if self._is_vouched_for(trusted, block, now_ms):
                trusted = ahead.pop()
                passed.append(trusted)
                continue
            asked += 1
            if asked > MAX_BLOCKS_ASKED:
                raise NotVerified(
                    "too-many-steps",
                    f"verifying block {target.header.height} took more than {MAX_BLOCKS_ASKED} blocks: trust a "
                    "nearer block, or verify a lower height first",
                )
            gap = block.header.height - trusted.header.height
            step = 1 if self._mode == "sequential" else gap // 2
            ahead.append(self._ask(provider, trusted.header.height + step))
        return passed

    def _is_vouched_for(self, trusted: B, block: B, now_ms: int) -> bool:
        """Whether `block` follows from `trusted` in one step; False: go by a block between; else `NotVerified`."""
        if self._mode == "sequential" and block.header.height > trusted.header.height + 1:
            return False
        try:
            verify(self.rules, trusted, block, now_ms, self.options)
        except NotEnoughTrust:
            return False
        return True

    def _walk_back(self, trusted: B, target: B) -> list[B]:
        """From the lowest trusted block down to `target`, parent by parent; only `target` is worth keeping."""
        if trusted.header.height - target.header.height > MAX_BLOCKS_ASKED:
            raise NotVerified(
                "too-many-steps",
                f"block {target.header.height} lies more than {MAX_BLOCKS_ASKED} below the lowest trusted block "
                f"{trusted.header.height}: trust an older block",
            )
        child = trusted
        while child.header.height > target.header.height:
            height = child.header.height - 1
            parent = target if height == target.header.height else self._ask(self._primary, height)
            verify_parent(self.rules, child, parent)
            child = parent
        return [child]

    def _compare(self, root: B, block: B, now_ms: int) -> None:
        """Ask every witness for the same height; raises `Diverged`, or `NotVerified` when none of several confirms."""
        reports = [self._ask_witness(witness, root, block, now_ms) for witness in self._witnesses]
        self.witness_reports = reports
        if reports and not any(report.agrees for report in reports):
            said = "; ".join(f"{report.node}: {report.message}" for report in reports)
            raise NotVerified(
                "no-witness", f"no witness confirms block {block.header.height} ({said}): name others with --witness"
            )

    def _ask_witness(self, witness: Provider[B], root: B, block: B, now_ms: int) -> WitnessReport:
        try:
            other = self._ask(witness, block.header.height)
            if self.rules.compute_block_id(other) == self.rules.compute_block_id(block):
                return WitnessReport(witness.node, True, "")
            if other.header.height == root.header.height:
                return WitnessReport(witness.node, False, f"holds another block {root.header.height} than we trust")
            passed = self._walk_forward(witness, root, other, now_ms)
        except FlockchainError as error:
            return WitnessReport(witness.node, False, str(error))
        raise self._make_divergence(witness, root, block, passed)

    def _make_divergence(self, witness: Provider[B], root: B, block: B, passed: Sequence[B]) -> Diverged:
        """The witness's block is as well signed as ours: somebody who signs blocks breaks the rules."""
        common = root.header.height
        for held in passed[:-1]:
            if not self._is_held_by_primary(held):
                break
            common = held.header.height
        signers = find_double_signers(block, passed[-1])
        attack = Attack(common, block, passed[-1], witness.node, signers)
        return Diverged(attack, [self.rules.format_address(address) for address in signers])

    def _is_held_by_primary(self, block: B) -> bool:
        try:
            found = self._ask(self._primary, block.header.height)
        except FlockchainError:
            return False
        return self.rules.compute_block_id(found) == self.rules.compute_block_id(block)

    def _ask(self, provider: Provider[B], height: int) -> B:
        block = provider.light_block(height)
        if block.header.height != height:
            raise NotVerified(
                "bad-block", f"{provider.node} was asked for block {height} and gave block {block.header.height}"
            )
        return block


def find_double_signers(one: LightBlockLike, other: LightBlockLike) -> list[bytes]:
    """Validators that precommitted both blocks in one height and round, sorted by address; the commits are verified."""
    if (one.commit.height, one.commit.round) != (other.commit.height, other.commit.round):
        return []
    signers = ({signature.validator for signature in block.commit.signatures} for block in (one, other))
    return sorted(next(signers) & next(signers))
