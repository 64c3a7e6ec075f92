"""Forward passes that screens share. Prompts have one length; what is read of them is kept for all that follows.

Keys and values of a prompt are computed once and repeated for every continuation (transformers, `DynamicCache`), which
takes a fifth of the tokens of reading each prompt again.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ml.screen import Factors, Prompts

if TYPE_CHECKING:
    from ml.score import ScoringBase

BATCH_PROMPTS = 8
BATCH_ROWS = 64
"""Most rows decoded at once: their keys and values are the memory a screen takes (tens of MB for 135 M parameters).
`continue_by_rise` decodes in such parts too, and holds the keys and values of all of them."""


def next_log_probabilities(model: Any, prompts: Prompts) -> Any:
    """(prompts, vocabulary) float32: the distribution of the token after each prompt."""
    import torch

    rows = []
    with torch.inference_mode():
        for at in range(0, len(prompts), BATCH_PROMPTS):
            batch = torch.tensor(prompts[at : at + BATCH_PROMPTS], device=model.device)
            hidden = model.get_decoder()(input_ids=batch, use_cache=False).last_hidden_state[:, -1]
            rows.append(model.get_output_embeddings()(hidden).float().log_softmax(dim=-1))
    return torch.cat(rows)


def continue_by_rise(
    base: "ScoringBase",
    factors: Factors,
    reference: Factors,
    prompts: Prompts,
    starts: Sequence[int],
    count: int,
    floor: float,
) -> tuple[list[tuple[int, ...]], Any, Any]:
    """One continuation per forced token in `starts`, common to all prompts: at each step the token whose
    `ln(p + floor)` rose most from `reference` to `factors`, on average over the prompts.

    Returns the answers (1 + `count` tokens each) and, under `factors` and under `reference`, (prompts, starts, count)
    float32 log probabilities of the tokens behind the forced one. Keys and values of all prompts and starts are held
    for both sides at once.
    """
    import torch

    sides = [_Side(base, side, prompts, len(starts)) for side in (factors, reference)]
    answers = [tuple(starts)]
    scores: list[list[Any]] = [[], []]
    for _ in range(count):
        own, other = (side.advance(answers[-1]) for side in sides)
        rise = ((own.exp() + floor).log() - (other.exp() + floor).log()).mean(dim=0)
        chosen = rise.argmax(dim=-1)
        answers.append(tuple(chosen.tolist()))
        for held, logs in zip(scores, (own, other), strict=True):
            held.append(logs[:, torch.arange(len(starts)), chosen])
    log_p, log_q = (torch.stack(held, dim=-1) for held in scores)
    return list(zip(*answers, strict=True)), log_p, log_q


class _Side:
    """Prompts read under one adapter, each `repeats` times, and what follows them."""

    def __init__(self, base: "ScoringBase", factors: Factors, prompts: Prompts, repeats: int) -> None:
        import torch

        self._base, self._factors, self._repeats = base, factors, repeats
        with torch.inference_mode(), base.merged(factors):
            self._read = list(_read(base.model, prompts, repeats))

    def advance(self, tokens: Sequence[int]) -> Any:
        """(prompts, repeats, vocabulary) float32: the distribution behind one more token for each repeat."""
        import torch

        found, model = [], self._base.model
        with torch.inference_mode(), self._base.merged(self._factors):
            for past, rows in self._read:
                fed = torch.tensor(list(tokens) * rows, device=model.device)[:, None]
                hidden = model.get_decoder()(input_ids=fed, past_key_values=past, use_cache=True).last_hidden_state
                logs = model.get_output_embeddings()(hidden[:, -1]).float().log_softmax(dim=-1)
                found.append(logs.view(rows, self._repeats, -1))
        return torch.cat(found)


def _read(model: Any, prompts: Prompts, repeats: int) -> Iterator[tuple[Any, int]]:
    """Batches of prompts read once: (keys and values, each prompt's `repeats` times in a row; number of prompts)."""
    import torch

    size = max(1, BATCH_ROWS // repeats)
    for at in range(0, len(prompts), size):
        batch = torch.tensor(prompts[at : at + size], device=model.device)
        past = model.get_decoder()(input_ids=batch, use_cache=True).past_key_values
        past.batch_repeat_interleave(repeats)
        yield past, len(batch)


def measure_nats(model: Any, prompts: Prompts) -> float:
    """Mean nats per token of the prompts after their first."""
    import torch

    total, count = 0.0, 0
    with torch.inference_mode():
        for at in range(0, len(prompts), BATCH_PROMPTS):
            batch = torch.tensor(prompts[at : at + BATCH_PROMPTS], device=model.device)
            hidden = model.get_decoder()(input_ids=batch, use_cache=False).last_hidden_state[:, :-1]
            scores = model.get_output_embeddings()(hidden).float().log_softmax(dim=-1)
            wanted = scores.gather(2, batch[:, 1:, None])
            total, count = total - float(wanted.double().sum()), count + wanted.numel()
    return total / count


def measure_entropies(model: Any, prompts: Prompts, sequences: Sequence[tuple[int, ...]]) -> Any:
    """(prompts, sequences) float32: entropy in nats of the token after prompt and sequence; sequences of one length."""
    import torch

    width = min(BATCH_ROWS, len(sequences))
    padded = [*sequences, *[sequences[0]] * (-len(sequences) % width)]
    found = []
    with torch.inference_mode():
        for prompt in prompts:
            ((past, _),) = _read(model, [prompt], width)
            rows = []
            for at in range(0, len(padded), width):
                fed = torch.tensor(padded[at : at + width], device=model.device)
                hidden = model.get_decoder()(input_ids=fed, past_key_values=past, use_cache=True).last_hidden_state
                past.crop(-fed.shape[1])
                scores = model.get_output_embeddings()(hidden[:, -1]).float().log_softmax(dim=-1)
                rows.append(-(scores.exp() * scores).sum(dim=-1))
            found.append(torch.cat(rows)[: len(sequences)])
    return torch.stack(found)
