"""Blocks again from genesis, or a snapshot where older ones are pruned, each compared with what the node stored."""

from flockchain.codec import decode
from flockchain.crypto import sha256
from flockchain.errors import Fault, Refused
from flockchain.execution.block import BlockOutcome, check_block, execute_block, get_validators
from flockchain.execution.commits import check_commit
from flockchain.execution.genesis import build_state, load_state
from flockchain.execution.upgrade import find_upgrade_needed, get_supported_versions
from flockchain.genesis import Genesis
from flockchain.store.records import RecordRow, RecordSnapshot, expect_block, expect_receipts, expect_txs
from flockchain.store.tables import make_id
from flockchain.types.chain import Block, Commit
from flockchain.types.rows import Chain
from flockchain.verify.reexecution import Reexecution
from flockchain.verify.report import Report
from flockchain.verify.rounds import RoundAuditor
from flockchain.verify.stored import compare_records


class Replay:
    """The state after `height` blocks, by our own computation."""

    def __init__(self, genesis: Genesis, report: Report, base: Reexecution | None = None) -> None:
        """`base`: a state to begin from instead of genesis."""
        self.report = report
        self.height = 0
        self.genesis_hash = genesis.hash()
        self.state, self.tree = load_state(build_state(genesis).rows())
        self.genesis_root = self.tree.root
        self.rounds = RoundAuditor(genesis, report)
        if base is not None:
            self.height, self.state, self.tree = base.height, base.state, base.tree
            self.rounds.beacon = base.state.get(Chain).beacon

    def step(self, snapshot: RecordSnapshot) -> bool:
        """Check the next block and what is stored of it.

        False: it is broken, or follows rules that this software does not know, and nothing after it can be judged.
        """
        height = self.height + 1
        needed = find_upgrade_needed(self.state, get_supported_versions())
        if needed is not None:
            self.report.leave_out(height, str(needed))
            return False
        record, tx_records = snapshot.block(height), snapshot.txs(height)
        found = self._decode(height, record, tx_records)
        if found is None:
            return False
        block, commit = found
        outcome = self._execute(block)
        if outcome is None:
            return False
        assert record is not None
        self._check_certificate(block, commit)
        for sentence in (
            *compare_records("blocks", "block", [record], [expect_block(block, commit, outcome)]),
            *compare_records("txs", "transaction", tx_records, expect_txs(block, outcome)),
            *compare_records("receipts", "receipt", snapshot.receipts(height), expect_receipts(block, outcome)),
        ):
            self.report.problem(height, sentence)
        self.rounds.on_block(self.state, block, outcome)
        self.height = height
        return True

    def _decode(
        self, height: int, record: RecordRow | None, tx_records: list[RecordRow]
    ) -> tuple[Block, Commit] | None:
        """The block and its certificate as stored; the reason why not goes into the report."""
        if record is None:
            self.report.problem(height, "the block is missing")
            return None
        try:
            bare, commit = decode(Block, bytes(record[4])), decode(Commit, bytes(record[5]))
        except (Refused, TypeError, ValueError) as error:
            self.report.problem(height, f"the stored block or its certificate is damaged: {error}")
            return None
        is_whole = True
        for position, row in enumerate(tx_records):
            if row[0] != make_id(height, position):
                self.report.problem(height, f"transaction {position} is missing, or one stands in its place")
                is_whole = False
            elif not isinstance(row[7], bytes) or sha256(row[7]) != row[1]:
                self.report.problem(height, f"transaction {position}: its bytes are not those of its hash")
        if not is_whole:
            return None
        return Block(bare.header, tuple(bytes(row[7]) for row in tx_records), bare.last_commit, bare.late_precommits), (
            commit
        )

    def _execute(self, block: Block) -> BlockOutcome | None:
        try:
            check_block(self.state, block)
            return execute_block(self.state, self.tree, block)
        except Refused as refusal:
            self.report.problem(self.height + 1, f"the block may not follow: {refusal.message}")
        except (AssertionError, Fault) as error:
            self.report.problem(self.height + 1, f"the block breaks an invariant: {error}")
        return None

    def _check_certificate(self, block: Block, commit: Commit) -> None:
        """More than 2/3 of the power signed this very block. The next block's `last_commit` may be another one."""
        members = get_validators(self.state, block.height)
        try:
            check_commit(commit, members, block.height, block.block_id(), self.genesis_hash)
        except Refused as refusal:
            self.report.problem(block.height, f"certificate: {refusal.message}")
