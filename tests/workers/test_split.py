"""A trainer's own split is for ever: over rounds, restarts and new documents nothing changes sides."""

from pathlib import Path

from flockchain.workers.learning import split_for_ever
from ml.data import Document


def make_documents(count: int, offset: int = 0) -> list[Document]:
    """Documents that share no words."""
    return [Document(" ".join(f"word{i}x{j}" for j in range(40))) for i in range(offset, offset + count)]


def test_no_document_changes_sides_over_fifty_rounds_of_restarts_and_new_data(tmp_path: Path) -> None:
    record = tmp_path / "split.json"
    trained: set[str] = set()
    held_out: set[str] = set()
    for round_ in range(50):
        train, holdout = split_for_ever(make_documents(40 + 2 * round_), record, "alice")
        trained |= {document.id for document in train}
        held_out |= {document.id for document in holdout}
    assert trained
    assert held_out
    assert not trained & held_out


def test_a_twin_of_a_held_out_document_is_not_trained_on(tmp_path: Path) -> None:
    record = tmp_path / "split.json"
    documents = make_documents(60)
    _, holdout = split_for_ever(documents, record, "alice")
    twin = Document(holdout[0].text + " and one more word")
    train, still = split_for_ever([*documents, twin], record, "alice")
    assert twin.id not in {document.id for document in train}
    assert twin.id in {document.id for document in still}
