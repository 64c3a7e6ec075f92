"""The shipped domains: enough text for everyone, nothing held twice, the same for a seed."""

import gzip
import itertools
from pathlib import Path

import pytest

from ml.data import read_documents
from ml.domains import DATA, DOMAINS, SHIPPED, ByDomain, deal_shards, demo_shards, read_domain
from ml.near_duplicates import find_clusters

ROOT = Path(__file__).resolve().parents[2]


def holders_of(shards: object) -> list[ByDomain]:
    return [*shards.trainers, *shards.judges, shards.test]  # type: ignore[attr-defined]


@pytest.mark.parametrize("domain", SHIPPED)
def test_a_domain_is_real_text_named_in_the_notice(domain: str) -> None:
    documents = read_domain(domain)
    assert len(documents) > 200
    assert all(600 < len(document.text) <= 3_001 and document.source for document in documents)
    assert f"ml/data/{domain}.jsonl.gz" in (ROOT / "NOTICE").read_text()


def test_the_extracts_are_small() -> None:
    assert sum(path.stat().st_size for path in DATA.iterdir()) < 2_000_000


def test_every_extract_is_a_domain() -> None:
    assert sorted(path.name for path in DATA.glob("*.gz")) == sorted(f"{domain}.jsonl.gz" for domain in SHIPPED)


def test_an_unknown_domain_says_which_are_shipped() -> None:
    with pytest.raises(ValueError, match="code, literature, medicine"):
        read_domain("cooking")


def test_no_document_or_near_duplicate_is_held_twice() -> None:
    shards = demo_shards(1, 4, 3, generalists=1)
    for domain in DOMAINS:
        held = [[document.id for document in holder.get(domain, [])] for holder in holders_of(shards)]
        flat = list(itertools.chain.from_iterable(held))
        assert len(flat) == len(set(flat))
        holder_of = {document: at for at, documents in enumerate(held) for document in documents}
        texts = {document.id: document.text for document in read_domain(domain)}
        for members in find_clusters(texts).values():
            assert len({holder_of[member] for member in members if member in holder_of}) <= 1


def test_each_judge_can_judge_every_domain() -> None:
    shards = demo_shards(1, 3, 3, generalists=1)
    for holder in (*shards.judges, shards.test):
        assert sorted(holder) == sorted(DOMAINS)
        assert all(len(documents) == 24 for documents in holder.values())
        # 128 tokens of these texts are 600 bytes at most: 40 blocks and more.
        assert all(sum(len(document.text) for document in holder[domain]) > 40 * 600 for domain in DOMAINS)


def test_trainers_hold_one_domain_and_generalists_all() -> None:
    shards = demo_shards(1, 4, 3, generalists=1)
    assert [sorted(holder) for holder in shards.trainers[:4]] == [[DOMAINS[i % 3]] for i in range(4)]
    assert sorted(shards.trainers[4]) == sorted(DOMAINS)


def test_the_seed_decides() -> None:
    assert demo_shards(1, 3, 3) == demo_shards(1, 3, 3)
    assert demo_shards(1, 3, 3) != demo_shards(2, 3, 3)


@pytest.mark.parametrize(("trainers", "judges"), [(3, 40), (900, 3), (0, 3)])
def test_too_many_for_the_extracts_are_refused(trainers: int, judges: int) -> None:
    with pytest.raises(ValueError, match=r"too few documents|cannot deal"):
        demo_shards(1, trainers, judges)


def test_the_extracts_hold_no_exact_duplicates() -> None:
    for domain in SHIPPED:
        path = DATA / f"{domain}.jsonl.gz"
        assert len(read_documents(path)) == len(gzip.decompress(path.read_bytes()).splitlines())


def test_other_domains_beside_it_change_nothing_for_a_domain() -> None:
    """Cells of the lab name their documents by seed and counts alone: more domains must not deal these ones anew."""
    few = demo_shards(1, 3, 1)
    many = deal_shards(1, 4, 1, domains=("code", "law", "literature", "medicine"), held_out=("recipes",))
    for domain in DOMAINS:
        assert many.test[domain] == few.test[domain]
        assert many.judges[0][domain] == few.judges[0][domain]
    assert [held for held in many.trainers if "law" not in held] == list(few.trainers)


def test_nobody_holds_a_document_of_a_held_out_domain() -> None:
    shards = deal_shards(1, 4, 2, domains=("code", "law"), held_out=("geography",), generalists=1, test_documents=30)
    assert len(shards.test["geography"]) == 30
    assert all("geography" not in holder for holder in (*shards.trainers, *shards.judges))


def test_a_domain_is_held_out_or_not() -> None:
    with pytest.raises(ValueError, match="held out and not: law"):
        deal_shards(1, 2, 0, domains=("code", "law"), held_out=("law",))
