"""Adapter files arrive whole or stay invisible, from peers or their owner, across restarts and within limits."""

import contextlib
import random
import threading
from pathlib import Path

import pytest

from flockchain.chunks import CHUNK_BYTES, compute_bytes_root
from flockchain.errors import Fault, Refused
from flockchain.merkle import compute_proof, hash_leaf
from flockchain.store.blob_store import BlobStore

DATA = random.Random(7).randbytes(2 * CHUNK_BYTES + 1000)
ROOT = compute_bytes_root(DATA)
CHUNKS = [DATA[i : i + CHUNK_BYTES] for i in range(0, len(DATA), CHUNK_BYTES)]
HASHES = [hash_leaf(chunk) for chunk in CHUNKS]


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


def put(blobs: BlobStore, index: int) -> None:
    blobs.put_chunk(ROOT, index, CHUNKS[index], compute_proof(HASHES, index))


def test_chunks_in_any_order_make_the_file(blobs: BlobStore) -> None:
    blobs.expect(ROOT, len(DATA))
    assert blobs.missing(ROOT) == [0, 1, 2]
    for index in (2, 0, 1):
        assert not blobs.has(ROOT)
        put(blobs, index)
    assert blobs.has(ROOT)
    assert blobs.missing(ROOT) == []
    assert blobs.path(ROOT).read_bytes() == DATA
    assert [path.name for path in blobs.path(ROOT).parent.iterdir()] == [ROOT.hex()]


def test_a_served_chunk_convinces_another_store(blobs: BlobStore, tmp_path: Path) -> None:
    source = tmp_path / "adapter.safetensors"
    source.write_bytes(DATA)
    assert blobs.add_file(source) == (ROOT, len(DATA))
    other = BlobStore(tmp_path / "other")
    other.expect(ROOT, len(DATA))
    for index in other.missing(ROOT):
        other.put_chunk(ROOT, index, *blobs.chunk(ROOT, index))
    assert other.path(ROOT).read_bytes() == DATA


def test_chunks_survive_a_restart(tmp_path: Path) -> None:
    first = BlobStore(tmp_path)
    first.expect(ROOT, len(DATA))
    put(first, 1)
    again = BlobStore(tmp_path)
    again.expect(ROOT, len(DATA))
    assert again.missing(ROOT) == [0, 2]
    put(again, 0)
    put(again, 2)
    assert again.path(ROOT).read_bytes() == DATA


def test_a_chunk_that_the_disk_lost_is_missing_again(tmp_path: Path) -> None:
    first = BlobStore(tmp_path)
    first.expect(ROOT, len(DATA))
    put(first, 0)
    put(first, 1)
    part = tmp_path / f"{ROOT.hex()}.part"
    with part.open("r+b") as file:
        file.seek(5)
        file.write(b"torn")
    again = BlobStore(tmp_path)
    again.expect(ROOT, len(DATA))
    assert again.missing(ROOT) == [0, 2]


def test_an_upload_goes_on_where_it_stopped_even_after_a_restart(tmp_path: Path) -> None:
    first = BlobStore(tmp_path)
    first.expect(ROOT, len(DATA))
    assert first.write_range(ROOT, 0, DATA[:100_000]) == 100_000
    again = BlobStore(tmp_path)
    again.expect(ROOT, len(DATA))
    assert again.received_bytes(ROOT) == 100_000
    assert again.write_range(ROOT, 0, DATA[:50_000]) == 100_000, "what is here already is not written twice"
    assert again.write_range(ROOT, 90_000, DATA[90_000:]) == len(DATA)
    assert again.has(ROOT)
    assert again.write_range(ROOT, 0, DATA[:10]) == len(DATA), "a finished upload may be repeated"


def test_garbage_at_the_front_does_not_stay_in_the_owners_way(blobs: BlobStore) -> None:
    blobs.expect(ROOT, len(DATA))
    blobs.write_range(ROOT, 0, b"garbage" * 1000)
    assert blobs.write_range(ROOT, 0, DATA[:100]) == 100
    assert blobs.write_range(ROOT, 100, DATA[100:]) == len(DATA)
    assert blobs.path(ROOT).read_bytes() == DATA


