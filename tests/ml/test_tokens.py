"""The light tokenizer cuts text exactly as transformers' does."""

from pathlib import Path

import pytest

from ml.tiny import write_tiny
from ml.tokens import BaseTokenizer

TEXTS = ["def f(x):\n    return x\n", "“Ünïcode” and 漢字 🙂", "  spaces  ", "a" * 300]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    write_tiny(path)
    return path


@pytest.mark.parametrize("text", TEXTS)
def test_the_tokens_are_those_of_transformers(folder: Path, text: str) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    ours = BaseTokenizer(folder)
    assert ours.encode(text, add_special_tokens=False) == theirs.encode(text, add_special_tokens=False)
    assert ours.eos_token_id == theirs.eos_token_id is not None
