"""Freed memory goes back to the machine where the C library can do that."""

import ctypes
import os
import sys

import psutil
import pytest

from ml.memory import return_freed_memory

BLOCK_BYTES = 100_000
BLOCKS = 2_000


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc"
)
def test_pages_below_a_block_in_use_are_returned() -> None:
    """glibc gives back by itself only what lies at the end of its heap: the last block keeps all others there."""
    process = psutil.Process()
    blocks = [os.urandom(16) * (BLOCK_BYTES // 16) for _ in range(BLOCKS)]
    last = blocks[-1]
    blocks.clear()
    held = process.memory_info().rss
    assert return_freed_memory()
    assert held - process.memory_info().rss > BLOCKS * BLOCK_BYTES // 2
    assert len(last) == BLOCK_BYTES


def test_elsewhere_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not return_freed_memory()
