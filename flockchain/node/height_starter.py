"""When the next height begins: at once when there is work, else at the next deadline or after the idle interval."""

from collections.abc import Callable

from flockchain.execution.block import compute_next_due_ms, is_block_due
from flockchain.node.consensus_driver import ConsensusDriver
from flockchain.node.ledger import Ledger
from flockchain.node.mempool import Mempool
from flockchain.node.ports import Clock, Network, Signer
from flockchain.node.sync import BlockSync

LONELY_MS = 3_000
"""After a start, how long to wait for enough peers before beginning a height without them."""
PROOF_DELAY_MS = 100
"""How long after a block with work the one that proves its state root may wait for transactions to carry."""


class HeightStarter:
    """`start` it; then `schedule` whenever the answer may have changed, or `try_now` when there is work."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        mempool: Mempool,
        driver: ConsensusDriver,
        sync: BlockSync,
        network: Network,
        clock: Clock,
        signer: Signer | None,
    ) -> None:
        self._ledger = ledger
        self._mempool = mempool
        self._driver = driver
        self._sync = sync
        self._network = network
        self._clock = clock
        self._signer = signer
        self._started_ms = 0
        self._is_running = False
        self._cancel: Callable[[], None] | None = None

    def start(self) -> None:
        self._is_running = True
        self._started_ms = self._clock.now_ms()

    def stop(self) -> None:
        self._is_running = False

    def try_now(self) -> None:
        """Begin the next height if there is work and it is time."""
        if not self._is_running or not self._may_begin():
            return
        now_ms = self._clock.now_ms()
        if self._sync.is_catching_up or (not self._has_company() and now_ms < self._started_ms + LONELY_MS):
            return  # the node's tick comes back to it
        if now_ms < self._find_next_ms():
            self.schedule()
            return
        self._driver.begin_height()

    def schedule(self) -> None:
        """Come back when the next height may begin: soon when there is work, else at the next deadline."""
        if self._cancel is not None:
            self._cancel()
        wait_ms = max(0, self._find_next_ms() - self._clock.now_ms())
        self._cancel = self._clock.call_later(wait_ms, self.try_now) if self._may_begin() else None

    def _may_begin(self) -> bool:
        """Whether it is for us to begin one; who signs nothing begins it on hearing of it."""
        return not self._driver.is_active and self._is_validator() and self._ledger.upgrade_needed is None

    def _find_next_ms(self) -> int:
        """When there is, or will be, work for the next height, and it may begin."""
        ledger, earliest_ms = self._ledger, self._ledger.earliest_next_ms()
        if self._mempool.has_ready(ledger.next_nonce) or is_block_due(
            ledger.state, earliest_ms, last_block_had_work=False
        ):
            return earliest_ms
        last_ms = ledger.chain.time_ms
        idle_ms = last_ms + (PROOF_DELAY_MS if ledger.had_work else ledger.params.consensus.idle_block_interval_ms)
        due_ms = compute_next_due_ms(ledger.state)
        return max(earliest_ms, idle_ms if due_ms is None else min(idle_ms, due_ms))

    def _is_validator(self) -> bool:
        """Whether we sign the next height."""
        address = self._signer.address if self._signer else None
        return any(member.address == address for member in self._ledger.members(self._ledger.height + 1))

    def _has_company(self) -> bool:
        """Whether, by number, peers and we could be more than two thirds of the validators."""
        validators = len(self._ledger.members(self._ledger.height + 1))
        return 3 * (len(self._network.peers()) + 1) > 2 * validators
