"""The end of a training round: what the votes cost, what the candidate becomes, who is paid, what comes next."""

from collections.abc import Mapping, Sequence

import msgspec

from flockchain.codec import encode
from flockchain.execution.candidate import (
    Agreement,
    compute_agreement,
    compute_losses,
    find_objection,
    get_claim,
    is_lower,
)
from flockchain.execution.context import Context
from flockchain.execution.draw import Judge
from flockchain.execution.offences import penalise
from flockchain.execution.outliers import compute_outliers
from flockchain.execution.payout import close_round
from flockchain.execution.rounds import (
    get_accepted,
    get_attestations,
    get_ballots,
    get_committee,
    get_sealed_voters,
    get_submissions,
)
from flockchain.execution.verdict import compute_verdicts
from flockchain.types.rows import Adapter, Task, TrainingRound, Verdict
from flockchain.types.task import AdapterFigures, AttestationBody

NOBODY = bytes(20)
"""Author of a global adapter: it is a rule's result, not a person's."""


def record_verdicts(context: Context, task: Task, training_round: TrainingRound, *, voted: bool) -> TrainingRound:
    """Derive the verdicts, slash what they and the votes call for, and write them into the round.

    `voted` is False when there was nothing to vote on: then no judge owed a vote.
    """
    state = context.state
    judges, ballots = get_committee(state, training_round), get_ballots(state, training_round)
    verdicts = compute_verdicts(
        task.spec,
        submissions=[(row.root, row.trainer) for row in get_submissions(state, training_round)],
        published=training_round.published,
        judges=judges,
        assignments=training_round.assignments,
        ballots=ballots,
    )
    verdicts = tuple(_apply_verdict(context, task, training_round, v, judges, ballots) for v in verdicts)
    if voted:
        _penalise_judges(context, task, training_round, judges)
    recorded = msgspec.structs.replace(training_round, verdicts=verdicts)
    state.put(recorded)
    return recorded


def _apply_verdict(
    context: Context,
    task: Task,
    training_round: TrainingRound,
    verdict: Verdict,
    judges: Sequence[Judge],
    ballots: Mapping[bytes, Sequence[AdapterFigures]],
) -> Verdict:
    """Write the verdict's receipt and take its penalty; the verdict with what was taken."""
    seats, revealed = sum(j.seats for j in judges), sum(j.seats for j in judges if j.address in ballots)
    facts = {"seats": seats, "revealed_seats": revealed, "tolerance_ppm": task.spec.judge.tolerance_ppm}
    for tally in verdict.tallies:
        name = task.spec.domains[tally.domain]
        facts[f"{name}.covering_seats"] = tally.covering_seats
        facts[f"{name}.harm_seats"] = tally.harm_seats
        facts[f"{name}.help_seats"] = tally.help_seats
        facts[f"{name}.median_change_ppm"] = tally.median_change_ppm
    base_ppm = {"reject": task.spec.penalties.rejected_ppm, "unavailable": task.spec.penalties.unpublished_ppm}
    base = base_ppm.get(verdict.outcome, 0)
    reason = f"{verdict.outcome}: {verdict.reason}"
    said = _encode_judgement(verdict.root, ballots) if base else b""
    taken = penalise(context, task, training_round, verdict.trainer, base, reason, evidence=said, **facts)
    place = {"task": task.id, "round": training_round.number}
    context.add_receipt("verdict", verdict.trainer, 0, reason, **place, evidence=verdict.root, **facts)
    return msgspec.structs.replace(verdict, slashed_uflk=taken)


def _encode_judgement(root: bytes, ballots: Mapping[bytes, Sequence[AdapterFigures]]) -> bytes:
    """Evidence of a slash: the adapter, and what each judge, in order of addresses, said of it."""
    return encode(
        [root, [[voter, entry] for voter in sorted(ballots) for entry in ballots[voter] if entry.root == root]]
    )


def _penalise_judges(context: Context, task: Task, training_round: TrainingRound, judges: Sequence[Judge]) -> None:
    state, penalties = context.state, task.spec.penalties
    sealed, ballots = get_sealed_voters(state, training_round), get_ballots(state, training_round)
    for judge in judges:
        if judge.address not in sealed:
            reason = "absent: no sealed vote by the end of COMMIT"
            penalise(context, task, training_round, judge.address, penalties.absent_ppm, reason, seats=judge.seats)
        elif judge.address not in ballots:
            reason = "unrevealed: a sealed vote was not opened by the end of REVEAL"
            penalise(context, task, training_round, judge.address, penalties.unrevealed_ppm, reason, seats=judge.seats)
    for outlier in compute_outliers(task.spec, judges, training_round.assignments, ballots):
        penalise(
            context,
            task,
            training_round,
            outlier.judge,
            penalties.outlier_ppm,
            f"outlier: its figure for adapter {outlier.root.hex()[:12]} on {task.spec.domains[outlier.domain]} is "
            "farther from the median of its peers than the task allows",
            change_ppm=outlier.change_ppm,
            median_ppm=outlier.median_ppm,
            limit_ppm=outlier.limit_ppm,
        )


