"""Setting a stopped node back: what is kept, what is computed again, and when that is refused."""

from collections.abc import Callable
from typing import Any

from flockchain.crypto import address_of, format_address
from flockchain.errors import Refused
from flockchain.execution.block import get_validators
from flockchain.execution.state import State
from flockchain.genesis import Genesis
from flockchain.node.home import Home
from flockchain.node.signer import forbid_signed_heights, read_signed_height
from flockchain.store.chain_store import ChainStore
from flockchain.store.snapshots import SnapshotFolder
from flockchain.verify.reexecution import reexecute


def set_back(home: Home, genesis: Genesis, to: int | None, progress: Callable[[str, int, int], None]) -> dict[str, Any]:
    """Forget the blocks above `to` (default: the newest one). Raises `Refused`; then nothing changed.

    The order makes a crash harmless: the signer first, which then refuses more than it must, then the chain's file
    in one transaction, then what was derived from it.
    """
    store = ChainStore(home.chain)
    try:
        tip, first = store.height, store.first_height
        target = tip - 1 if to is None else to
        if not first <= target < tip:
            raise Refused(
                "no-block",
                f"height {target} is not one to go back to: this home holds blocks {first} to {tip}, the newest is "
                "where it stands; `flockchain snapshot restore` begins from elsewhere",
            )
        run = reexecute(home.path, genesis, to=target, progress=progress)
        answer: dict[str, Any] = {"home": str(home.path), "height": target, "state_root": run.tree.root.hex()}
        if home.signer_state.exists():
            check_others_can_go_on(home, run.state, target)
            answer["signs_from_height"] = forbid_signed_heights(home.signer_state)
        store.roll_back(target, run.state.rows())
        assert store.state_root() == run.tree.root, "the state that was put in place is that of the block kept"
    finally:
        store.close()
    home.wal.unlink(missing_ok=True)
    snapshots = SnapshotFolder(home.snapshots)
    for height in snapshots.heights():
        if height > target:
            snapshots.delete(height)
    return {**answer, "forgotten_blocks": tip - target}


def check_others_can_go_on(home: Home, state: State, target: int) -> None:
    """Refuse when blocks above `target` need a signature that this home's signer will not give a second time."""
    public_key, signed_height = read_signed_height(home.signer_state)
    address = address_of(public_key)
    members = get_validators(state, target + 1)
    power = sum(member.power for member in members if member.address == address)
    total = sum(member.power for member in members)
    if signed_height > target and 3 * power >= total:
        raise Refused(
            "rollback-would-halt",
            f"{format_address(address)} has {power} of {total} voting power, so no block is decided without it, and "
            f"it has signed up to height {signed_height}: signing those heights again could be a double sign, which "
            "its signer refuses, and the chain would stand still. Nothing was changed; `flockchain snapshot restore` "
            "and `flockchain export` read this state without setting it back",
        )
