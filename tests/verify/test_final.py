"""A stored chain with a final set: `verify` recomputes its end, a changed outcome is found, REST shows it."""

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from api.app import create_app
from flockchain.codec import encode
from flockchain.execution.transactions import CheckedTx, check_tx
from flockchain.store.blob_store import BlobStore
from flockchain.store.reader import Reader
from flockchain.txs import judge_final, reveal_final
from flockchain.types.final import FinalTerms
from flockchain.types.rows import FinalSet, row_key
from flockchain.verify.audit import verify_home
from tests.support.rounds import entry, make_root
from tests.verify.chain import StoredStory, make_base

TERMS = FinalTerms(make_root("final set"), 64, 250_000, 60_000, 60_000, 7_000_000)


@dataclass(frozen=True)
class Made:
    home: Path
    first_vote: CheckedTx
    """As a mempool would hold it."""
    deadline_ms: int


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Two rounds, a reveal, three judges that find gain."""
    folder = tmp_path_factory.mktemp("final")
    story = StoredStory(folder / "home", make_base(folder / "base"), {}, final=TERMS)
    story.enroll()
    story.play_round()
    story.play_round()
    story.ledger.must("creator", reveal_final.Body(1))
    while story.state.get(FinalSet, 1).phase == "draw":
        story.block()
    deadline_ms = story.state.get(FinalSet, 1).deadline_ms
    body = judge_final.Body(1, entry(story.task.global_root, (-30_000, -30_000, 5_000)))
    nonce = story.ledger.account("judge0").nonce
    first_vote = check_tx(story.state, story.ledger.tx("judge0", body, fee_uflk=0, nonce=nonce), story.time_ms)
    for name in story.judges:
        said = entry(story.task.global_root, (-30_000, -30_000, 5_000))
        assert story.block((name, judge_final.Body(1, said))) == [""]
    assert story.state.get(FinalSet, 1).outcome == "passed"
    assert story.task.status == "finished"
    story.ledger.skip(5_000, 3)
    story.ledger.store.close()
    return Made(folder / "home", first_vote, deadline_ms)


@pytest.fixture
def home(made: Made) -> Path:
    return made.home


def test_a_judges_figure_is_free_and_waits_in_the_reserved_lane_until_the_deadline(made: Made) -> None:
    assert made.first_vote.is_due
    assert made.first_vote.duty == (1, 0)
    assert made.first_vote.deadline_ms == made.deadline_ms


def test_the_end_is_recomputed(home: Path) -> None:
    report = verify_home(home, bases=[home.parent / "base"])
    assert report.problems == []
    assert any("the final set of task 1" in item.what and not item.private for item in report.unchecked)


def test_another_outcome_is_found(home: Path, tmp_path: Path) -> None:
    copy = tmp_path / "home"
    for part in ("data", "data/blobs"):
        (copy / part).mkdir(parents=True, exist_ok=True)
    (copy / "genesis.json").write_bytes((home / "genesis.json").read_bytes())
    (copy / "data/chain.sqlite").write_bytes((home / "data/chain.sqlite").read_bytes())
    with closing(Reader(copy / "data/chain.sqlite")) as reader, reader.snapshot() as snapshot:
        row = snapshot.find(FinalSet, 1)
    assert row is not None
    with closing(sqlite3.connect(copy / "data/chain.sqlite")) as connection, connection:
        forged = encode(replace(row, outcome="failed"))
        connection.execute("UPDATE state_rows SET value = ? WHERE key = ?", (forged, row_key(row)))
    problems = [item.what for item in verify_home(copy).problems]
    assert any("final_set" in problem or "state" in problem for problem in problems), problems


def test_rest_shows_it_and_404_where_there_is_none(home: Path, tmp_path: Path) -> None:
    with closing(Reader(home / "data/chain.sqlite")) as reader:
        app = create_app(reader, None, BlobStore(tmp_path / "blobs"))  # type: ignore[arg-type]

        async def ask(path: str) -> Any:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://node") as client:
                return await client.get(path)

        found = asyncio.run(ask("/v1/tasks/1/final")).json()
        assert (found["phase"], found["outcome"], found["vestings"]) == ("closed", "passed", [])
        assert found["terms"]["root"] == TERMS.root.hex()
        assert len(found["votes"]) == 3
        assert sum(member["seats"] for member in found["draw"]["drawn"]) == 3
        assert asyncio.run(ask("/v1/tasks/2/final")).status_code == 404
