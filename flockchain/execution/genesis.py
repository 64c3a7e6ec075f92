"""The first state, from a genesis document; and the state of a stored chain, from its rows."""

from collections.abc import Iterable

from flockchain.codec import encode
from flockchain.crypto import address_of, tagged_hash
from flockchain.execution.staking import make_validator_target
from flockchain.execution.state import State
from flockchain.execution.validators import compute_powers, make_set
from flockchain.genesis import Genesis, check_genesis
from flockchain.merkle import EMPTY_ROOT
from flockchain.rotation import compute_changed_rotation, compute_next_rotation
from flockchain.state_tree import StateTree
from flockchain.types.rows import Account, Chain, Row, Stake, ValidatorRow


def build_state(genesis: Genesis) -> State:
    """State at height 0; raises `Refused` for a document that `check_genesis` refuses."""
    check_genesis(genesis)
    state = State()
    state.put(_make_chain(genesis))
    for account in genesis.accounts:
        state.put(Account(account.address, account.balance_uflk, 0))
    for validator in genesis.validators:
        address = address_of(validator.public_key)
        state.put(
            ValidatorRow(
                address=address,
                owner=validator.owner,
                public_key=validator.public_key,
                name=validator.name,
                bond_uflk=validator.bond_uflk,
                active=True,
                jailed_until_ms=0,
                tombstoned=False,
                beacon_head=validator.beacon_head,
                next_beacon_head=b"",
                next_beacon_height=0,
                joined_height=1,
                income_uflk=0,
            )
        )
        target = make_validator_target(address)
        state.put(Stake(validator.owner, target, validator.bond_uflk, "", (), False, 0, genesis.time_ms))
    rotation = compute_changed_rotation(None, compute_powers(state, genesis.params.stake))
    state.put(make_set(state, 1, rotation))
    state.put(make_set(state, 2, compute_next_rotation(rotation)))
    state.clear_journal()
    return state


def load_state(rows: Iterable[Row]) -> tuple[State, StateTree]:
    """State and tree of a stored chain's rows (or of `build_state(genesis).rows()`), with the root set.

    With a million rows the garbage collector takes more than half of the time: callers switch it off meanwhile.
    """
    state, tree = State(rows), StateTree()
    tree.update({key: encode(row) for key, row in state.items()})
    state.root = tree.root
    return state, tree


def _make_chain(genesis: Genesis) -> Chain:
    genesis_hash = genesis.hash()
    return Chain(
        chain_id=genesis.chain_id,
        genesis_hash=genesis_hash,
        height=0,
        time_ms=genesis.time_ms,
        last_block_id=b"",
        beacon=tagged_hash("flockchain/first-beacon", (genesis_hash,)),
        supply_uflk=genesis.supply_uflk,
        community_pool_uflk=0,
        fee_pool_uflk=0,
        next_task=1,
        next_sequence=1,
        window_start_ms=genesis.time_ms,
        window_blocks=0,
        results_root=EMPTY_ROOT,
        params=genesis.params,
    )
