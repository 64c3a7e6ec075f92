"""Training rounds in tests: a small task, its actors, and a driver of blocks without signatures.

    story = Story(trainers=4, judges=3)
    story.play_round()                                  # everyone acts; or one phase at a time, with someone silent
    assert story.last_round.outcome.startswith("aggregated")

Transactions go through their type's checks and `apply`, and phases through `process_tasks`, as in a block.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from flockchain.codec import Canonical, decode, encode
from flockchain.crypto import sha256
from flockchain.errors import Refused
from flockchain.execution.ballots import compute_seal
from flockchain.execution.context import Context
from flockchain.execution.genesis import build_state
from flockchain.execution.invariants import compute_money_uflk
from flockchain.execution.rounds import get_accepted, get_assigned
from flockchain.execution.staking import get_bond_uflk, get_stake
from flockchain.execution.state import State
from flockchain.execution.tasks import process_tasks
from flockchain.params import UFLK_PER_FLK, Params, TaskParams
from flockchain.txs import (
    attest_aggregate,
    commit_final,
    confirm_fetched,
    create_task,
    get_type,
    leave_task,
    stake,
    submit_adapter,
    vote,
)
from flockchain.types.final import FinalTerms
from flockchain.types.rows import Account, Chain, Stake, Submission, Task, TrainingRound
from flockchain.types.task import (
    AdapterFigures,
    AttestationBody,
    Ballot,
    CandidateFigure,
    Coefficient,
    DomainFigure,
    Gain,
    Holdout,
    JudgeSpec,
    ModelSpec,
    PenaltySpec,
    PhaseSpec,
    RewardSpec,
    TaskSpec,
)
from flockchain.types.tx import Receipt, Tx
from tests.support.ledger import GENESIS_TIME_MS, make_genesis

DOMAINS = ("code", "law", "medicine")
BOND_UFLK = 100 * UFLK_PER_FLK
POOL_UFLK = 900 * UFLK_PER_FLK
PHASE_MS = 60_000


def make_spec(**changes: Any) -> TaskSpec:
    """Three domains, three rounds, four trainers, three seats; `changes` replace fields of the spec."""
    spec = TaskSpec(
        name="demo",
        model=ModelSpec(
            name="tiny",
            base_hash=sha256(b"base"),
            tokenizer_hash=sha256(b"tokenizer"),
            rank=8,
            alpha=16,
            target_modules=("q_proj", "v_proj"),
            local_steps=12,
            batch_size=1,
            sequence_length=128,
            learning_rate_ppm=3000,
            update_step_log2=-11,
            norm_cap=0,
        ),
        domains=DOMAINS,
        rounds=3,
        phases=PhaseSpec(
            enroll_ms=PHASE_MS,
            train_ms=PHASE_MS,
            publish_ms=PHASE_MS,
            commit_ms=PHASE_MS,
            reveal_ms=PHASE_MS,
            aggregate_ms=PHASE_MS,
            enroll_limit_ms=3 * PHASE_MS,
        ),
        trainers_min=2,
        trainers_max=4,
        judge=JudgeSpec(seats=3, judge_tokens=1_000, slowest_tokens_per_s=1_000),
        penalties=PenaltySpec(),
        rewards=RewardSpec(),
        min_bond_uflk=10 * UFLK_PER_FLK,
        max_adapter_bytes=1 << 20,
    )
    return replace(spec, **changes)


def make_root(*parts: object) -> bytes:
    return hashlib.sha256(repr(parts).encode()).digest()


def figure(domain: int, change_ppm: int, se_ppm: int = 1_000, **changes: int) -> DomainFigure:
    """Change against the current adapter; against the best one the same unless said."""
    base = DomainFigure(domain, change_ppm, se_ppm, change_ppm, se_ppm)
    return replace(base, **changes)


def entry(root: bytes, changes_ppm: Sequence[int] = (), status: str = "scored", **more: Any) -> AdapterFigures:
    """One ballot entry with one change per domain."""
    figures = tuple(figure(domain, change) for domain, change in enumerate(changes_ppm))
    return replace(AdapterFigures(root, "abstain", "", figures, ()), status=status, **more)


GOOD = (-50_000, 2_000, 2_000)
"""Helps the first domain and hardly touches the others."""
BAD = (90_000, 120_000, 70_000)
"""Harms everywhere."""

Judging = Callable[[str, Submission], AdapterFigures]


def judge_honestly(voter: str, submission: Submission) -> AdapterFigures:
    """Adapters whose author says `bad` in its versions harm, all others help. Judges differ by a little."""
    noise = 37 * (voter.encode()[-1] % 7)
    changes = BAD if submission.versions == "bad" else GOOD
    return entry(submission.root, [change + noise for change in changes])


class Story:
    """One chain without blocks: `block` applies transactions and ends a block."""

    def __init__(
        self,
        *,
        trainers: int = 4,
        judges: int = 3,
        spec: TaskSpec | None = None,
        params: TaskParams | None = None,
        pool_uflk: int = POOL_UFLK,
        enroll: bool = True,
        final: FinalTerms | None = None,
    ) -> None:
        """`final`: a hidden final set to which the creator commits before it opens the task."""
        self.trainers = tuple(f"trainer{i}" for i in range(trainers))
        self.judges = tuple(f"judge{i}" for i in range(judges))
        names = ("creator", "stranger", *self.trainers, *self.judges)
        genesis = make_genesis(accounts=names, params=Params(tasks=params or TaskParams()))
        self.names = {account.address: name for account, name in self._match(genesis.accounts, names)}
        self.addresses = {name: address for address, name in self.names.items()}
        self.state: State = build_state(genesis)
        self.supply_uflk = self.count_money()
        self.height, self.time_ms = 0, GENESIS_TIME_MS
        self.receipts: list[Receipt] = []
        self.spec = spec or make_spec()
        if final is not None:
            self.must("creator", commit_final.Body(final))
        self.must("creator", create_task.Body(self.spec, pool_uflk))
        self.task_id = self.state.get(Chain).next_task - 1
        if enroll:
            self.enroll()

    @staticmethod
    def _match(accounts: Iterable[Any], names: Iterable[str]) -> list[tuple[Any, str]]:
        from tests.support.ledger import make_address

        by_address = {make_address(name): name for name in names}
        return [(account, by_address[account.address]) for account in accounts if account.address in by_address]

    # Reading

    @property
    def task(self) -> Task:
        return self.state.get(Task, self.task_id)

    @property
    def round(self) -> TrainingRound:
        return self.state.get(TrainingRound, self.task_id, self.task.round)

    def round_at(self, number: int) -> TrainingRound:
        return self.state.get(TrainingRound, self.task_id, number)

    @property
    def last_round(self) -> TrainingRound:
        """The newest settled one."""
        number = self.task.round if self.round.phase == "settled" else self.task.round - 1
        return self.round_at(number)

    @property
    def target(self) -> str:
        return f"task:{self.task_id}"

    def bond(self, name: str) -> int:
        return get_bond_uflk(self.state, self.addresses[name], self.target)

    def stake_of(self, name: str) -> Stake:
        row = get_stake(self.state, self.addresses[name], self.target)
        assert row is not None
        return row

    def balance(self, name: str) -> int:
        return self.state.get(Account, self.addresses[name]).balance_uflk

    def slashes(self, name: str) -> list[Receipt]:
        return [r for r in self.receipts if r.kind == "slash" and r.account == self.addresses[name]]

    def drawn_trainers(self) -> list[str]:
        return [self.names[address] for address in self.round.trainers]

    def committee(self) -> list[str]:
        return [self.names[member.address] for member in self.round.committee]

    def submissions(self) -> list[Submission]:
        return list(self.state.iterate(Submission, self.task_id, self.round.number))

    def count_money(self) -> int:
        return sum(compute_money_uflk(row) for row in self.state.rows())

    # Driving

    def block(self, *acts: tuple[str, Canonical], elapsed_ms: int = 1_000) -> list[str]:
        """One block of (sender, body) transactions; the refusals' sentences, empty for what was done."""
        self.height += 1
        self.time_ms += elapsed_ms
        chain = self.state.get(Chain)
        self.state.put(replace(chain, beacon=sha256(chain.beacon, self.height.to_bytes(8, "big"))))
        context = Context(self.state, self.height, self.time_ms, proposer=b"")
        messages = [self._apply(context, sender, body) for sender, body in acts]
        process_tasks(context)
        self.receipts.extend(context.receipts)
        self._check_rows()
        return messages

    def _apply(self, context: Context, sender: str, body: Canonical) -> str:
        address = self.addresses[sender]
        kind = "attest-aggregate" if isinstance(body, AttestationBody) else type(body).__module__.rpartition(".")[2]
        tx_type = get_type(kind.replace("_", "-"))
        nonce = self.state.get(Account, address).nonce
        tx = Tx("flock-test", tx_type.kind, address, nonce, 0, self.time_ms, encode(body))
        self.state.put(replace(self.state.get(Account, address), nonce=nonce + 1))
        savepoint = self.state.savepoint()
        context.tx_hash = sha256(encode(tx))
        try:
            tx_type.apply(context, tx, tx_type.decode_body(tx))
        except Refused as refusal:
            self.state.rollback(savepoint)
            return refusal.message
        return ""

    def _check_rows(self) -> None:
        """Every changed row has one canonical form, and no money appeared or vanished."""
        for row in self.state.peek_write_set().values():
            if row is not None:
                assert decode(type(row), encode(row)) == row
        self.state.clear_journal()
        assert self.count_money() == self.supply_uflk

    def must(self, sender: str, body: Canonical) -> None:
        assert self.block((sender, body)) == [""]

    def pass_deadline(self) -> None:
        """One block at the phase's deadline."""
        self.block(elapsed_ms=max(0, self.round.deadline_ms - self.time_ms))

    def wait_draw(self) -> None:
        """Until the draw that is due has been made; it may have been already."""
        assert self.round.draw_height or self.round.phase in ("train", "publish"), self.round.phase
        while self.round.draw_height:
            self.block()

    # Acting

    def stake_body(self, name: str, amount_uflk: int = BOND_UFLK, domains: Sequence[str] = DOMAINS) -> stake.Body:
        if name.startswith("trainer"):
            return stake.Body(self.target, amount_uflk, "trainer")
        holdouts = tuple(Holdout(domain, make_root(name, domain), 40) for domain in domains)
        return stake.Body(self.target, amount_uflk, "voter", holdouts)

    def enroll(self, names: Iterable[str] | None = None) -> None:
        for name in (*self.trainers, *self.judges) if names is None else names:
            self.must(name, self.stake_body(name))

    def submit_body(self, name: str, **changes: Any) -> submit_adapter.Body:
        number = self.round.number
        body = submit_adapter.Body(
            self.task_id, number, make_root(name, self.task_id, number), 1000, self.round.base_root, 100, "good"
        )
        return replace(body, **changes)

    def submit(self, *, silent: Iterable[str] = (), bad: Iterable[str] = ()) -> None:
        """Every drawn trainer but the silent ones submits; `bad` ones harm."""
        for name in self.drawn_trainers():
            if name not in silent:
                self.must(name, self.submit_body(name, versions="bad" if name in bad else "good"))

    def confirm(self, *, silent: Iterable[str] = (), unavailable: Mapping[str, Sequence[bytes]] | None = None) -> None:
        for name in self.committee():
            if name not in silent:
                roots = tuple(sorted((unavailable or {}).get(name, ())))
                self.must(name, confirm_fetched.Body(self.task_id, self.round.number, roots))

    def make_ballot(self, name: str, judging: Judging) -> Ballot:
        by_root = {submission.root: submission for submission in self.submissions()}
        assigned = get_assigned(self.round, self.addresses[name])
        return Ballot(self.task_id, self.round.number, tuple(judging(name, by_root[root]) for root in assigned))

    def salt(self, name: str) -> bytes:
        return make_root("salt", name, self.round.number)

    def seal(self, name: str, ballot: Ballot) -> vote.Body:
        genesis_hash = self.state.get(Chain).genesis_hash
        seal = compute_seal(genesis_hash, ballot, self.addresses[name], self.salt(name))
        return vote.Body(self.task_id, ballot.round, seal=seal)

    def vote(
        self, *, judging: Judging = judge_honestly, silent: Iterable[str] = (), hiding: Iterable[str] = ()
    ) -> None:
        """COMMIT and REVEAL by everyone but the silent; `hiding` ones seal and never open."""
        ballots = {name: self.make_ballot(name, judging) for name in self.committee() if name not in silent}
        for name, ballot in ballots.items():
            self.must(name, self.seal(name, ballot))
        if self.round.phase == "commit":
            self.pass_deadline()
        for name, ballot in ballots.items():
            if name not in hiding:
                self.must(name, vote.Body(self.task_id, ballot.round, ballot=ballot, salt=self.salt(name)))

    def attest_body(self, name: str, **changes: Any) -> AttestationBody:
        """The honest attestation: the candidate's losses fall by 1 % a round."""
        accepted, number = get_accepted(self.round), self.round.number
        loss = 1_400_000 - 14_000 * number
        body = AttestationBody(
            task=self.task_id,
            round=number,
            candidate=make_root("candidate", self.task_id, accepted, number),
            size_bytes=4000,
            coefficients=tuple(Coefficient(root, 1_000_000) for root in accepted),
            figures=tuple(
                CandidateFigure(domain, loss, loss + 14_000, -10_000, 500, -10_000 * number, 500)
                for domain in range(len(self.spec.domains))
            ),
            gains=tuple(
                Gain(root, domain, 1_000 * (domain + 1))
                for root in accepted
                for domain in range(len(self.spec.domains))
            ),
            screens=(),
        )
        if name not in self.committee():
            body = replace(body, figures=(), gains=())
        return replace(body, **changes)

    def attest(self, *, silent: Iterable[str] = (), **changes: Any) -> None:
        for name in self.committee():
            if name not in silent:
                self.must(name, self.attest_body(name, **changes))

    def play_round(self, *, bad: Iterable[str] = (), judging: Judging = judge_honestly) -> TrainingRound:
        """Everyone acts in every phase; the settled round."""
        number = self.round.number
        self.wait_draw()
        self.submit(bad=bad)
        self.wait_draw()
        self.confirm()
        self.vote(judging=judging)
        if self.round_at(number).phase == "aggregate":
            self.attest()
        return self.round_at(number)


def leave(story: Story, name: str) -> None:
    story.must(name, leave_task.Body(story.task_id))


__all__ = [
    "BAD",
    "BOND_UFLK",
    "DOMAINS",
    "GOOD",
    "PHASE_MS",
    "POOL_UFLK",
    "Story",
    "attest_aggregate",
    "entry",
    "figure",
    "judge_honestly",
    "leave",
    "make_root",
    "make_spec",
]
