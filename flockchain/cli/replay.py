"""`flockchain replay`, `flockchain export`, `flockchain rollback`: the stored blocks, executed again."""

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from flockchain.cli.common import HomeOption, IndexOption, JsonFlag, console, find_home, print_json, show
from flockchain.cli.progress import ProgressBar
from flockchain.errors import Refused


def replay(
    to: Annotated[int | None, typer.Option("--to", min=1, help="Last height. Default: the newest.")] = None,
    from_genesis: Annotated[
        bool, typer.Option("--from-genesis", help="Begin at genesis though a snapshot is nearer.")
    ] = False,
    home: HomeOption = None,
    index: IndexOption = None,
    json: JsonFlag = False,
) -> None:
    """Execute the stored blocks again and compare every root; the first difference is named, with exit code 1.

    Reads only; the node may be running. `flockchain verify` judges more, and names every difference.

    Example: flockchain replay --home node --from-genesis
    """
    from flockchain.cli.homes import check_has_chain, open_home
    from flockchain.verify.reexecution import Differs, reexecute

    node, genesis = open_home(find_home(home, index))
    check_has_chain(node)
    try:
        with ProgressBar() as progress:
            run = reexecute(node.path, genesis, to=to, from_genesis=from_genesis, progress=progress)
    except Differs as difference:
        answer: dict[str, Any] = {"ok": False, "height": difference.height, "what": difference.message}
        if json:
            print_json(answer)
        else:
            console().print(f"[red]differs[/] {escape(difference.message)}", soft_wrap=True)
        raise typer.Exit(1) from None
    show(
        {"ok": True, "from_height": run.from_height, "height": run.height, "state_root": run.tree.root.hex()},
        json,
    )


def export(
    out: Annotated[Path | None, typer.Option("--out", help="File to write; must not exist. Default: stdout.")] = None,
    height: Annotated[int | None, typer.Option("--height", min=1, help="Default: the newest block.")] = None,
    home: HomeOption = None,
    index: IndexOption = None,
    json: JsonFlag = False,
) -> None:
    """Write the state after a block as a document, one JSON object a line; the node may be running.

    `flockchain snapshot restore FILE --state-root HEX` makes a chain with the same root of it.

    Example: flockchain export --home node --height 1200 --out state.jsonl
    """
    from flockchain.cli.homes import check_has_chain, open_home
    from flockchain.cli.sources import write_export
    from flockchain.store.records import Records, read_head
    from flockchain.verify.reexecution import reexecute

    if json and out is None:
        raise Refused("wrong-usage", "--json tells about the file that --out names: give both, or neither")
    node, genesis = open_home(find_home(home, index))
    check_has_chain(node)
    with ProgressBar() as progress:
        run = reexecute(node.path, genesis, to=height, progress=progress)
    records = Records(node.chain)
    try:
        with records.snapshot() as stored:
            head = read_head(stored, run.height)
    finally:
        records.close()
    try:
        with out.open("x", encoding="utf-8") if out is not None else nullcontext(sys.stdout) as file:
            rows = write_export(file, run.state, head)
    except OSError as error:
        raise Refused("bad-file", f"cannot write {out}: {error.strerror}") from None
    if out is not None:
        facts = {"written": str(out), "height": run.height, "state_root": run.tree.root.hex(), "rows": rows}
        show(facts, json)


def rollback(
    to: Annotated[int | None, typer.Option("--to", min=1, help="Newest height to keep. Default: one below.")] = None,
    home: HomeOption = None,
    index: IndexOption = None,
    json: JsonFlag = False,
) -> None:
    """Set a stopped node back to an earlier block; it takes the blocks above from its peers again.

    The state after that block is computed from the nearest snapshot below, or from genesis. What the key has signed
    stays signed: it signs again only above its newest height. Refused where the others could not go on without it.

    Example: flockchain rollback --home node --to 1200
    """
    from flockchain.cli.homes import check_has_chain, open_home, stopped
    from flockchain.cli.setback import set_back

    node, genesis = open_home(find_home(home, index))
    check_has_chain(node)
    with stopped(node), ProgressBar() as progress:
        answer = set_back(node, genesis, to, progress)
    show(answer, json)
