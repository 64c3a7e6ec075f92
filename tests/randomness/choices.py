"""Everything a proposer can do with a block between the freeze and the draw, on real blocks.

position = make_position(seed)                # ENROLL has just closed: the draw is two blocks away
for name, block in make_choices(position, position.proposer()):
    fork = position.fork()
    fork.decide(block)
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

from msgspec.structs import replace

from flockchain.codec import Canonical
from flockchain.execution.block import get_rotation
from flockchain.execution.staking import make_validator_target
from flockchain.execution.state import State
from flockchain.genesis import sign_possession
from flockchain.params import UFLK_PER_FLK
from flockchain.rotation import compute_proposer
from flockchain.txs import create_task, edit_validator, leave_task, stake, transfer, unstake
from flockchain.types.chain import Block
from flockchain.types.rows import Draw, RecentBlock, TrainingRound
from flockchain.types.task import Holdout
from tests.execution.stories import make_quick_genesis
from tests.support.ledger import Ledger, make_address, make_beacon_chain, make_key
from tests.support.rounds import make_spec

TRAINERS = ("alice", "bob", "carol", "dave", "erin")
JUDGES = ("judge0", "judge1", "judge2")
OUTSIDER = "heidi"
SLOW = "val4"
"""Signs late: whether to carry its precommits is a choice."""
VALIDATORS = 5
BONDS_UFLK = tuple(flk * UFLK_PER_FLK for flk in (10_000, 12_000, 9_000, 11_000, 3_000))


class Position(Ledger):
    """A ledger that can be copied, so that one choice after another is tried from the same place."""

    def fork(self) -> "Position":
        twin = copy.copy(self)
        twin.state, twin.tree = State(self.state.rows()), self.tree.copy()
        twin.state.root = self.state.root
        twin.blocks, twin.commits, twin.outcomes = list(self.blocks), list(self.commits), list(self.outcomes)
        return twin

    def tx(self, sender: str, body: Canonical, **options: Any) -> bytes:
        """One a block for each sender: what is tried beside it has the same nonce."""
        return super().tx(sender, body, **{"nonce": self.account(sender).nonce, **options})

    def proposer(self, round: int = 0) -> str:
        """By the rotation, of the next height and this consensus round."""
        return self._validator_names[compute_proposer(get_rotation(self.state, self.chain.height + 1), round)]

    @property
    def draw(self) -> Draw:
        return self.state.get(Draw, 1, 1, "trainer")


def make_position(seed: int) -> Position:
    """ENROLL of task 1 closes at the end of this last block; two of five trainers will be drawn two blocks later."""
    genesis = make_quick_genesis(validators=VALIDATORS, bonds_uflk=BONDS_UFLK)
    judges = [replace(genesis.accounts[0], address=make_address(name)) for name in JUDGES]
    accounts = sorted([*genesis.accounts, *judges], key=lambda row: row.address)
    position = Position(replace(genesis, accounts=tuple(accounts)))
    for _ in range(3 + seed):
        position.produce(proposer=position.proposer(), absent=[SLOW])
    spec = make_spec(trainers_min=2, trainers_max=2)
    position.produce(position.tx("grace", create_task.Body(spec, 10**9)), proposer=position.proposer())
    bond = 25 * UFLK_PER_FLK
    holdouts = tuple(Holdout(domain, bytes(32), 40) for domain in spec.domains)
    bodies = [(name, stake.Body("task:1", bond, role="trainer")) for name in TRAINERS]
    bodies += [(name, stake.Body("task:1", bond, role="voter", holdouts=holdouts)) for name in JUDGES]
    txs = [position.tx(name, body) for name, body in bodies]
    position.produce(*txs, proposer=position.proposer(), absent=[SLOW])
    training = position.state.get(TrainingRound, 1, 1)
    assert training.draw_height == position.chain.height + 2
    return position


def make_choices(position: Position, proposer: str) -> Iterator[tuple[str, Block]]:
    """What `proposer` can make of the next block: its contents, their order, its time, and what it leaves out."""
    sends = [position.tx(name, transfer.Body(make_address("frank"), 1, "")) for name in TRAINERS[:3]]

    def build(*txs: bytes, **options: Any) -> Block:
        return position.build(*txs, proposer=proposer, **options)

    yield "nothing in it", build()
    yield "what is pending", build(*sends)
    yield "another order", build(*reversed(sends))
    yield "one left out", build(*sends[1:])
    yield "the earliest time", build(elapsed_ms=1)
    yield "the latest time", build(elapsed_ms=2_500)
    slow = make_address(SLOW)
    missed = [r.height for r in position.state.iterate(RecentBlock) if any(a.validator == slow for a in r.absent)]
    yield "a late precommit", build(late_precommits=[position.late_precommit(SLOW, missed[-1])])
    yield from ((name, build(*txs)) for name, txs in _make_own_moves(position, proposer))
    commit = position.commits[-1]
    least = make_address("val2")  # the rest has more than 2/3 without it and the slow one
    position.commits[-1] = replace(commit, signatures=tuple(s for s in commit.signatures if s.validator != least))
    yield "a signature left out", build()
    position.commits[-1] = commit


def _make_own_moves(position: Position, proposer: str) -> Iterator[tuple[str, Sequence[bytes]]]:
    """Transactions of its own that might matter: beacon head, validators that join or leave, candidates."""
    owner, address = proposer.replace("val", "owner"), make_address(proposer)
    target = make_validator_target(address)
    newcomer = stake.Body(
        "validator",
        20_000 * UFLK_PER_FLK,
        public_key=bytes(make_key("val9").verify_key),
        possession=sign_possession(make_key("val9"), position.chain.chain_id, make_address(OUTSIDER)),
        beacon_head=make_beacon_chain("val9").head,
    )
    head = make_beacon_chain(f"{proposer} again").head
    raised = stake.Body("validator", 5_000 * UFLK_PER_FLK, public_key=bytes(make_key(proposer).verify_key))
    bond = position.validator(proposer).bond_uflk
    yield "a new beacon head", [position.tx(owner, edit_validator.Body(address, "", head))]
    yield "its bond raised", [position.tx(owner, raised)]
    yield "its bond taken out", [position.tx(owner, unstake.Body(target, bond))]
    yield "a validator joins", [position.tx(OUTSIDER, newcomer)]
    yield "a candidate tops up", [position.tx(TRAINERS[0], stake.Body("task:1", 500 * UFLK_PER_FLK))]
    yield "a candidate leaves", [position.tx(TRAINERS[1], leave_task.Body(1))]
    yield "a candidate unstakes", [position.tx(TRAINERS[2], unstake.Body("task:1", 25 * UFLK_PER_FLK))]
    yield "a newcomer enrols", [position.tx("frank", stake.Body("task:1", 25 * UFLK_PER_FLK, role="trainer"))]
