"""Changes of parameters and of the protocol version by more than two thirds of the bonded power.

propose, approve                      the transactions' verbs; their callers have refused first
process_scheduled_changes(context)    end of block, before the validator set: what this block was the last one before
process_approvals(context)            end of block, after the validator set: who agrees, by power in the newest set
compute_next_change_due_ms(state)     when an approved upgrade begins by time
"""

import msgspec

from flockchain.errors import Refused
from flockchain.execution.context import Context
from flockchain.execution.epochs import begin_epoch, find_epoch, get_protocol_version
from flockchain.execution.state import State
from flockchain.execution.validators import compute_powers, get_validators
from flockchain.params import DAY_MS, Params, check_params_change, replace_params
from flockchain.types.change import Settings, Upgrade
from flockchain.types.rows import (
    Approval,
    Change,
    ChangeStatus,
    OpenChange,
    ScheduledChange,
    ValidatorRow,
)

MAX_OPEN_PER_VALIDATOR = 2
MAX_OPEN_CHANGES = 200
MAX_CHANGE_MS = 30 * DAY_MS
OUTCOME_CHARACTERS = 256
EFFECT_DELAY_BLOCKS = 2
"""Like a validator set: approved in block H, in force from H+2 on at the earliest."""


def compute_changed_params(context: Context, settings: Settings) -> Params:
    """The present parameters with these values; raises `Refused` where they break a rule or leave nobody to sign."""
    after = replace_params(context.params, {setting.path: setting.value for setting in settings})
    check_params_change(context.params, after)
    if not compute_powers(context.state, after.stake):
        raise Refused(
            "bad-params",
            f"no validator has a bond of {after.stake.min_validator_bond_uflk} uflk: nobody could sign the next block",
        )
    return after


def check_upgrade(context: Context, upgrade: Upgrade) -> None:
    """Refuse one that is not the next version, or whose moment is too near."""
    following = get_protocol_version(context.state) + 1
    if upgrade.version != following:
        raise Refused("bad-upgrade", f"protocol version {upgrade.version}: the next one is {following}")
    earliest = context.height + EFFECT_DELAY_BLOCKS
    if upgrade.height and upgrade.height < earliest:
        raise Refused("bad-upgrade", f"upgrade height {upgrade.height} is too near: {earliest} is the earliest now")
    if not upgrade.height and upgrade.time_ms <= context.time_ms:
        raise Refused("bad-upgrade", f"upgrade time {upgrade.time_ms} ms is not after {context.time_ms} ms")


def check_cancel(context: Context, number: int) -> None:
    """Refuse to withdraw what does not wait for its moment."""
    if context.state.find(ScheduledChange, number) is None:
        raise Refused("not-scheduled", f"change {number} does not wait to come into force: nothing to cancel")


def check_room(state: State, proposer: bytes) -> None:
    """Refuse when the proposer, or all together, have enough open changes."""
    open_changes = [state.get(Change, entry.change) for entry in state.iterate(OpenChange)]
    own = sum(1 for change in open_changes if change.proposer == proposer)
    if own >= MAX_OPEN_PER_VALIDATOR:
        raise Refused("too-many-changes", f"{own} changes of this validator are open, the most: wait for one to end")
    if len(open_changes) >= MAX_OPEN_CHANGES:
        raise Refused("too-many-changes", f"{len(open_changes)} changes are open, the most: wait for one to end")


def propose(
    context: Context,
    proposer: bytes,
    reason: str,
    *,
    settings: Settings,
    upgrade: Upgrade | None,
    cancels: int,
    deadline_ms: int,
) -> None:
    """Open a change, with the proposer's own approval."""
    state, chain = context.state, context.chain
    number = chain.next_sequence
    state.put(msgspec.structs.replace(chain, next_sequence=number + 1))
    state.put(
        Change(
            id=number,
            proposer=proposer,
            reason=reason,
            settings=settings,
            upgrade=upgrade,
            cancels=cancels,
            created_ms=context.time_ms,
            deadline_ms=deadline_ms,
            status="open",
            approved_power=0,
            total_power=0,
            effective_height=0,
            outcome="",
        )
    )
    state.put(OpenChange(deadline_ms, number))
    approve(context, number, proposer)


def approve(context: Context, number: int, validator: bytes) -> None:
    context.state.put(Approval(number, validator, context.height))
    context.touched_changes.add(number)


def compute_approval(state: State, number: int, height: int) -> tuple[int, int]:
    """(power that agrees, all power) among the members of the set that signs `height`."""
    powers = {member.address: member.power for member in get_validators(state, height)}
    agreed = sum(powers.get(approval.validator, 0) for approval in state.iterate(Approval, number))
    return agreed, sum(powers.values())


