"""Protocol versions: which ones this software runs, and what the first block of one does to the state.

A new version is a function in a file of its own under this room, registered in `UPGRADES`, and branches on
`epochs.get_protocol_version` where its rules differ; the old rules stay, or the chain's past could not be replayed.
"""

from collections.abc import Callable, Collection

from flockchain import __version__
from flockchain.errors import UpgradeNeeded
from flockchain.execution.context import Context
from flockchain.execution.epochs import FIRST_VERSION, find_epoch
from flockchain.execution.state import State
from flockchain.types.rows import Chain, Change, Epoch

UPGRADES: dict[int, Callable[[Context], None]] = {}
"""By protocol version: rewrites rows before anything else happens in its first block."""


def get_supported_versions() -> tuple[int, ...]:
    return (FIRST_VERSION, *sorted(UPGRADES))


def process_upgrade(context: Context) -> None:
    """In the first block of a protocol version: bring the state into its form."""
    epoch = find_epoch(context.state)
    if epoch is None or epoch.since_height != context.height:
        return
    before = context.state.last_until(Epoch, epoch.since_ms - 1)
    assert before is not None, "the first epoch begins at genesis"
    if epoch.protocol_version != before.protocol_version:
        UPGRADES[epoch.protocol_version](context)


def check_version(height: int, version: int, supported: Collection[int]) -> None:
    """Raise `UpgradeNeeded` for a node that would join at this height, by its verified header."""
    if version not in supported:
        raise UpgradeNeeded(
            f"block {height} follows protocol version {version}; this software (flockchain {__version__}) runs "
            f"{', '.join(map(str, sorted(supported)))}. Nothing was stored and nothing signed: stopping is safe. "
            f"Install a release for protocol version {version} and start it on this home"
        )


def find_upgrade_needed(state: State, supported: Collection[int]) -> UpgradeNeeded | None:
    """Why this software must stop before the next block; None while it may go on."""
    epoch = find_epoch(state)
    if epoch is None or epoch.protocol_version in supported:
        return None
    upgrade = state.get(Change, epoch.upgrade).upgrade
    assert upgrade is not None
    done, name = state.get(Chain).height, upgrade.release or f"a release for protocol version {upgrade.version}"
    return UpgradeNeeded(
        f"block {done + 1} and all after it follow protocol version {epoch.protocol_version}, approved in change "
        f"{epoch.upgrade}; this software (flockchain {__version__}) runs {', '.join(map(str, sorted(supported)))}. "
        f"All blocks to {done} are stored, and nothing of block {done + 1} was signed or executed: stopping is safe. "
        f"Install {name} and start it on this home"
    )
