"""The chain that the rules act on.

world = World()
world.begin_block(elapsed_ms=1_000)
world.offer(data)                       # tried at once on the state of the block under construction
world.end_block(proposer="val0")        # undone, then built, checked and executed on two independent states
"""

from collections import Counter
from collections.abc import Sequence

from flockchain.errors import Refused
from flockchain.execution.beacon import BeaconChain, get_beacon_head
from flockchain.execution.block import BlockOutcome, check_block, execute_block, get_validators
from flockchain.execution.context import Context
from flockchain.execution.rounds import get_current_round
from flockchain.execution.state import State
from flockchain.execution.transactions import ParsedTx, parse_tx, process_tx
from flockchain.genesis import Genesis
from flockchain.params import UFLK_PER_FLK, ConsensusParams, Params, StakeParams, TaskParams
from flockchain.types.chain import SignedVote
from flockchain.types.rows import Account, OpenTask, Task, TrainingRound, ValidatorRow
from flockchain.types.tx import OK, TxResult
from tests.ledger import checks
from tests.support.ledger import BEACON_LINKS, Ledger, make_address, make_beacon_chain, make_genesis

VALIDATORS = 4
ACTORS = tuple(f"actor{i}" for i in range(16))
OWNERS = tuple(f"owner{i}" for i in range(VALIDATORS))
VALIDATOR_KEYS = 400
"""A key serves one validator, once; a long history uses up many."""


def make_world_genesis() -> Genesis:
    """Seconds instead of weeks, and limits low enough to be met."""
    params = Params(
        consensus=ConsensusParams(late_precommit_blocks=3),
        stake=StakeParams(
            unbonding_ms=100_000,
            evidence_age_ms=80_000,
            trusting_period_ms=50_000,
            liveness_window_ms=30_000,
            jail_ms=20_000,
            max_validators=6,
            max_unbondings_per_bond=3,
            beacon_delay_blocks=5,
            max_delegated_multiple=2,
            max_delegators=4,
            min_validator_bond_uflk=1_000 * UFLK_PER_FLK,
        ),
        tasks=TaskParams(max_open_tasks=2, max_participants=12, benched_rounds=1),
    )
    return make_genesis(validators=VALIDATORS, accounts=ACTORS, params=params)


