"""Documents are read with errors that help, split for ever by cluster, and cut into blocks that never cross them."""

import gzip
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ml.data import (
    HOLDOUT,
    TRAIN,
    Block,
    DataError,
    Document,
    Holdout,
    find_shared_documents,
    make_blocks,
    read_documents,
    read_domains,
    split_documents,
    write_documents,
)
from ml.near_duplicates import compute_jaccard, find_clusters

WORDS = [f"word{number}" for number in range(500)]


def make_text(seed: int, words: int = 120) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words))


class Letters:
    """One token a letter; the end token is 0."""

    eos_token_id = 0

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        return [ord(letter) for letter in text]


def write_lines(path: Path, *lines: str) -> Path:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def test_reading_needs_no_torch() -> None:
    script = "import ml.data, ml.domains, sys; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"


def test_text_and_jsonl_files_of_a_folder_become_documents(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one document\nof two lines")
    write_lines(tmp_path / "b.jsonl", '{"text": "first"}', "", '{"text": "second", "source": "book"}')
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(b'{"text": "third"}\n'))
    (tmp_path / "notes.md").write_text("not data")
    documents = read_documents(tmp_path)
    assert [document.text for document in documents] == ["one document\nof two lines", "first", "second", "third"]
    assert [document.source for document in documents] == ["a.txt", "b.jsonl:1", "book", "c.jsonl.gz:1"]


def test_an_exact_duplicate_is_dropped(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", '{"text": "same"}', '{"text": "same"}')
    assert len(read_documents(path)) == 1


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"text": "cut', "line 17 is not JSON .*: repair or delete the line"),
        ('["text"]', "line 17 lacks a text"),
        ('{"txt": "misspelt"}', "line 17 lacks a text"),
        ('{"text": 5}', "line 17 lacks a text"),
        ('{"text": "  "}', "line 17 lacks a text"),
        ('{"text": "\\ud800"}', "line 17 holds half a surrogate pair"),
        ("[" * 100_000, "line 17 is nested too deeply|line 17 is not JSON"),
    ],
)
def test_a_bad_line_is_named_with_its_number(tmp_path: Path, line: str, sentence: str) -> None:
    path = write_lines(tmp_path / "a.jsonl", *[json.dumps({"text": f"good {n}"}) for n in range(16)], line)
    with pytest.raises(DataError, match=sentence):
        read_documents(path)


def test_a_file_that_is_not_utf8_says_where(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match="not UTF-8 at byte 3"):
        read_documents(tmp_path / "a.txt")


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "x"}\n' * 1000)[:-10])
    with pytest.raises(DataError, match="damaged"):
        read_documents(tmp_path / "a.jsonl.gz")


@pytest.mark.parametrize("name", ["absent.jsonl", "model.bin", "empty"])
def test_what_is_no_data_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "model.bin").write_bytes(b"\x00")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        read_documents(tmp_path / name)


def test_written_documents_read_back(tmp_path: Path) -> None:
    documents = [Document("Größe\n\u2028 \x85 tab\t", "a"), Document('{"text": "quoted"}', "b")]
    write_documents(tmp_path / "law.jsonl", documents)
    assert read_documents(tmp_path / "law.jsonl") == documents


def test_a_folder_gives_documents_by_domain(tmp_path: Path) -> None:
    write_documents(tmp_path / "law.jsonl", [Document("a statute")])
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.txt").write_text("print(1)")
    (tmp_path / "README.md").write_text("not data")
    assert {domain: len(found) for domain, found in read_domains(tmp_path).items()} == {"code": 1, "law": 1}


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({}, "holds no data"),
        ({"law.txt": "a", "law.jsonl": '{"text": "b"}'}, "two entries for domain law"),
        ({"law.txt": "same", "code.txt": "same"}, "stands in domains code and law"),
    ],
)
def test_a_folder_that_is_not_by_domain_is_refused(tmp_path: Path, files: dict[str, str], sentence: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=sentence):
        read_domains(tmp_path)


def test_near_duplicates_stand_in_one_cluster() -> None:
    text = make_text(1)
    edited = text.replace(text.split()[60], "otherword")
    clusters = find_clusters({"a": text, "b": make_text(2), "c": edited.upper() + "!"})
    assert sorted(clusters.values()) == [["a", "c"], ["b"]]


