"""Why there is no update. A file of its own: who waits for a training in another process needs no torch."""


class TrainingFailed(RuntimeError):
    """Training gave no update; the sentence says why and what to do."""
