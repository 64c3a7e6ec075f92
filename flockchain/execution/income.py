"""Who signed, and what that earns: validator income and its delegators' part, late precommits, liveness.

The fees of block H-1 and the inflation since are shared by power among the set that signed H-1, when block H shows who
did. An absent member's part is kept while its late precommit may come, then goes to the community pool, never to the
other signers: nobody gains by leaving out a vote.
"""

import msgspec

from flockchain.crypto import format_address
from flockchain.execution.balances import increase_community_pool
from flockchain.execution.context import Context
from flockchain.execution.delegation import get_pool, give_delegators_part
from flockchain.execution.slashing import slash_bond
from flockchain.execution.staking import make_validator_target
from flockchain.execution.validators import POWER_DELAY_BLOCKS, get_validators
from flockchain.params import DAY_MS, PPM
from flockchain.types.chain import Commit, SignedVote
from flockchain.types.rows import AbsentSigner, Chain, Liveness, RecentBlock, ValidatorRow

YEAR_MS = 365 * DAY_MS


def compute_inflation_uflk(chain: Chain, elapsed_ms: int) -> int:
    """New money for `elapsed_ms`, rounded down, capped per block so that a clock set wrong cannot mint a year."""
    params = chain.params.stake
    minted = chain.supply_uflk * params.inflation_ppm_per_year * elapsed_ms // (PPM * YEAR_MS)
    return min(minted, params.max_inflation_per_block_uflk)


def process_last_commit(context: Context, commit: Commit) -> None:
    """Mint, and share out the income of the block before; nothing happens in the first block, which has no commit."""
    state, chain = context.state, context.chain
    if commit.height == 0:
        return
    minted = compute_inflation_uflk(chain, context.time_ms - chain.time_ms)
    income = chain.fee_pool_uflk + minted
    members = get_validators(state, commit.height)
    total_power = sum(member.power for member in members)
    signers = {signature.validator for signature in commit.signatures}
    dust, absent = income, []
    for member in members:
        share = income * member.power // total_power
        dust -= share
        if member.address in signers:
            _increase_income(context, member.address, share)
        else:
            absent.append(AbsentSigner(member.address, share))
    state.put(
        msgspec.structs.replace(
            chain,
            supply_uflk=chain.supply_uflk + minted,
            fee_pool_uflk=0,
            community_pool_uflk=chain.community_pool_uflk + dust,
        )
    )
    state.put(RecentBlock(commit.height, chain.last_block_id, tuple(absent)))


def process_late_precommits(context: Context, votes: tuple[SignedVote, ...]) -> None:
    """Pay members whose precommit came after the commit, and clear their absence."""
    for vote in votes:
        row = context.state.get(RecentBlock, vote.body.height)
        found = [signer for signer in row.absent if signer.validator == vote.validator]
        assert len(found) == 1, "check_block saw that it was absent"
        _increase_income(context, vote.validator, found[0].income_uflk)
        rest = tuple(signer for signer in row.absent if signer.validator != vote.validator)
        context.state.put(msgspec.structs.replace(row, absent=rest))


def process_liveness(context: Context) -> None:
    """Close blocks that are too old for late precommits; at the end of a window, jail who missed too much of it."""
    state = context.state
    depth = context.params.consensus.late_precommit_blocks
    closed = 0
    while (row := state.first(RecentBlock)) is not None and row.height + depth <= context.height:
        _close_block(context, row)
        closed += 1
    chain = context.chain
    blocks = chain.window_blocks + closed
    start_ms = chain.window_start_ms
    if context.time_ms >= start_ms + chain.params.stake.liveness_window_ms and blocks >= max(depth, 1):
        _judge_window(context, blocks)
        chain, blocks, start_ms = context.chain, 0, context.time_ms
    state.put(msgspec.structs.replace(chain, window_blocks=blocks, window_start_ms=start_ms))


def _close_block(context: Context, row: RecentBlock) -> None:
    state = context.state
    for signer in row.absent:
        record = state.find(Liveness, signer.validator) or Liveness(signer.validator, 0)
        state.put(msgspec.structs.replace(record, missed=record.missed + 1))
        increase_community_pool(state, signer.income_uflk)
    state.delete(RecentBlock, row.height)


def _judge_window(context: Context, blocks: int) -> None:
    """A member must have signed `min_signed_ppm` of the window's blocks."""
    state, params = context.state, context.params.stake
    for record in state.iterate(Liveness):
        state.delete(Liveness, record.validator)
        validator = state.get(ValidatorRow, record.validator)
        signed = blocks - record.missed
        if signed * PPM < params.min_signed_ppm * blocks and validator.jailed_until_ms == 0:
            _jail_for_downtime(context, validator, signed, blocks)


def _jail_for_downtime(context: Context, validator: ValidatorRow, signed: int, blocks: int) -> None:
    """The slash reaches the stake that stood behind the first of the window's blocks, and not what had left before."""
    params = context.params.stake
    until_ms = context.time_ms + params.jail_ms
    first_height = context.height - context.params.consensus.late_precommit_blocks - blocks + 1
    context.state.put(msgspec.structs.replace(validator, jailed_until_ms=until_ms))
    context.is_set_stale = True
    name = format_address(validator.address)
    slash_bond(
        context,
        validator.owner,
        make_validator_target(validator.address),
        params.slash_downtime_ppm,
        as_of_height=max(0, first_height - POWER_DELAY_BLOCKS),
        reason=f"validator {name} signed {signed} of {blocks} blocks of the liveness window",
        signed_blocks=signed,
        window_blocks=blocks,
        min_signed_ppm=params.min_signed_ppm,
    )
    context.add_receipt("jail", validator.owner, 0, f"validator {name} is jailed for downtime", until_ms=until_ms)


def _increase_income(context: Context, address: bytes, amount_uflk: int) -> None:
    """To the validator's owner and, by the share that it offers, to its delegators; by the bonds as they stand now."""
    if not amount_uflk:
        return
    validator = context.state.get(ValidatorRow, address)
    pool = (
        get_pool(context.state, validator.owner, make_validator_target(address)) if validator.delegated_uflk else None
    )
    if pool is not None:
        amount_uflk -= give_delegators_part(context, pool, validator.bond_uflk, amount_uflk)
    raised = msgspec.structs.replace(validator, income_uflk=validator.income_uflk + amount_uflk)
    context.state.put(raised)
