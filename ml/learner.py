"""What a task needs of a model: three functions. LoRA on a language model is one learner, others are a class away.

`examples/logistic_regression.py` is a learner of thirty lines without torch.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from ml.adapter import GlobalAdapter, Update
from ml.aggregate import add_to_global, aggregate
from ml.data import Block
from ml.spec import AdapterSpec, TrainSpec

State = TypeVar("State")
Change = TypeVar("Change")
Data = TypeVar("Data", contravariant=True)


class Learner(Protocol[State, Change, Data]):
    """`State` is what is shared (the global adapter), `Change` what a trainer sends, `Data` what it keeps."""

    def train(self, state: State, data: Data, seed: int) -> Change:
        """One trainer's change of the state on its private data. Same arguments, same result."""
        ...

    def evaluate(self, state: State, data: Data) -> float:
        """Loss of a state on private data; lower is better."""
        ...

    def aggregate(self, state: State, changes: Mapping[str, Change]) -> State:
        """The next state from the accepted changes, by root. Integers, so that every machine gets the same bytes."""
        ...


@dataclass(frozen=True)
class LoraLearner:
    """LoRA on a frozen language model: the learner of the network."""

    base: Any
    """A loaded model. Training and evaluating give it back unchanged."""
    tokenizer: Any
    spec: AdapterSpec
    train_spec: TrainSpec
    rule: str = "mean_norm_clip"

    def train(self, state: GlobalAdapter, data: Sequence[Block], seed: int) -> Update:
        from ml.train import train_update

        train_spec = dataclasses.replace(self.train_spec, seed=seed)
        return train_update(self.base, self.spec, train_spec, data, state).update

    def evaluate(self, state: GlobalAdapter, data: Sequence[Block]) -> float:
        """Bits per byte, weights merged as the committee does."""
        from ml.factors import make_global_factors
        from ml.figures import compute_bits_per_byte
        from ml.score import ScoringBase, count_token_bytes

        scoring = ScoringBase(self.base, count_token_bytes(self.tokenizer), self.spec)
        return compute_bits_per_byte(scoring.score(data, make_global_factors(state, self.spec)))

    def aggregate(self, state: GlobalAdapter, changes: Mapping[str, Update]) -> GlobalAdapter:
        return add_to_global(state, aggregate(self.rule, changes, self.spec).delta)