def test_an_upload_of_other_bytes_is_refused_and_begins_again(blobs: BlobStore) -> None:
    blobs.expect(ROOT, len(DATA))
    with pytest.raises(Refused, match="the uploaded bytes have root"):
        blobs.write_range(ROOT, 0, b"x" * len(DATA))
    assert not blobs.has(ROOT)
    assert blobs.received_bytes(ROOT) == 0


@pytest.mark.parametrize(
    ("index", "data", "code"),
    [
        (3, CHUNKS[0], "bad-chunk"),
        (-1, CHUNKS[0], "bad-chunk"),
        (0, CHUNKS[1], "bad-chunk"),
        (0, CHUNKS[0][:-1], "bad-chunk"),
        (2, CHUNKS[2] + b"x", "bad-chunk"),
    ],
)
def test_a_wrong_chunk_is_refused_and_changes_nothing(blobs: BlobStore, index: int, data: bytes, code: str) -> None:
    blobs.expect(ROOT, len(DATA))
    with pytest.raises(Refused) as refusal:
        blobs.put_chunk(ROOT, index, data, compute_proof(HASHES, 0))
    assert refusal.value.code == code
    assert blobs.missing(ROOT) == [0, 1, 2]


def test_a_root_that_nobody_announced_is_refused(blobs: BlobStore) -> None:
    for attempt in (lambda: put(blobs, 0), lambda: blobs.write_range(ROOT, 0, b"x"), lambda: blobs.missing(ROOT)):
        with pytest.raises(Refused, match="no transaction has recorded"):
            attempt()


def test_what_a_crash_left_while_checking_is_removed(tmp_path: Path) -> None:
    (tmp_path / f"{ROOT.hex()}.1.checking").write_bytes(DATA)
    blobs = BlobStore(tmp_path)
    assert blobs.roots() == []
    assert list(tmp_path.iterdir()) == []


def test_owners_and_peers_at_once_end_with_one_whole_file(blobs: BlobStore) -> None:
    blobs.expect(ROOT, len(DATA))
    start = threading.Barrier(4)

    def upload() -> None:
        start.wait(10)
        for offset in range(0, len(DATA), 100_000):
            with contextlib.suppress(Refused):  # the other upload may have finished or begun anew between
                blobs.write_range(ROOT, offset, DATA[offset : offset + 100_000])

    def send_chunks() -> None:
        start.wait(10)
        for index in range(3):
            put(blobs, index)

    threads = [threading.Thread(target=work) for work in (upload, upload, upload, send_chunks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert blobs.path(ROOT).read_bytes() == DATA
    assert [path.name for path in blobs.path(ROOT).parent.iterdir()] == [ROOT.hex()]
    assert blobs.used_bytes == len(DATA)


def test_ranges_with_a_gap_or_past_the_end_are_refused(blobs: BlobStore) -> None:
    blobs.expect(ROOT, len(DATA))
    with pytest.raises(Refused, match="the upload continues at byte 0"):
        blobs.write_range(ROOT, 10, b"x")
    with pytest.raises(Refused, match="the file has"):
        blobs.write_range(ROOT, 0, DATA + b"x")


def test_files_and_reservations_stay_within_the_limit(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path, limit_bytes=len(DATA) + 10)
    blobs.expect(ROOT, len(DATA))
    put(blobs, 0)
    small = b"s" * 11
    blobs.expect(compute_bytes_root(small), len(small))
    with pytest.raises(Refused, match="11 bytes do not fit"):
        blobs.write_range(compute_bytes_root(small), 0, small)
    with pytest.raises(Refused, match="this node keeps"):
        blobs.expect(bytes(32), len(DATA) + 11)
    blobs.delete(ROOT)
    assert blobs.write_range(compute_bytes_root(small), 0, small) == 11


def test_a_deleted_file_leaves_nothing(blobs: BlobStore) -> None:
    blobs.expect(ROOT, len(DATA))
    folder = Path(blobs._folder)
    put(blobs, 0)
    blobs.write_range(ROOT, 0, b"x")
    blobs.delete(ROOT)
    assert list(folder.iterdir()) == []
    with pytest.raises(Refused, match="not on this node"):
        blobs.path(ROOT)


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_text("a file")
    with pytest.raises(Fault, match="blobs"):
        BlobStore(tmp_path / "blobs")
