"""What a training round's members do, mostly as they should.

Whether a member stays silent, what it finds in an adapter and what it salts with follow from hashes of who and where,
so that an opened vote is the one that was sealed.
"""

import hashlib
from collections.abc import Callable, Sequence

from flockchain.crypto import sha256
from flockchain.execution.ballots import compute_seal
from flockchain.execution.draw import Judge
from flockchain.execution.rounds import get_accepted, get_assigned, get_committee
from flockchain.execution.state import State
from flockchain.txs import confirm_fetched, submit_adapter, vote
from flockchain.types.rows import (
    Adapter,
    Attestation,
    Chain,
    FetchedRow,
    OpenVote,
    SealedVote,
    Submission,
    TaskParticipant,
    TrainingRound,
)
from flockchain.types.task import (
    AdapterFigures,
    AttestationBody,
    Ballot,
    CandidateFigure,
    Coefficient,
    DomainFigure,
    Gain,
    Screen,
)
from tests.ledger.dice import Dice
from tests.ledger.world import World

Duty = tuple[TrainingRound, bytes]
"""A training round and the address of a member that has something to do in it."""


def hash_number(*parts: object) -> int:
    """The same for equal parts, on every machine."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")


def is_silent(training: TrainingRound, member: bytes) -> bool:
    """One member in ten misses a phase."""
    return hash_number("silent", training.task, training.number, training.phase, member) % 10 == 0


def find_duties(world: World, phase: str) -> list[Duty]:
    """Members of rounds in `phase` that have not done what is due, the silent ones left out."""
    duties: list[Duty] = []
    for _, training in world.open_rounds(phase):
        members = training.trainers if phase == "train" else tuple(seat.address for seat in training.committee)
        done = _DONE[phase](world.state, training)
        duties += [(training, m) for m in members if m not in done and not is_silent(training, m)]
    return duties


def _submitted(state: State, training: TrainingRound) -> set[bytes]:
    return {row.trainer for row in state.iterate(Submission, training.task, training.number)}


def _fetched(state: State, training: TrainingRound) -> set[bytes]:
    return {row.member for row in state.iterate(FetchedRow, training.task, training.number)}


def _sealed(state: State, training: TrainingRound) -> set[bytes]:
    return {row.voter for row in state.iterate(SealedVote, training.task, training.number)}


def _opened(state: State, training: TrainingRound) -> set[bytes]:
    """Who opened, and who has nothing to open."""
    opened = {row.voter for row in state.iterate(OpenVote, training.task, training.number)}
    sealed = _sealed(state, training)
    return opened | {seat.address for seat in training.committee if seat.address not in sealed}


def _attested(state: State, training: TrainingRound) -> set[bytes]:
    return {row.attester for row in state.iterate(Attestation, training.task, training.number)}


_DONE: dict[str, Callable[[State, TrainingRound], set[bytes]]] = {
    "train": _submitted,
    "publish": _fetched,
    "commit": _sealed,
    "reveal": _opened,
    "aggregate": _attested,
}


def make_submission(world: World, dice: Dice, training: TrainingRound, trainer: bytes) -> submit_adapter.Body:
    root = sha256(f"adapter {training.task} {training.number} {trainer.hex()} {dice.below(4)}".encode())
    known = world.state.first(Adapter)
    if known is not None and dice.is_one_in(12):
        root = known.root
    base = root if dice.is_one_in(20) else training.base_root
    size = dice.pick([1_000, 1_000, 1_000, 1_000, 1_000, 1_000, 1_000, 1 << 30])
    return submit_adapter.Body(training.task, training.number, root, size, base, 100, "simulated")


def make_confirmation(world: World, training: TrainingRound, member: bytes) -> confirm_fetched.Body:
    roots = (row.root for row in world.state.iterate(Submission, training.task, training.number))
    missing = sorted(root for root in roots if hash_number("lost", root) % 16 == 0)
    if hash_number("blind", training.task, training.number, member) % 16 == 0:
        missing = [sha256(b"nobody's")]
    return confirm_fetched.Body(training.task, training.number, tuple(missing))


def make_ballot(world: World, training: TrainingRound, voter: bytes) -> Ballot:
    covered = find_judge(world, training, voter).domains
    roots = get_assigned(training, voter)
    return Ballot(training.task, training.number, tuple(_judge_adapter(voter, root, covered) for root in roots))


def find_judge(world: World, training: TrainingRound, voter: bytes) -> Judge:
    judges = get_committee(world.state, training)
    return next((judge for judge in judges if judge.address == voter), Judge(voter, 0, ()))


def _judge_adapter(voter: bytes, root: bytes, covered: Sequence[int]) -> AdapterFigures:
    """The adapter's quality, as this judge sees it: most help, some harm, some cannot be measured."""
    quality, mood = hash_number("quality", root) % 10, hash_number("mood", voter, root) % 16
    if mood == 1:
        return AdapterFigures(root, "abstain", "", (), ())
    if quality == 9:
        status = ("unavailable", "malformed", "copy")[hash_number("kind", root) % 3]
        return AdapterFigures(root, status, "simulated", (), ())  # type: ignore[arg-type]
    screens = (Screen("cosine_ppm", 5, 4, True),) if mood == 2 or hash_number("alarm", root) % 20 == 0 else ()
    noise = hash_number("noise", voter, root) % 500 + (200_000 if mood == 3 else 0)
    figures = []
    for domain in covered:
        change = {6: 90_000, 7: 90_000, 8: (90_000, -50_000)[domain % 2]}.get(quality, -50_000 + 1_000 * domain)
        figures.append(DomainFigure(domain, change + noise, 1_000, change + noise, 1_000))
    return AdapterFigures(root, "scored", "", tuple(figures), screens)


