"""Training rounds again: draws from the blocks' own preimages, seals, verdicts, payments.

The replay has executed them already. Here each is derived a second way, so that a fault is named by what it is, and
so that nothing rests on a beacon, a receipt or a verdict merely because a row holds it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from flockchain.crypto import format_address, sha256, tagged_hash
from flockchain.execution.audit import find_final_problems, find_round_problems
from flockchain.execution.ballots import compute_seal
from flockchain.execution.block import BlockOutcome
from flockchain.execution.draw import compute_draw
from flockchain.execution.epochs import get_task_params
from flockchain.execution.state import State
from flockchain.execution.vesting import RELEASED
from flockchain.genesis import Genesis
from flockchain.types.chain import Block
from flockchain.types.rows import Adapter, Chain, Draw, FinalSet, OpenVote, SealedVote, Task, TrainingRound
from flockchain.types.task import Ballot
from flockchain.types.tx import Receipt
from flockchain.verify.report import Report


@dataclass(frozen=True, slots=True)
class SettledRound:
    """What the adapters' audit needs of a round that has settled."""

    height: int
    task: Task
    round: TrainingRound


class RoundAuditor:
    """Looks at each block after it was executed."""

    def __init__(self, genesis: Genesis, report: Report) -> None:
        self.report = report
        self.genesis_hash = genesis.hash()
        self.beacon = tagged_hash("flockchain/first-beacon", (self.genesis_hash,))
        self.settled: list[SettledRound] = []
        self.recorded_heights: dict[bytes, int] = {}
        """Adapter root -> height at which the chain recorded it."""
        self._judged_tasks: set[int] = set()

    def on_block(self, state: State, block: Block, outcome: BlockOutcome) -> None:
        height = block.height
        self.beacon = sha256(self.beacon, block.header.beacon_preimage)
        if state.get(Chain).beacon != self.beacon:
            self.report.problem(height, "the beacon does not follow from the preimages of the blocks")
        for row in outcome.write_set.values():
            if isinstance(row, Draw) and row.beacon and row.draw_height == height:
                self._check_draw(state, row, height)
            elif isinstance(row, OpenVote):
                self._check_seal(state, row, height)
            elif isinstance(row, Adapter):
                self.recorded_heights.setdefault(row.root, height)
            elif isinstance(row, TrainingRound) and row.phase == "settled":
                self._check_round(state, row, outcome.receipts, height)
            elif isinstance(row, FinalSet) and row.phase == "closed" and row.ending != "open":
                self._check_final(state, row, outcome.receipts, height)
        self._check_slashes(outcome.receipts, height)

    def _check_draw(self, state: State, draw: Draw, height: int) -> None:
        name = f"task {draw.task} round {draw.round}: the draw of {draw.role}s"
        if draw.beacon != self.beacon:
            self.report.problem(height, f"{name} used another beacon than the blocks give")
        task = state.get(Task, draw.task)
        domains = len(task.spec.domains) if draw.role == "voter" else 0
        most = get_task_params(state, task).max_draw_attempts
        if compute_draw(draw, self.beacon, domains=domains, max_attempts=most) != (draw.attempts, draw.drawn):
            self.report.problem(height, f"{name} gives other seats")

    def _check_seal(self, state: State, vote: OpenVote, height: int) -> None:
        sealed = state.find(SealedVote, vote.task, vote.round, vote.voter)
        ballot = Ballot(vote.task, vote.round, vote.figures)
        if sealed is None or sealed.seal != compute_seal(self.genesis_hash, ballot, vote.voter, vote.salt):
            name = format_address(vote.voter)
            self.report.problem(height, f"task {vote.task} round {vote.round}: the vote of {name} breaks its seal")
        if vote.task not in self._judged_tasks:
            self._judged_tasks.add(vote.task)
            self.report.leave_out(
                height,
                f"task {vote.task}: holdouts are private, so judges' losses are evidence and cannot be recomputed",
                private=True,
            )

    def _check_round(
        self, state: State, training_round: TrainingRound, receipts: Sequence[Receipt], height: int
    ) -> None:
        task = state.get(Task, training_round.task)
        name = f"task {task.id} round {training_round.number}"
        self.report.rounds += 1
        mine = [r for r in receipts if (r.task, r.round) == (task.id, training_round.number)]
        settlement = next((receipt for receipt in mine if receipt.kind == "settlement"), None)
        if settlement is None:  # cancelled in ENROLL: nothing was drawn, judged or paid
            return
        facts = {amount.name: amount.value for amount in settlement.facts}
        paid = sum(receipt.amount_uflk for receipt in mine if receipt.kind == "reward")
        vested = facts.get("vested_uflk", 0)
        if not paid + vested == settlement.amount_uflk == facts["trainers_uflk"] + facts["committee_uflk"]:
            said = f"rewards of {paid} uflk and {vested} uflk vested, the settlement says {settlement.amount_uflk}"
            self.report.problem(height, f"{name}: {said}")
        if paid > facts["round_reward_uflk"] or facts["round_reward_uflk"] > facts["pool_uflk"]:
            self.report.problem(height, f"{name}: {paid} uflk paid, the reward was {facts['round_reward_uflk']} uflk")
        for sentence in find_round_problems(state, task, training_round, facts["pool_uflk"]):
            self.report.problem(height, f"{name}: {sentence}")
        self.settled.append(SettledRound(height, task, training_round))

    def _check_final(self, state: State, final: FinalSet, receipts: Sequence[Receipt], height: int) -> None:
        """All that was vested was released, or all of it forfeited, as the judges' figures say."""
        name = f"the final set of task {final.task}"
        if final.outcome in ("passed", "failed"):
            self.report.leave_out(height, f"{name}: public, and its judges' figures were not measured again")
        for sentence in find_final_problems(state, state.get(Task, final.task), final):
            self.report.problem(height, f"{name}: {sentence}")
        mine = [receipt for receipt in receipts if receipt.task == final.task]
        moved = {
            "reward": sum(r.amount_uflk for r in mine if r.kind == "reward" and r.reason == RELEASED),
            "forfeit": sum(r.amount_uflk for r in mine if r.kind == "forfeit"),
        }
        expected = "forfeit" if final.outcome == "failed" else "reward"
        if moved[expected] != final.vested_uflk or sum(moved.values()) != final.vested_uflk:
            said = f"{moved['reward']} uflk released and {moved['forfeit']} uflk forfeited"
            self.report.problem(height, f"{name}: {said} of {final.vested_uflk} uflk vested, outcome {final.outcome}")

    def _check_slashes(self, receipts: Sequence[Receipt], height: int) -> None:
        """What was taken came out of bond, delegations and what was unbonding; the reporter's part is within it."""
        for receipt in receipts:
            if receipt.kind != "slash":
                continue
            facts = {amount.name: amount.value for amount in receipt.facts}
            whole = facts["bonded_uflk"] + facts["delegated_uflk"] + facts["unbonding_uflk"]
            if receipt.amount_uflk != whole or not 0 <= facts["reporter_uflk"] <= whole:
                name = format_address(receipt.account)
                self.report.problem(
                    height, f"slash of {name}: {receipt.amount_uflk} uflk taken, its parts give {whole}"
                )
