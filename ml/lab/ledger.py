"""One task on the real ledger in process: the network's transactions and phases, without signatures and peers.

Only the beacon is made up: a hash of the seed and the height stands for the validators' hash chains.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from msgspec.structs import replace
from nacl.signing import SigningKey

from flockchain.codec import Canonical
from flockchain.crypto import sha256
from flockchain.execution.balances import get_account
from flockchain.execution.ballots import compute_seal
from flockchain.execution.beacon import BeaconChain
from flockchain.execution.context import Context
from flockchain.execution.genesis import build_state
from flockchain.execution.invariants import assert_bonds, assert_pools, assert_vestings, compute_money_uflk
from flockchain.execution.rounds import get_accepted, get_assigned
from flockchain.execution.staking import get_bond_uflk, make_task_target
from flockchain.execution.tasks import process_tasks
from flockchain.genesis import Genesis, GenesisAccount, GenesisValidator, sign_possession
from flockchain.params import Params
from flockchain.txs import confirm_fetched, create_task, get_type, stake, submit_adapter, vote
from flockchain.types.rows import Chain, Submission, Task, TrainingRound
from flockchain.types.task import AdapterFigures, AttestationBody, Ballot, Coefficient, Holdout, TaskSpec
from flockchain.types.tx import Receipt, Tx

CHAIN_ID, GENESIS_TIME_MS, BLOCK_MS = "lab", 1_700_000_000_000, 1_000
VALIDATOR_BOND_UFLK = 10**12
TASK, CREATOR = 1, "creator"
HOLDOUT_BLOCKS = 1_000
"""What every judge commits to in every domain; the lab's judges hold documents of the bank."""

Judging = Callable[[str, Sequence[str]], tuple[AdapterFigures, ...] | None]
"""(judge, authors of its assigned adapters in the order of their roots) -> its entries; None: it does not vote."""
Attesting = Callable[[str, Sequence[tuple[str, bytes]]], AttestationBody]
"""(judge, (author, root) of what was accepted) -> figures and gains; the rest of the body is filled in here."""


@dataclass(frozen=True)
class Played:
    """A settled round: its row and the receipts since the last one."""

    round: TrainingRound
    receipts: tuple[Receipt, ...]


