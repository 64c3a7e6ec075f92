"""Libraries of others, imported so that they say nothing that our users did not ask about."""

import importlib
import logging
from types import ModuleType

HINT_LOGGER = "bitsandbytes.backends.cpu.ops"
HINT = "Failed to load CPU gemm_4bit_forward from kernels-community"


def import_peft() -> ModuleType:
    """peft, which imports bitsandbytes wherever it is installed, also for a base that is not 4-bit."""
    mute_kernel_hint()
    return importlib.import_module("peft")


def mute_kernel_hint() -> None:
    """Drop one warning of bitsandbytes 0.50: on CPUs with avx512_bf16 its import asks for a package that would fetch
    native code from a model hub, for a 4-bit product that we switch off (`keep_nf4_trainable`). Others are kept.
    """
    logging.getLogger(HINT_LOGGER).addFilter(_is_no_hint)  # the same filter again is not added


def _is_no_hint(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(HINT)
