"""Joining a task: the bond, with a judge's commitments to its private holdouts."""

from collections.abc import Sequence

from flockchain.client import Json
from flockchain.errors import Refused
from flockchain.merkle import compute_root
from flockchain.txs import stake
from flockchain.types.task import Holdout, Role
from flockchain.workers.participant import Participant

ATTEMPTS = 5


def make_holdout(domain: str, leaves: Sequence[bytes]) -> Holdout:
    """Commitment to the blocks of one domain; `leaves` in holdout order."""
    return Holdout(domain, compute_root(leaves), len(leaves))


def find_bond(participant: Participant) -> Json | None:
    """The participant's bond in its task, as the chain holds it."""
    found = participant.client.get("/stakes", owner=participant.me, target=f"task:{participant.task_id}")["items"]
    return found[0] if found else None


def ensure_bond(participant: Participant, role: Role, amount_uflk: int, holdouts: Sequence[Holdout] = ()) -> None:
    """Bond once: a participant that already has a bond, however small it became, is never topped up by itself.

    Raises the chain's refusal when it stands after some attempts.
    """
    name = f"task{participant.task_id}-bond"
    commitments = tuple(sorted(holdouts, key=lambda holdout: holdout.domain))
    body = stake.Body(f"task:{participant.task_id}", amount_uflk, role=role, holdouts=commitments)
    for _ in range(ATTEMPTS):
        if find_bond(participant) is not None:
            return
        if participant.send_once(name, stake.KIND, lambda: body, free=False) is None:
            participant.pause()
    raise participant.last_refusal or Refused("no-bond", f"the bond in task {participant.task_id} did not become final")