class LedgerTask:
    """Trainers and judges of one task, who act in every phase; the caller says what they find."""

    def __init__(
        self, spec: TaskSpec, bonds_uflk: Mapping[str, int], trainers: Iterable[str], *, pool_uflk: int, seed: int
    ) -> None:
        """Whoever is no trainer judges all domains. Balances hold nothing but the bonds and the creator's pool."""
        self.spec, self.trainers = spec, frozenset(trainers)
        self.addresses = {name: sha256(f"lab account {seed} {name}".encode())[:20] for name in (*bonds_uflk, CREATOR)}
        self.names = {address: name for name, address in self.addresses.items()}
        params = Params()
        creator_uflk = pool_uflk + params.tasks.create_deposit_uflk
        self.state = build_state(_make_genesis({**bonds_uflk, CREATOR: creator_uflk}, self.addresses, params))
        self.beacon = sha256(f"lab beacon {seed}".encode())
        self.receipts: list[Receipt] = []
        self._act(CREATOR, create_task.Body(spec, pool_uflk))
        for name, bond_uflk in bonds_uflk.items():
            self._act(name, self._make_stake(name, bond_uflk))
        self._end_block()

    @property
    def task(self) -> Task:
        return self.state.get(Task, TASK)

    @property
    def round(self) -> TrainingRound:
        return self.state.get(TrainingRound, TASK, self.task.round)

    def bond_uflk(self, name: str) -> int:
        return get_bond_uflk(self.state, self.addresses[name], make_task_target(TASK))

    def money_uflk(self, name: str) -> int:
        """Balance and bond together."""
        return get_account(self.state, self.addresses[name]).balance_uflk + self.bond_uflk(name)

    def play_round(self, judging: Judging, attesting: Attesting) -> Played | None:
        """Until the round has settled; None when the task ended before it was drawn."""
        number, before = self.task.round, len(self.receipts)
        if not self.draw_trainers():
            return None
        self._submit()
        self._wait_until(lambda: not self._is_in("train", number) and not self.round.draw_height)
        if self._is_in("publish", number):
            self._confirm_and_vote(judging)
        if self._is_in("aggregate", number):
            self._attest(attesting)
        self._wait_until(lambda: self.state.get(TrainingRound, TASK, number).phase == "settled")
        return Played(self.state.get(TrainingRound, TASK, number), tuple(self.receipts[before:]))

    def draw_trainers(self) -> tuple[str, ...]:
        """Names of those who train in the coming round, in the order of the draw; none when the task has ended."""
        number = self.task.round
        self._wait_until(lambda: self.task.status != "open" or self._is_in("train", number))
        return tuple(self.names[address] for address in self.round.trainers) if self.task.status == "open" else ()

    def find_best_round(self) -> int:
        """The round whose candidate is the best adapter so far; 0: none, the bare base."""
        rounds = (self.state.get(TrainingRound, TASK, number) for number in range(1, self.task.round + 1))
        best = self.task.best_root
        return next((row.number for row in rounds if best and row.result_root == best), 0)

    def check(self) -> None:
        """What must hold over all rows; there are no blocks here, hence no validator sets to look at."""
        assert sum(map(compute_money_uflk, self.state.rows())) == self.state.get(Chain).supply_uflk
        assert_bonds(self.state)
        assert_pools(self.state)
        assert_vestings(self.state)

    # What members do

    def _submit(self) -> None:
        for address in self.round.trainers:
            name, number = self.names[address], self.task.round
            root = sha256(f"adapter {number} {name}".encode())
            body = submit_adapter.Body(TASK, number, root, 1_000, self.round.base_root, 1, "lab")
            self._act(name, body)
        self._end_block()

    def _confirm_and_vote(self, judging: Judging) -> None:
        number, committee = self.task.round, [self.names[seat.address] for seat in self.round.committee]
        for name in committee:
            self._act(name, confirm_fetched.Body(TASK, number, ()))
        self._end_block()
        ballots = {name: ballot for name in committee if (ballot := self._make_ballot(name, judging)) is not None}
        genesis_hash = self.state.get(Chain).genesis_hash
        for name, ballot in ballots.items():
            seal = compute_seal(genesis_hash, ballot, self.addresses[name], _make_salt(name, number))
            self._act(name, vote.Body(TASK, number, seal=seal))
        self._end_block()
        self._wait_until(lambda: not self._is_in("commit", number))
        for name, ballot in ballots.items():
            self._act(name, vote.Body(TASK, number, ballot=ballot, salt=_make_salt(name, number)))
        self._end_block()
        self._wait_until(lambda: not self._is_in("reveal", number))

    def _make_ballot(self, name: str, judging: Judging) -> Ballot | None:
        authors = {row.root: self.names[row.trainer] for row in self.state.iterate(Submission, TASK, self.task.round)}
        roots = get_assigned(self.round, self.addresses[name])
        entries = judging(name, [authors[root] for root in roots])
        if entries is None:
            return None
        named = tuple(replace(entry, root=root) for entry, root in zip(entries, roots, strict=True))
        return Ballot(TASK, self.task.round, named)

    def _attest(self, attesting: Attesting) -> None:
        number, accepted = self.task.round, get_accepted(self.round)
        authors = {row.root: self.names[row.trainer] for row in self.state.iterate(Submission, TASK, number)}
        pairs = [(authors[root], root) for root in accepted]
        for seat in self.round.committee:
            name = self.names[seat.address]
            body = replace(
                attesting(name, pairs),
                task=TASK,
                round=number,
                candidate=sha256(b"candidate" + b"".join(accepted) + number.to_bytes(8, "big")),
                size_bytes=1_000,
                coefficients=tuple(Coefficient(root, 1_000_000) for root in accepted),
            )
            self._act(name, body)
        self._end_block()

    def _make_stake(self, name: str, bond_uflk: int) -> stake.Body:
        if name in self.trainers:
            return stake.Body(make_task_target(TASK), bond_uflk, "trainer")
        holdouts = tuple(Holdout(domain, sha256(name.encode()), HOLDOUT_BLOCKS) for domain in self.spec.domains)
        return stake.Body(make_task_target(TASK), bond_uflk, "voter", holdouts)

    # The chain

    def _is_in(self, phase: str, number: int) -> bool:
        current = self.state.get(TrainingRound, TASK, number)
        return current.phase == phase and not current.draw_height

    def _wait_until(self, is_reached: Callable[[], bool]) -> None:
        """Blocks without transactions; while no draw is pending, time runs to the phase's deadline."""
        for _ in range(64):
            if is_reached():
                return
            current = self.round
            left_ms = current.deadline_ms - self.state.get(Chain).time_ms
            self._end_block(BLOCK_MS if current.draw_height else max(BLOCK_MS, left_ms))
        raise AssertionError(f"round {self.round.number} stays in {self.round.phase}")

    def _act(self, name: str, body: Canonical) -> None:
        """Apply a transaction in the block under construction; all that the lab sends must succeed."""
        kind = "attest-aggregate" if isinstance(body, AttestationBody) else type(body).__module__.rpartition(".")[2]
        tx_type, chain = get_type(kind.replace("_", "-")), self.state.get(Chain)
        context = Context(self.state, chain.height + 1, chain.time_ms + BLOCK_MS, proposer=b"")
        tx = Tx(CHAIN_ID, tx_type.kind, self.addresses[name], 0, 0, context.time_ms, b"")
        tx_type.module.check(body, tx)
        tx_type.apply(context, tx, body)
        self.receipts.extend(context.receipts)

    def _end_block(self, elapsed_ms: int = BLOCK_MS) -> None:
        chain = self.state.get(Chain)
        height, time_ms = chain.height + 1, chain.time_ms + elapsed_ms
        self.beacon = sha256(self.beacon)
        self.state.put(replace(chain, height=height, time_ms=time_ms, beacon=self.beacon))
        context = Context(self.state, height, time_ms, proposer=b"")
        context.touched_tasks.add(TASK)
        process_tasks(context)
        self.receipts.extend(context.receipts)
        self.state.clear_journal()


