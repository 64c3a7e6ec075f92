"""The way to a verified header for a node that has no chain yet: light-client rules, one asked block at a time.

Pure of I/O: `wanted` names the next height to ask for, `offer` takes an answer. The rules are those of
flockchain/light/predicates.py; `LightClient` drives them by blocking calls, this drives them by messages.
"""

from flockchain.execution.genesis import build_state
from flockchain.execution.validators import get_validators
from flockchain.genesis import Genesis
from flockchain.light.predicates import Options, verify, verify_root
from flockchain.light.refusals import NotEnoughTrust, NotVerified
from flockchain.light.rules import FlockRules
from flockchain.types.chain import EMPTY_COMMIT, Header, Validator
from flockchain.types.light import LightBlock, compute_validators_hash

MAX_STEPS = 256
"""Blocks asked for on one path; more changes of the validator set than that need a nearer trusted block."""
FIRST_SKIPPED_TO = 2
"""Block 1 names no parent, so it does not follow from genesis as the rules have it; block 2 has the same validators."""


class HeaderPath:
    """From what is trusted to the header of `target`, by bisection."""

    def __init__(self, genesis: Genesis, root: tuple[int, bytes] | None, target: int) -> None:
        """`root`: trusted (height, block id), not above `target`; None: the validators of genesis, as a block 0."""
        assert target >= FIRST_SKIPPED_TO
        assert root is None or root[0] <= target
        self.target = target
        self.options = Options(genesis.params.stake.trusting_period_ms)
        self._chain_id = genesis.chain_id
        self._rules = FlockRules(genesis.hash())
        self._root = root
        self._trusted: LightBlock | None = make_genesis_block(genesis) if root is None else None
        self._ahead: list[LightBlock] = []
        self._steps = 0

    @property
    def found(self) -> LightBlock | None:
        """The verified block of the target height, once there."""
        return self._trusted if self._trusted is not None and self._trusted.height == self.target else None

    @property
    def wanted(self) -> int:
        """The height to ask for next."""
        assert self.found is None
        if self._trusted is None:
            assert self._root is not None
            return self._root[0]
        if not self._ahead:
            return self.target
        low = max(self._trusted.height, FIRST_SKIPPED_TO - 1)
        return max(low + 1, self._trusted.height + (self._ahead[-1].height - self._trusted.height) // 2)

    def offer(self, block: LightBlock, now_ms: int) -> None:
        """Take the block of the wanted height; raises `NotVerified`: then it is not kept, ask another peer."""
        if block.height != self.wanted:
            raise NotVerified("bad-height", f"light block {block.height} is not the wanted {self.wanted}")
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise NotVerified("too-many-steps", f"more than {MAX_STEPS} blocks on the way to {self.target}")
        if self._trusted is None:
            assert self._root is not None
            verify_root(self._rules, block, self._chain_id, self._root[1], now_ms, self.options)
            self._trusted = block
            return
        if not self._is_vouched_for(self._trusted, block, now_ms):
            self._ahead.append(block)
            return
        self._trusted = block
        while self._ahead and self._is_vouched_for(self._trusted, self._ahead[-1], now_ms):
            self._trusted = self._ahead.pop()

    def _is_vouched_for(self, trusted: LightBlock, block: LightBlock, now_ms: int) -> bool:
        try:
            verify(self._rules, trusted, block, now_ms, self.options)
        except NotEnoughTrust:
            return False
        return True


def make_genesis_block(genesis: Genesis) -> LightBlock:
    """What genesis says about signers, in the form that the predicates trust: nobody signed it, all know it."""
    state = build_state(genesis)
    first, second = (
        tuple(Validator(m.address, m.public_key, m.power) for m in get_validators(state, height)) for height in (1, 2)
    )
    nothing = bytes(32)
    header = Header(
        protocol_version=1,
        chain_id=genesis.chain_id,
        height=0,
        time_ms=genesis.time_ms,
        proposer=bytes(20),
        last_block_id=b"",
        last_commit_hash=nothing,
        txs_root=nothing,
        prev_results_root=nothing,
        prev_state_root=nothing,
        validators_hash=compute_validators_hash(first),
        next_validators_hash=compute_validators_hash(second),
        params_hash=genesis.params.hash(),
        beacon_preimage=nothing,
    )
    return LightBlock(header, EMPTY_COMMIT, first, second)
