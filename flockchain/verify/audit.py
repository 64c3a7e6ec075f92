"""The audit of one home: replay, stored state, adapters' bytes."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from flockchain.client import Client
from flockchain.codec import decode
from flockchain.errors import Refused
from flockchain.execution.invariants import assert_all
from flockchain.genesis import Genesis, load_genesis
from flockchain.store.records import Records, RecordSnapshot, expect_state_rows
from flockchain.types.rows import Adapter, Submission
from flockchain.verify.reexecution import Reexecution, find_base
from flockchain.verify.replay import Replay
from flockchain.verify.report import Progress, Report
from flockchain.verify.sources import BaseFinder, Blobs
from flockchain.verify.stored import compare_state_rows

BLOCKS_AT_ONCE = 1_000
"""Read in one snapshot: a running node can fold its log in between."""


def verify_home(
    home: Path,
    *,
    client: Client | None = None,
    bases: Sequence[Path] = (),
    progress: Progress = lambda what, done, of: None,
) -> Report:
    """Recompute the chain stored in `home` (a node's, running or not; nothing is written there).

    `client` fetches adapters that are not in data/blobs; `bases` are model folders. Raises `Fault` for a file that
    cannot be read, `Refused` for a home without a chain or with a genesis that is none.
    """
    chain = home / "data" / "chain.sqlite"
    if not chain.exists():
        raise Refused("no-chain", f"{home} holds no chain (data/chain.sqlite): give a node's home with --home")
    report = Report()
    records = Records(chain)
    try:
        genesis = _load_genesis(home, records, report)
        report.chain_id, report.genesis_hash = genesis.chain_id, genesis.hash()
        base = _find_base(home, genesis, records, report)
        replay = Replay(genesis, report, base)
        report.from_height = replay.height
        _replay_all(replay, records, report, progress)
    finally:
        records.close()
    _check_adapters(home, replay, report, client, bases, progress)
    report.problems.sort(key=lambda finding: finding.height)
    report.unchecked.sort(key=lambda finding: finding.height)
    return report


def _load_genesis(home: Path, records: Records, report: Report) -> Genesis:
    """The document of the home; the stored bytes must be the same ones."""
    with records.snapshot() as snapshot:
        stored = snapshot.meta().get("genesis", b"")
    path = home / "genesis.json"
    if not path.exists():
        report.leave_out(0, "genesis.json is missing: the replay began from the genesis stored with the chain")
        return decode(Genesis, stored)
    genesis = load_genesis(path)
    try:
        is_same = decode(Genesis, stored) == genesis
    except Refused:
        is_same = False
    if not is_same:
        report.problem(0, "the genesis stored with the chain is not that of genesis.json")
    return genesis


def _find_base(home: Path, genesis: Genesis, records: Records, report: Report) -> Reexecution | None:
    """Where to begin on a home that does not hold its first blocks: the oldest snapshot; None: at genesis."""
    with records.snapshot() as snapshot:
        first, tip = snapshot.first(), snapshot.tip()
        if first <= 1:
            return None
        try:
            base = find_base(home, genesis, snapshot, tip, oldest=True)
        except Refused as refusal:
            report.leave_out(first, f"blocks {first} to {tip} were not recomputed: {refusal.message}")
            return None
    what = f"blocks 1 to {base.height}: they are not all held, the replay began from the snapshot of {base.height}"
    report.leave_out(0, what)
    return base


def _replay_all(replay: Replay, records: Records, report: Report, progress: Progress) -> None:
    """All blocks; then, in the snapshot that holds the newest, everything that is stored of the state."""
    with records.snapshot() as snapshot:
        root = snapshot.meta().get("genesis_state_root")
    if root != replay.genesis_root:
        report.problem(0, "the state root stored for genesis is not that of its rows")
    while True:
        with records.snapshot() as snapshot:
            tip = snapshot.tip()
            if snapshot.first() > replay.height + 1:
                return  # said by `_find_base`
            last = min(tip, replay.height + BLOCKS_AT_ONCE)
            while replay.height < last:
                if not replay.step(snapshot):
                    report.height = replay.height
                    what = f"blocks {replay.height + 1} to {tip} and the stored state: the replay could not go on"
                    report.leave_out(replay.height + 1, what)
                    return
                progress("blocks", replay.height, tip)
            report.height = replay.height
            if replay.height == tip:
                _check_state(replay, snapshot, report, progress)
                return


def _check_state(replay: Replay, snapshot: RecordSnapshot, report: Report, progress: Progress) -> None:
    height = replay.height
    for table, stray in snapshot.find_stray_heights(height):
        report.problem(stray, f"{table} holds a record of height {stray}, which no block has")
    progress("state rows", 0, 1)
    for sentence in compare_state_rows(snapshot.state_rows(), expect_state_rows(dict(replay.state.items()))):
        report.problem(height, sentence)
    try:
        assert_all(replay.state)
    except AssertionError as error:
        report.problem(height, f"the state breaks an invariant: {error}")
    progress("state rows", 1, 1)


def _check_adapters(
    home: Path, replay: Replay, report: Report, client: Client | None, bases: Sequence[Path], progress: Progress
) -> None:
    with tempfile.TemporaryDirectory(prefix="flockchain-verify-") as name:
        blobs = Blobs(home / "data" / "blobs", Path(name), client)
        adapters = list(replay.state.iterate(Adapter))
        for done, row in enumerate(adapters):
            progress("adapter files", done, len(adapters))
            if blobs.is_altered(row.root):
                height = replay.rounds.recorded_heights.get(row.root, 0)
                report.problem(height, f"the bytes of adapter {row.root.hex()} in data/blobs are not those of its root")
        settled = [one for one in replay.rounds.settled if one.round.candidate_root]
        if not settled:
            return
        try:
            from flockchain.verify.adapters import AdapterAuditor
        except ModuleNotFoundError as error:
            what = (
                f"{len(settled)} global adapters were not recomputed: {error.name} is missing, install flockchain[ml]"
            )
            report.leave_out(settled[0].height, what)
            return
        auditor = AdapterAuditor(report, blobs.find, BaseFinder(bases), Path(name))
        for done, one in enumerate(settled):
            progress("global adapters", done, len(settled))
            rows = replay.state.iterate(Submission, one.task.id, one.round.number)
            auditor.check_round(one, {row.root: row for row in rows})
        progress("global adapters", len(settled), len(settled))
