"""`/v1/tasks/{task}/rounds`: training rounds, from the draw to the last payment."""

from collections.abc import Iterator
from itertools import islice
from typing import TypeVar

from fastapi import APIRouter, Request

from api.errors import NotFound
from api.json import Json, render, render_receipt
from api.proofs import Prove, fetch_proven
from api.services import DEFAULT_LIMIT, Cursor, Limit, Number, render_rows, services
from flockchain.store.reader import Snapshot, StoredReceipt, iterate_pages
from flockchain.types.rows import (
    Attestation,
    Draw,
    FetchedRow,
    OpenVote,
    Row,
    SealedVote,
    Submission,
    Task,
    TrainingRound,
)

router = APIRouter(prefix="/v1/tasks/{task}/rounds", tags=["learning"])

MAX_MEMBERS = 2_000
"""Rows of one kind shown with a round: more than the participants that chain parameters allow."""
R = TypeVar("R", bound=Row)


@router.get("")
async def get_rounds(request: Request, task: Number, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> Json:
    """Rounds of a task by number, each with its verdicts."""
    with services(request).reader.snapshot() as chain:
        if chain.find(Task, task) is None:
            raise NotFound(f"no task {task}")
        page = chain.rows(TrainingRound, task, limit=limit, cursor=cursor)
    return render_rows(page)


@router.get("/{number}")
async def get_round(request: Request, task: Number, number: Number, prove: Prove = False) -> Json:
    """One round: phase, deadlines, draws, submissions, votes, verdicts with reasons, rewards, slashes, result.

    A proof is of the round's own row: phase to outcome, with the verdicts; not of the lists beside it.
    """
    missing = f"task {task} has no round {number}"
    key = (task, number)
    proven, proof = await fetch_proven(request, TrainingRound, *key, missing=missing) if prove else (None, {})
    with services(request).reader.snapshot() as chain:
        row = proven or chain.find(TrainingRound, task, number)
        if row is None:
            raise NotFound(missing)
        return {
            **render(row),
            **proof,
            "draws": [render(item) for item in _all(chain, Draw, task, number)],
            "submissions": [render(item) for item in _all(chain, Submission, task, number)],
            "fetched": [render(item) for item in _all(chain, FetchedRow, task, number)],
            "sealed_votes": [render(item) for item in _all(chain, SealedVote, task, number)],
            "open_votes": [render(item) for item in _all(chain, OpenVote, task, number)],
            "attestations": [render(item) for item in _all(chain, Attestation, task, number)],
            "rewards": [render_receipt(item) for item in _all_receipts(chain, "reward", task, number)],
            "slashes": [render_receipt(item) for item in _all_receipts(chain, "slash", task, number)],
        }


def _all(chain: Snapshot, kind: type[R], task: int, number: int) -> Iterator[R]:
    return islice(chain.all_rows(kind, task, number), MAX_MEMBERS)


def _all_receipts(chain: Snapshot, kind: str, task: int, number: int) -> list[StoredReceipt]:
    """In the order in which they were made."""
    found = iterate_pages(lambda cursor: chain.receipts(kind=kind, task=task, round=number, cursor=cursor))
    return list(islice(found, MAX_MEMBERS))[::-1]
