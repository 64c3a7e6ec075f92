"""A random history as the document of `flockchain export`: what restores from it has its root and goes on with it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from flockchain.cli.sources import read_export, write_export
from flockchain.errors import Refused
from flockchain.node.ledger import Ledger as NodeLedger
from flockchain.node.restore import restore
from flockchain.store.chain_store import ChainStore
from flockchain.types.snapshot import SnapshotHead
from tests.ledger import run
from tests.ledger.dice import Dice, make_seeded
from tests.ledger.world import World

BLOCKS, OPS = 20, 30


@pytest.fixture
def target(tmp_path: Path) -> Iterator[ChainStore]:
    store = ChainStore(tmp_path / "chain.sqlite")
    yield store
    store.close()


def play(world: World, dice: Dice, blocks: int) -> None:
    for _ in range(blocks):
        for _ in range(OPS):
            run.operate(world, dice, run.pick_kind(world, dice))
        run.close_block(world, dice)


def export(world: World, path: Path) -> None:
    ledger = world.ledger
    head = SnapshotHead(
        ledger.blocks[-1], ledger.commits[-1], ledger.outcomes[-1].results, ledger.outcomes[-1].receipts
    )
    with path.open("w", encoding="utf-8") as file:
        assert write_export(file, ledger.state, head) == len(ledger.state)


def test_an_exported_history_is_restored_to_its_root_and_goes_on(tmp_path: Path, target: ChainStore) -> None:
    world, dice, path = run.start(), make_seeded(1), tmp_path / "state.jsonl"
    run.enroll(world)
    play(world, dice, BLOCKS)
    export(world, path)
    restore(target, world.ledger.genesis, read_export(path), world.ledger.outcomes[-1].state_root)
    node = NodeLedger(target)
    assert node.state.root == world.state.root
    assert list(node.state.rows()) == list(world.state.rows())
    play(world, dice, 2)
    for block, commit in zip(world.ledger.blocks[-2:], world.ledger.commits[-2:], strict=True):
        node.check(block, ())
        node.apply(block, commit)
    assert target.state_root() == world.ledger.outcomes[-1].state_root


def test_one_altered_value_in_the_document_is_refused(tmp_path: Path, target: ChainStore) -> None:
    world, path = run.start(), tmp_path / "state.jsonl"
    play(world, make_seeded(2), 2)
    export(world, path)
    *lines, last = path.read_text().splitlines()
    at = last.rindex('"value":"') + len('"value":"') + 4
    changed = last[:at] + ("0" if last[at] != "0" else "1") + last[at + 1 :]
    path.write_text("\n".join([*lines, changed]) + "\n")
    with pytest.raises(Refused):
        restore(target, world.ledger.genesis, read_export(path), world.ledger.outcomes[-1].state_root)
    assert target.height == 0
