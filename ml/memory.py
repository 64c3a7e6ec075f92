"""Memory that Python freed, given back to the machine.

A training step frees hundreds of megabytes of activations, which glibc keeps in its heap for the next one. A trainer
then waits for minutes while the committee judges on the same machine: what it does not use should be the machine's.
"""

import ctypes
import gc
import sys


def return_freed_memory() -> bool:
    """Return freed heap pages to the system (``malloc_trim(3)``); False where the C library cannot: no harm."""
    gc.collect()
    if sys.platform != "linux":
        return False
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc alone has it; musl has not
    return trim is not None and trim(0) == 1