def process_approvals(context: Context) -> None:
    """Remove what ran out; approve what more than two thirds of the newest set's power agrees to.

    Counted when an approval or a bond changed: nothing else can change a count.
    """
    state = context.state
    while (oldest := state.first(OpenChange)) is not None and oldest.deadline_ms < context.time_ms:
        change = state.get(Change, oldest.change)
        _close(context, change)
        state.delete(Change, change.id)
        _add_receipt(context, change, f"change {change.id} ran out without enough approvals")
    for entry in state.iterate(OpenChange):
        if context.is_set_stale or entry.change in context.touched_changes:
            agreed, total = compute_approval(state, entry.change, context.height + 2)
            if 3 * agreed > 2 * total:
                _accept(context, state.get(Change, entry.change), agreed, total)


def process_scheduled_changes(context: Context) -> None:
    """Bring into force what begins with the next block, in the order of the numbers."""
    state = context.state
    for entry in state.iterate(ScheduledChange):
        change = state.get(Change, entry.change)
        if is_due(change, context.height + 1, context.time_ms):
            state.delete(ScheduledChange, change.id)
            _enact(context, msgspec.structs.replace(change, effective_height=context.height + 1))


def is_due(change: Change, next_height: int, time_ms: int) -> bool:
    """Whether an approved change begins with `next_height`, after a block of this time."""
    if change.effective_height:
        return change.effective_height == next_height
    assert change.upgrade is not None
    return time_ms >= change.upgrade.time_ms


def compute_next_change_due_ms(state: State) -> int | None:
    """Earliest time of an approved upgrade; heights wait for blocks, not for time."""
    upgrades = (state.get(Change, entry.change).upgrade for entry in state.iterate(ScheduledChange))
    return min((upgrade.time_ms for upgrade in upgrades if upgrade and upgrade.time_ms), default=None)


def _accept(context: Context, change: Change, agreed: int, total: int) -> None:
    """It has the power it needs: schedule it, or say why it comes to nothing."""
    _close(context, change)
    change = msgspec.structs.replace(change, approved_power=agreed, total_power=total)
    try:
        if change.cancels:
            _cancel(context, change)
            return
        if change.upgrade is None:
            height = context.height + EFFECT_DELAY_BLOCKS
        else:
            check_upgrade(context, change.upgrade)
            _check_no_other_upgrade(context.state)
            height = change.upgrade.height
    except Refused as refusal:
        _finish(context, change, "void", refusal.message)
        return
    context.state.put(ScheduledChange(change.id))
    moment = f"block {height}" if height or not change.upgrade else f"the block after {change.upgrade.time_ms} ms"
    _finish(context, msgspec.structs.replace(change, effective_height=height), "approved", f"in force from {moment} on")


def _check_no_other_upgrade(state: State) -> None:
    for entry in state.iterate(ScheduledChange):
        if state.get(Change, entry.change).upgrade is not None:
            raise Refused("bad-upgrade", f"change {entry.change} is an upgrade that waits for its moment: cancel it")


def _cancel(context: Context, change: Change) -> None:
    check_cancel(context, change.cancels)
    state = context.state
    state.delete(ScheduledChange, change.cancels)
    _finish(context, state.get(Change, change.cancels), "void", f"cancelled by change {change.id}")
    _finish(context, change, "enacted", f"change {change.cancels} is cancelled")


def _enact(context: Context, change: Change) -> None:
    """The parameters may have changed since the proposal: every rule is checked again."""
    epoch = find_epoch(context.state)
    version, upgrade = (epoch.protocol_version, epoch.upgrade) if epoch else (get_protocol_version(context.state), 0)
    if change.upgrade is not None:
        assert change.upgrade.version == version + 1, "one upgrade waits at a time"
        begin_epoch(context, context.params, change.upgrade.version, change.id)
    else:
        try:
            params = compute_changed_params(context, change.settings)
        except Refused as refusal:
            _finish(context, change, "void", refusal.message)
            return
        begin_epoch(context, params, version, upgrade)
        context.state.put(msgspec.structs.replace(context.chain, params=params))
        context.is_set_stale = True
    _finish(context, change, "enacted", f"in force from block {change.effective_height} on")


def _close(context: Context, change: Change) -> None:
    """No more approvals."""
    state = context.state
    state.delete(OpenChange, change.deadline_ms, change.id)
    for approval in state.iterate(Approval, change.id):
        state.delete(Approval, change.id, approval.validator)


def _finish(context: Context, change: Change, status: ChangeStatus, outcome: str) -> None:
    outcome = outcome[:OUTCOME_CHARACTERS]
    context.state.put(msgspec.structs.replace(change, status=status, outcome=outcome))
    _add_receipt(context, change, f"change {change.id} is {status}: {outcome}")


def _add_receipt(context: Context, change: Change, reason: str) -> None:
    owner = context.state.get(ValidatorRow, change.proposer).owner
    context.add_receipt(
        "change",
        owner,
        0,
        reason,
        change=change.id,
        approved_power=change.approved_power,
        total_power=change.total_power,
        effective_height=change.effective_height,
    )