class World:
    def __init__(self) -> None:
        self.ledger = _Ledger(make_world_genesis(), check_all=False, validator_names=VALIDATOR_KEYS)
        self.names = {make_address(name): name for name in (*ACTORS, *OWNERS)}
        self.validator_names = {make_address(f"val{i}"): f"val{i}" for i in range(VALIDATOR_KEYS)}
        self.away: frozenset[str] = frozenset()
        """Validators that sign nothing for the time being."""
        self.counts: Counter[tuple[str, str]] = Counter()
        """(kind, code) of every result in a block, and of every refusal that kept a transaction out of one."""
        self._minted_uflk = 0
        self._settled: set[tuple[int, int]] = set()
        self._txs: list[bytes] = []
        self._elapsed_ms = 1
        self._context = Context(self.state, 0, 0, b"")
        self.begin_block(1_000)

    # Reading

    @property
    def state(self) -> State:
        """As the transactions offered so far have left it."""
        return self.ledger.state

    @property
    def time_ms(self) -> int:
        return self._context.time_ms

    @property
    def actors(self) -> tuple[str, ...]:
        return (*ACTORS, *OWNERS)

    def account(self, name: str) -> Account:
        return self.ledger.account(name)

    def members(self) -> list[str]:
        """Validators of the block under construction, sorted by address."""
        return [self.validator_names[m.address] for m in get_validators(self.state, self.ledger.chain.height + 1)]

    def open_rounds(self, phase: str = "") -> list[tuple[Task, TrainingRound]]:
        """Open tasks with their current round, in this phase with no draw pending; without `phase` all."""
        tasks = [self.state.get(Task, row.task) for row in self.state.iterate(OpenTask)]
        rounds = [(task, get_current_round(self.state, task)) for task in tasks]
        return [pair for pair in rounds if not phase or (pair[1].phase == phase and not pair[1].draw_height)]

    # Driving

    def begin_block(self, elapsed_ms: int) -> None:
        chain = self.ledger.chain
        self._elapsed_ms = elapsed_ms
        self._txs = []
        self._context = Context(self.state, chain.height + 1, chain.time_ms + elapsed_ms, proposer=b"")

    def offer(self, data: bytes, kind: str) -> TxResult | None:
        """Try a transaction on the block under construction; None when no block may hold it."""
        chain = self.ledger.chain
        try:
            parsed = parse_tx(data, chain)
        except Refused as refusal:
            self.counts[kind, refusal.code] += 1
            return None
        if len(self._txs) >= chain.params.consensus.max_block_txs:
            return None
        self._txs.append(data)
        return self._try(parsed)

    def _try(self, parsed: ParsedTx) -> TxResult:
        """Its result; a refused one must have changed nothing but its sender's fee and nonce."""
        context, savepoint = self._context, self.state.savepoint()
        account, fees, receipts = self.state.find(Account, parsed.tx.sender), context.fees_uflk, len(context.receipts)
        result = process_tx(context, parsed)
        if result.code != OK:
            checks.check_refused(self.state, self.state.savepoint() - savepoint, account, result)
            assert len(context.receipts) == receipts, "a refused transaction left a receipt"
        assert context.fees_uflk == fees + result.fee_uflk
        return result

    def end_block(self, proposer: str, absent: Sequence[str] = (), late: Sequence[SignedVote] = ()) -> BlockOutcome:
        """Decide the block, on the ledger's own state and on one made anew from its rows; check everything."""
        self.state.rollback(0)
        ledger, before = self.ledger, self.ledger.chain
        block = ledger.build(*self._txs, elapsed_ms=self._elapsed_ms, proposer=proposer, late_precommits=late)
        twin_state, twin_tree = checks.import_rows(checks.export_rows(self.state))
        assert twin_state.root == self.state.root, "rows that were exported and imported give another state root"
        check_block(twin_state, block)
        twin = execute_block(twin_state, twin_tree, block)
        outcome = ledger.decide(block, absent=absent)
        checks.check_equal(outcome, twin)
        self._minted_uflk += checks.compute_minted_uflk(before, block)
        checks.check_supply(self.state, ledger.genesis.supply_uflk + self._minted_uflk)
        checks.check_rows(self.state, outcome)
        checks.check_settlements(outcome, self._settled)
        self.counts.update((result.kind, result.code) for result in outcome.results)
        return outcome

    # Keys

    def offer_beacon(self, validator: str) -> bytes:
        """Head of a further beacon chain of this validator; it will find its links when it proposes."""
        return self.ledger.make_next_beacon(validator)


class _Ledger(Ledger):
    """A ledger whose validators may change to a new beacon chain."""

    def __init__(self, genesis: Genesis, *, check_all: bool, validator_names: int) -> None:
        super().__init__(genesis, check_all=check_all, validator_names=validator_names)
        self._chains: dict[str, list[BeaconChain]] = {}

    def make_next_beacon(self, validator: str) -> bytes:
        chains = self._get_chains(validator)
        chains.append(BeaconChain(f"test beacon {validator} {len(chains)}".encode(), BEACON_LINKS))
        return chains[-1].head

    def beacon_preimage(self, address: bytes, height: int) -> bytes:
        preimage = self.find_preimage(address, height)
        assert preimage is not None, "nobody registered this head"
        return preimage

    def find_preimage(self, address: bytes, height: int) -> bytes | None:
        """The link that this validator owes as proposer; None for a head of which nobody has the links."""
        head = get_beacon_head(self.state.get(ValidatorRow, address), height)
        chains = self._get_chains(self._validator_names[address])
        for beacon in chains:
            preimage = beacon.find_preimage(head)
            if preimage is not None:
                # Looked into first next time: the others would be searched from end to end.
                chains.remove(beacon)
                chains.insert(0, beacon)
                return preimage
        return None

    def _get_chains(self, validator: str) -> list[BeaconChain]:
        return self._chains.setdefault(validator, [make_beacon_chain(validator)])
