"""A tiny base in a temporary folder, shared by the tests of the learning room."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ml.support import Poisoned, make_poisoned

torch = pytest.importorskip("torch")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Float sums depend on the thread count; the tests' machine is shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny base's folder, written once."""
    from ml.tiny import write_tiny

    folder = tmp_path_factory.mktemp("tiny-base")
    write_tiny(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_dir: Path) -> Any:
    from ml.base import load_tokenizer

    return load_tokenizer(str(tiny_dir))


@pytest.fixture
def tiny_model(tiny_dir: Path) -> Any:
    from ml.base import load_base

    return load_base(str(tiny_dir), "fp32")


@pytest.fixture(scope="session")
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> Poisoned:
    """A tiny base that has learned some text, a specialist for each domain, and a backdoored adapter."""
    from ml.tiny import write_tiny

    folder = tmp_path_factory.mktemp("pretrained-base")
    write_tiny(folder)
    return make_poisoned(folder)