def _make_salt(name: str, number: int) -> bytes:
    return sha256(f"salt {name} {number}".encode())


def _make_genesis(balances_uflk: Mapping[str, int], addresses: Mapping[str, bytes], params: Params) -> Genesis:
    """The accounts, and one validator so that there is a chain."""
    key, owner = SigningKey(sha256(b"lab validator")), sha256(b"lab owner")[:20]
    validator = GenesisValidator(
        owner=owner,
        public_key=bytes(key.verify_key),
        possession=sign_possession(key, CHAIN_ID, owner),
        bond_uflk=VALIDATOR_BOND_UFLK,
        beacon_head=BeaconChain(b"lab", 1).head,
        name="lab",
    )
    accounts = [GenesisAccount(addresses[name], amount) for name, amount in balances_uflk.items()]
    accounts.append(GenesisAccount(owner, 0))
    return Genesis(
        chain_id=CHAIN_ID,
        time_ms=GENESIS_TIME_MS,
        params=params,
        accounts=tuple(sorted(accounts, key=lambda account: account.address)),
        validators=(validator,),
    )


def count_open_bonds(run: LedgerTask, names: Iterable[str]) -> int:
    """How many of them still have a ticket."""
    return sum(run.bond_uflk(name) >= run.spec.min_bond_uflk for name in names)