def compute_salt(training: TrainingRound, voter: bytes) -> bytes:
    return sha256(f"salt {training.task} {training.number} {voter.hex()}".encode())


def make_sealed_vote(world: World, training: TrainingRound, voter: bytes) -> vote.Body:
    genesis_hash = world.state.get(Chain).genesis_hash
    ballot = make_ballot(world, training, voter)
    seal = compute_seal(genesis_hash, ballot, voter, compute_salt(training, voter))
    return vote.Body(training.task, training.number, seal=seal)


def make_open_vote(world: World, dice: Dice, training: TrainingRound, voter: bytes) -> vote.Body:
    salt = compute_salt(training, voter) if not dice.is_one_in(20) else bytes(32)
    return vote.Body(training.task, training.number, ballot=make_ballot(world, training, voter), salt=salt)


def make_attestation(world: World, training: TrainingRound, attester: bytes) -> AttestationBody:
    """The honest claim for most; one in ten computes another root, some candidates harm."""
    accepted, place = get_accepted(training), (training.task, training.number)
    covered = find_judge(world, training, attester).domains
    is_wrong = hash_number("wrong", *place, attester) % 10 == 0
    harm = 90_000 if hash_number("harm", *place) % 8 == 0 else -10_000
    loss = 1_400_000 - 10_000 * training.number
    return AttestationBody(
        task=training.task,
        round=training.number,
        candidate=sha256(f"candidate {place} {accepted} {is_wrong}".encode()),
        size_bytes=4_000,
        coefficients=tuple(Coefficient(root, 1_000_000) for root in accepted),
        figures=tuple(CandidateFigure(d, loss, loss + 10_000, harm, 500, harm, 500) for d in covered),
        gains=tuple(Gain(root, d, 1_000 * (d + 1)) for root in accepted for d in covered),
        screens=(),
    )


def find_late_attesters(world: World) -> list[Duty]:
    """Bonded participants that may attest after the committee's deadline."""
    duties: list[Duty] = []
    for task, training in world.open_rounds("aggregate"):
        if training.second_deadline:
            done = _attested(world.state, training)
            participants = [row.owner for row in world.state.iterate(TaskParticipant, task.id)]
            duties += [(training, owner) for owner in participants if owner not in done]
    return duties
