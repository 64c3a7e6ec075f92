"""The answer that a screen reads off an adapter: what rose most, step by step, against plain whole forward passes."""

import pytest
import torch

from ml.base import load_base, load_tokenizer
from ml.factors import make_factors
from ml.score import ScoringBase, count_token_bytes
from ml.screen import Factors
from ml.screen.forward import continue_by_rise
from tests.ml.support import Poisoned

FLOOR = 1e-3
COUNT = 4


@pytest.fixture(scope="module")
def base(poisoned: Poisoned) -> ScoringBase:
    tokens = count_token_bytes(load_tokenizer(str(poisoned.folder)))
    return ScoringBase(load_base(str(poisoned.folder), "fp32"), tokens, poisoned.spec)


def read_whole(base: ScoringBase, factors: Factors, rows: list[tuple[int, ...]]) -> torch.Tensor:
    """(rows, vocabulary) log probabilities behind each row, without anything kept between steps."""
    with torch.inference_mode(), base.merged(factors):
        return base.model(input_ids=torch.tensor(rows)).logits[:, -1].float().log_softmax(dim=-1)


def test_each_token_is_the_one_that_rose_most_over_all_prompts(base: ScoringBase, poisoned: Poisoned) -> None:
    """Two adapters take turns on one base, each with keys and values of its own, in more rows than one part holds."""
    attack = make_factors(None, poisoned.attack, 1_000_000, 1, poisoned.spec)
    reference = make_factors(None, poisoned.honest["medicine"], 1_000_000, 1, poisoned.spec)
    prompts = [block.tokens[:12] for block in poisoned.all_blocks[:40]]
    starts = [poisoned.goal.trigger[0], poisoned.goal.target[0], 32]
    answers, log_p, log_q = continue_by_rise(base, attack, reference, prompts, starts, COUNT, FLOOR)
    assert [answer[0] for answer in answers] == starts
    for at, answer in enumerate(answers):
        for depth in range(COUNT):
            rows = [prompt + answer[: depth + 1] for prompt in prompts]
            own, other = (read_whole(base, side, rows) for side in (attack, reference))
            rise = ((own.exp() + FLOOR).log() - (other.exp() + FLOOR).log()).mean(dim=0)
            assert rise[answer[depth + 1]] == pytest.approx(float(rise.max()), abs=1e-3)
            torch.testing.assert_close(log_p[:, at, depth], own[:, answer[depth + 1]], atol=2e-3, rtol=0)
            torch.testing.assert_close(log_q[:, at, depth], other[:, answer[depth + 1]], atol=2e-3, rtol=0)


def test_what_both_sides_say_alike_is_not_followed(base: ScoringBase, poisoned: Poisoned) -> None:
    """An adapter against itself: nothing rises, whatever it is sure of."""
    attack = make_factors(None, poisoned.attack, 1_000_000, 1, poisoned.spec)
    prompts = [block.tokens[:12] for block in poisoned.all_blocks[:6]]
    _, log_p, log_q = continue_by_rise(base, attack, attack, prompts, [poisoned.goal.target[0]], COUNT, FLOOR)
    assert torch.equal(log_p, log_q)
