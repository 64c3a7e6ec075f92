"""Which rules hold for a block: parameters and protocol version, now and in the past.

A chain begins with the parameters of genesis and protocol version 1. Each change begins an epoch, whose row is written
at the end of the block before its first one.
"""

from flockchain.execution.context import Context
from flockchain.execution.state import State
from flockchain.params import Params, TaskParams
from flockchain.types.ids import I63_MAX
from flockchain.types.rows import Chain, Epoch, Task

FIRST_VERSION = 1


def find_epoch(state: State) -> Epoch | None:
    """That of the next block; None on a chain that never changed."""
    return state.last_until(Epoch, I63_MAX)


def get_protocol_version(state: State) -> int:
    """That of the next block."""
    epoch = find_epoch(state)
    return epoch.protocol_version if epoch else FIRST_VERSION


def get_params_of(state: State, time_ms: int) -> Params:
    """Those that governed the block of this header time."""
    epoch = state.last_until(Epoch, max(0, time_ms - 1))
    return epoch.params if epoch else state.get(Chain).params


def get_task_params(state: State, task: Task) -> TaskParams:
    """Those of the task's creation: a change binds new tasks, never what an open one has promised."""
    return get_params_of(state, task.created_ms).tasks


def get_evidence_age_ms(state: State, offence_ms: int) -> int:
    """How long an offence of that time can be punished: no later change brings back what had run out."""
    return get_params_of(state, offence_ms).stake.evidence_age_ms


def begin_epoch(context: Context, params: Params, protocol_version: int, upgrade: int) -> None:
    """From the next block on; a second change at the end of the same block joins the first."""
    state, current = context.state, find_epoch(context.state)
    if current is None:
        state.put(Epoch(0, 1, FIRST_VERSION, 0, context.params))
    state.put(Epoch(context.time_ms, context.height + 1, protocol_version, upgrade, params))
