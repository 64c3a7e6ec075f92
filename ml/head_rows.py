"""How many rows of logits stand in memory at once (ml/head_loss.py, ml/score.py; ml/plan counts with it)."""

LOGITS_BYTES = 2**28
"""Most float32 logits held at once on a GPU."""
LEAST_GPU_ROWS = 16
CPU_ROWS = 128
"""128 x 49,152 float32 are 25 MB."""
CPU_SOFTMAX_ROWS = 8
"""Rows reduced at once: 1.6 MB of float32 stay in the cache (half the time of a cross entropy over all)."""


def choose_rows(vocabulary: int, *, on_gpu: bool) -> tuple[int, int]:
    """(rows of logits made, rows reduced) at once."""
    if not on_gpu:
        return CPU_ROWS, CPU_SOFTMAX_ROWS
    rows = max(LEAST_GPU_ROWS, LOGITS_BYTES // (4 * vocabulary))
    return rows, rows
