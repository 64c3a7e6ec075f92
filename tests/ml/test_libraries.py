"""What libraries of others say while they are imported reaches our users only where it is about something they do."""

import importlib.util
import logging
from pathlib import Path

import pytest

from ml.libraries import HINT, HINT_LOGGER, mute_kernel_hint


def test_the_hint_is_dropped_and_other_warnings_are_not(caplog: pytest.LogCaptureFixture) -> None:
    """Muting it twice is muting it once."""
    mute_kernel_hint()
    filters = list(logging.getLogger(HINT_LOGGER).filters)
    mute_kernel_hint()
    assert logging.getLogger(HINT_LOGGER).filters == filters
    logging.getLogger(HINT_LOGGER).warning(HINT + ": %s. Please install it", "No module named 'kernels'")
    logging.getLogger(HINT_LOGGER).warning("an absmax of %d blocks is too short", 3)
    assert [record.getMessage() for record in caplog.records] == ["an absmax of 3 blocks is too short"]


def test_the_hint_is_the_installed_library_s() -> None:
    """Its logger is named by its module; another text or place would pass our filter."""
    found = importlib.util.find_spec("bitsandbytes")
    if found is None or found.origin is None:
        pytest.skip("bitsandbytes is not installed")
    source = Path(found.origin).parent.joinpath("backends", "cpu", "ops.py").read_text(encoding="utf-8")
    assert HINT in source
    assert "logger = logging.getLogger(__name__)" in source
    assert HINT_LOGGER == "bitsandbytes.backends.cpu.ops"
