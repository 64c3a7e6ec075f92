"""`flockchain snapshot`: the state after one block, kept in parts that others verify."""

from typing import Annotated, Any

import typer

from flockchain.cli.common import HomeOption, IndexOption, JsonFlag, find_home, show, show_rows
from flockchain.cli.progress import ProgressBar
from flockchain.errors import Refused

app = typer.Typer(help="Keep, list and restore snapshots of the state.", no_args_is_help=True)


@app.command()
def create(home: HomeOption = None, index: IndexOption = None, json: JsonFlag = False) -> None:
    """Keep a snapshot of the newest block; the node may be running. Example: flockchain snapshot create --home node"""
    from flockchain.cli.homes import check_has_chain, open_home
    from flockchain.store.snapshots import SnapshotFolder

    node, _ = open_home(find_home(home, index))
    check_has_chain(node)
    folder = SnapshotFolder(node.snapshots)
    with ProgressBar() as progress:
        manifest = folder.make(node.chain, progress)
    show(_describe(folder, manifest.height), json)


@app.command("list")
def list_(home: HomeOption = None, index: IndexOption = None, json: JsonFlag = False) -> None:
    """Show the snapshots of a home, newest last. Example: flockchain snapshot list --home node --json"""
    from flockchain.cli.homes import open_home
    from flockchain.store.snapshots import SnapshotFolder

    node, _ = open_home(find_home(home, index))
    folder = SnapshotFolder(node.snapshots)
    rows = [_describe(folder, height) for height in folder.heights()]
    columns = ("height", "state_root", "chunks", "size_bytes", "time_ms")
    show_rows([row | {"state_root": row["state_root"][:16]} for row in rows], columns, json, rows)


@app.command()
def restore(
    source: Annotated[
        str,
        typer.Argument(help="Height of a snapshot of this home, a snapshot's folder, or a file of `export`."),
    ],
    state_root: Annotated[
        str | None,
        typer.Option(
            "--state-root",
            metavar="HEX",
            help="After the snapshot's block, from operators you believe. Needed but for a snapshot of this home.",
        ),
    ] = None,
    home: HomeOption = None,
    index: IndexOption = None,
    json: JsonFlag = False,
) -> None:
    """Fill a home without a chain from a snapshot, verified against one state root; the node must be stopped.

    The root of height H stands in the header of H+1 (prev_state_root), and in /v1/blocks/H of every node.

    Example: flockchain snapshot restore other/data/snapshots/8000 --state-root 5f2c... --home node
    """
    from flockchain.cli.homes import open_home, stopped
    from flockchain.cli.sources import open_source
    from flockchain.node.restore import restore as restore_into
    from flockchain.node.signer import forbid_signed_heights, read_signed_height
    from flockchain.store.chain_store import ChainStore

    node, genesis = open_home(find_home(home, index))
    snapshot, root = open_source(source, node.snapshots, state_root)
    with stopped(node):
        store = ChainStore(node.chain)
        try:
            if store.height:
                raise Refused(
                    "home-has-chain",
                    f"{node.chain} holds blocks up to {store.height}: nothing was changed; move the file away first",
                )
            with ProgressBar() as progress:
                restore_into(store, genesis, snapshot, root, progress)
            answer: dict[str, Any] = {
                "home": str(node.path),
                "height": store.height,
                "state_root": store.state_root().hex(),
                "first_height": store.first_height,
            }
        finally:
            store.close()
        node.wal.unlink(missing_ok=True)
        if node.signer_state.exists() and read_signed_height(node.signer_state)[1]:
            answer["signs_from_height"] = forbid_signed_heights(node.signer_state)
    show(answer, json)


def _describe(folder: Any, height: int) -> dict[str, Any]:
    from flockchain.state_chunks import compute_manifest_root

    manifest, header = folder.manifest(height), folder.head(height).block.header
    return {
        "height": height,
        "state_root": compute_manifest_root(manifest).hex(),
        "block_id": header.block_id().hex(),
        "time_ms": header.time_ms,
        "chunks": len(manifest.tops),
        "size_bytes": folder.size_bytes(height),
        "folder": str(folder.path / str(height)),
    }
