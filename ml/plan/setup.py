"""How a model is to be trained and judged: what a person chooses."""

from dataclasses import dataclass

from ml.plan.models import ModelShape

PRECISIONS = ("nf4", "bf16", "fp32")
OPTIMIZERS = ("adamw", "paged_adamw_8bit")


@dataclass(frozen=True)
class Setup:
    """One trainer's part of a task. Sizes are per GPU where `gpus` share one model (FSDP)."""

    rank: int = 16
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    length: int = 512
    """Tokens of a sequence."""
    batch: int = 1
    """Sequences of a step, on each GPU."""
    precision: str = "nf4"
    optimizer: str = "adamw"
    checkpointing: bool = True
    gpus: int = 1
    local_steps: int = 24
    judge_tokens: int = 30_000
    """Forward tokens for one adapter."""
    adapters: int = 10
    """Submissions of a round."""

    def __post_init__(self) -> None:
        for name in ("rank", "length", "batch", "gpus", "local_steps", "judge_tokens", "adapters"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name.replace('_', ' ')} must be at least 1, got {getattr(self, name)}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision {self.precision!r}: choose from {', '.join(PRECISIONS)}")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer {self.optimizer!r}: choose from {', '.join(OPTIMIZERS)}")

    @property
    def step_tokens(self) -> int:
        """Tokens that one GPU holds in a step."""
        return self.batch * self.length

    @property
    def compute_bytes(self) -> int:
        """Of one activation value."""
        return 4 if self.precision == "fp32" else 2

    def count_adapter(self, shape: ModelShape) -> tuple[int, int]:
        """(values of all B, values of all A). A is fixed by the task, and held, not sent."""
        adapted = shape.adapted(self.targets)
        return sum(out for _, out, _ in adapted) * self.rank, sum(in_ for _, _, in_ in adapted) * self.rank