def test_clusters_agree_with_comparing_all_pairs() -> None:
    """Documents that share a growing part of their text: exactly those above the threshold are joined."""
    import numpy as np

    from ml.near_duplicates import THRESHOLD, _hash_shingles

    words = make_text(3, 400).split()
    for kept in (100, 200, 250, 300, 350, 390):
        other = " ".join(words[:kept] + make_text(kept, 400 - kept).split())
        similarity = compute_jaccard(_hash_shingles(" ".join(words)), _hash_shingles(other))
        joined = len(find_clusters({"a": " ".join(words), "b": other})) == 1
        assert joined == (similarity >= THRESHOLD), (kept, similarity)
    assert compute_jaccard(np.array([1, 2], np.uint64), np.array([2, 3], np.uint64)) == pytest.approx(1 / 3)


def test_a_split_keeps_clusters_whole_and_is_for_ever() -> None:
    texts = [make_text(seed) for seed in range(60)]
    twins = [text + " more" for text in texts]
    documents = [Document(text) for text in texts + twins]
    parts = split_documents(documents, "seed", 300_000)
    assert set(parts.values()) == {TRAIN, HOLDOUT}
    for text, twin in zip(texts, twins, strict=True):
        assert parts[Document(text).id] == parts[Document(twin).id]
    assert parts == split_documents(list(reversed(documents)), "seed", 300_000)
    assert parts != split_documents(documents, "other seed", 300_000)


def test_added_documents_never_move_an_old_one() -> None:
    old = [Document(make_text(seed)) for seed in range(40)]
    before = split_documents(old, "seed", 500_000)
    added = [Document(document.text + f" again {n}") for n in range(3) for document in old]
    after = split_documents(old + added, "seed", 500_000, previous=before)
    assert {document.id: after[document.id] for document in old} == before
    assert all(after[new.id] == before[old[at % 40].id] for at, new in enumerate(added))


def test_a_document_that_would_bridge_both_parts_is_left_out() -> None:
    words = make_text(1, 300).split()
    first, second, bridge = " ".join(words[:200]), " ".join(words[100:]), Document(" ".join(words))
    sides = {Document(first).id: TRAIN, Document(second).id: HOLDOUT}
    documents = [Document(first), Document(second), bridge]
    assert split_documents(documents, "seed", 500_000, previous=sides) == sides


def test_blocks_cover_a_document_and_never_cross_it() -> None:
    documents = [Document("a" * 100), Document("b" * 20)]
    blocks = make_blocks(documents, Letters(), 64)
    assert [(block.document, len(block.tokens)) for block in blocks] == [
        (documents[0].id, 64),
        (documents[0].id, 37),
        (documents[1].id, 21),
    ]
    assert blocks[1].tokens[-1] == 0  # the end token
    assert {len(set(block.tokens) - {0}) for block in blocks} == {1}


def test_a_short_rest_is_dropped() -> None:
    assert [len(block.tokens) for block in make_blocks([Document("a" * 70)], Letters(), 64)] == [64]


def test_overlap_is_found_by_document() -> None:
    shared = Block("one", (1, 2))
    parts = {"train": [shared, Block("two", (3,))], "holdout": [shared]}
    assert find_shared_documents(parts) == {"one": ["holdout", "train"]}


def make_holdout() -> Holdout:
    return Holdout({"law": [Block(f"d{n // 4}", (n, n + 1)) for n in range(40)]})


def test_leaves_are_pinned_and_differ_by_domain_document_and_tokens() -> None:
    holdout = Holdout(
        {
            "code": [Block("a", (1, 2))],
            "law": [Block("a", (1, 2)), Block("b", (1, 2)), Block("a", (1, 3)), Block("a", (1, 2, 3))],
        }
    )
    leaves = [*holdout.leaves("code"), *holdout.leaves("law")]
    assert len(set(leaves)) == 5
    assert leaves[0].hex() == "fb30937bcc6eb107613e6e655b0b3393c9923855964f39d7355566c04d88df7c"


def test_a_draw_takes_each_document_before_any_twice() -> None:
    drawn = make_holdout().draw("law", b"beacon", 15)
    assert len({block.document for block in drawn}) == 10
    assert drawn == sorted(drawn, key=lambda block: block.tokens)
    assert drawn == make_holdout().draw("law", b"beacon", 15)
    assert drawn != make_holdout().draw("law", b"another beacon", 15)
    assert make_holdout().draw("law", b"beacon", 99) == list(make_holdout().blocks("law"))


def test_the_real_tokenizer_cuts_the_same_text_back_together(tiny_tokenizer: Any) -> None:
    document = Document("Größe " * 60)
    blocks = make_blocks([document], tiny_tokenizer, 64)
    joined = [token for block in blocks for token in block.tokens]
    assert tiny_tokenizer.decode(joined, skip_special_tokens=True) == document.text[: len("Größe ") * 60]
