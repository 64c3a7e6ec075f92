"""`/v1/tasks/{task}/final`: the hidden final set of a task, from its commitment to its judgement."""

from fastapi import APIRouter, Request

from api.errors import NotFound
from api.json import Json, render
from api.services import Number, services
from flockchain.types.rows import Draw, FinalSet, FinalVote, Task, Vesting

router = APIRouter(prefix="/v1/tasks/{task}/final", tags=["learning"])


@router.get("")
async def get_final(request: Request, task: Number) -> Json:
    """Terms, phase, drawn judges, what they said, and which rewards are vested. 404 for a task without one."""
    with services(request).reader.snapshot() as chain:
        row, final = chain.find(Task, task), chain.find(FinalSet, task)
        if row is None or final is None:
            raise NotFound(f"no task {task}" if row is None else f"task {task} has no final set")
        draw = chain.find(Draw, task, row.round + 1, "voter")
        return {
            **render(final),
            "draw": render(draw) if draw is not None else None,
            "votes": [render(vote) for vote in chain.all_rows(FinalVote, task)],
            "vestings": [render(vesting) for vesting in chain.all_rows(Vesting, task)],
        }
