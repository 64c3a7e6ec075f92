"""`/v1/tasks`: tasks as their creators stated them, and where they stand."""

from fastapi import APIRouter, Request

from api.errors import NotFound
from api.json import Json, render
from api.proofs import Prove, fetch_proven
from api.services import DEFAULT_LIMIT, Cursor, Limit, Number, render_rows, services
from flockchain.types.rows import Task

router = APIRouter(prefix="/v1/tasks", tags=["learning"])


@router.get("")
async def get_tasks(request: Request, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> Json:
    """By id."""
    with services(request).reader.snapshot() as chain:
        page = chain.rows(Task, limit=limit, cursor=cursor)
    return render_rows(page)


@router.get("/{task}")
async def get_task(request: Request, task: Number, prove: Prove = False) -> Json:
    """One task."""
    if prove:
        proven, proof = await fetch_proven(request, Task, task, missing=f"no task {task}")
        return render(proven) | proof
    with services(request).reader.snapshot() as chain:
        row = chain.find(Task, task)
    if row is None:
        raise NotFound(f"no task {task}")
    return render(row)