def find_agreement(context: Context, training_round: TrainingRound, bonded_accounts: int) -> Agreement | None:
    """On which candidate the attesters agree now; `bonded_accounts` is 0 until the committee's deadline."""
    judges = get_committee(context.state, training_round)
    return compute_agreement(judges, get_attestations(context.state, training_round), bonded_accounts)


def settle_void(context: Context, task: Task, training_round: TrainingRound, outcome: str) -> None:
    """Nothing could be judged: the previous global adapter stays, and this round's reward waits in the pool."""
    close_round(context, task, training_round, outcome, settles=False)


def settle_judged(context: Context, task: Task, training_round: TrainingRound, outcome: str) -> None:
    """No adapter was accepted: the previous one stays. Judges that revealed are paid for their work, since a judge
    who earns only when something is accepted would accept anything.
    """
    close_round(context, task, training_round, outcome, settles=False)


def settle_aggregated(context: Context, task: Task, training_round: TrainingRound, agreement: Agreement | None) -> None:
    """AGGREGATE is over: the agreed candidate becomes the global adapter, unless its judges object."""
    state = context.state
    judges, attestations = get_committee(state, training_round), get_attestations(state, training_round)
    _penalise_attesters(context, task, training_round, judges, attestations, agreement)
    if agreement is None:
        outcome = "no candidate was attested by two thirds of the seats: the previous adapter stays, payment waits"
        close_round(context, task, training_round, outcome, settles=False)
        return
    claim = agreement.claim
    candidate = msgspec.structs.replace(
        training_round,
        candidate_root=claim.root,
        candidate_size_bytes=claim.size_bytes,
        coefficients=claim.coefficients,
    )
    objection = find_objection(task.spec, judges, attestations, claim)
    if objection is not None:
        outcome = f"{objection}: the previous adapter stays, the trainers' payment waits"
        close_round(context, task, candidate, outcome, settles=False)
        return
    task = _update_best(task, candidate, judges, attestations, agreement)
    if state.find(Adapter, claim.root) is None:
        state.put(Adapter(claim.root, "global", task.id, candidate.number, NOBODY, claim.size_bytes))
    accepted = len(get_accepted(candidate))
    outcome = f"aggregated {accepted} of {len(candidate.verdicts)} adapters, attested by {agreement.seats} seats"
    close_round(context, task, candidate, outcome, settles=True)


def _penalise_attesters(
    context: Context,
    task: Task,
    training_round: TrainingRound,
    judges: Sequence[Judge],
    attestations: Mapping[bytes, AttestationBody],
    agreement: Agreement | None,
) -> None:
    """Missing and losing attestations, like an absence. A judge already penalised for its vote is spared a second."""
    ballots = get_ballots(context.state, training_round)
    for judge in judges:
        body = attestations.get(judge.address)
        if judge.address not in ballots or (body is not None and agreement is None):
            continue
        if body is None:
            reason = "absent: no attestation of the candidate by the end of AGGREGATE"
        elif agreement is not None and get_claim(body) != agreement.claim:
            reason = f"attested candidate {body.candidate.hex()[:12]}, the agreed one has another root or coefficients"
        else:
            continue
        absent_ppm = task.spec.penalties.absent_ppm
        penalise(context, task, training_round, judge.address, absent_ppm, reason, seats=judge.seats)


def _update_best(
    task: Task,
    training_round: TrainingRound,
    judges: Sequence[Judge],
    attestations: Mapping[bytes, AttestationBody],
    agreement: Agreement,
) -> Task:
    """The settled candidate becomes the best one when its losses are lower in sum over the domains.

    Against the adapter it replaces this is measured on the same holdouts; only when an older one is the best so far
    are figures of two committees compared.
    """
    root = agreement.claim.root
    candidate, previous = compute_losses(len(task.spec.domains), judges, attestations, agreement.claim)
    known = previous if task.best_root == training_round.base_root else task.best_loss_ubpb
    if not any(candidate) or (any(known) and not is_lower(candidate, known)):
        return msgspec.structs.replace(task, global_root=root)
    return msgspec.structs.replace(task, global_root=root, best_root=root, best_loss_ubpb=candidate)
