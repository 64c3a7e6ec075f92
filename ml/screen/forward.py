"""Forward passes that screens share. Prompts have one length; what is read of them is kept for all that follows.

Keys and values of a prompt are computed once and repeated for every continuation (transformers, `DynamicCache`), which
takes a fifth of the tokens of reading each prompt again.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from ml.screen import Prompts

BATCH_PROMPTS = 8
BATCH_ROWS = 64
"""Most rows decoded at once: their keys and values are the memory a screen takes (tens of MB for 135 M parameters)."""


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


def continue_greedily(model: Any, prompts: Prompts, tokens: Sequence[int], count: int) -> list[list[tuple[int, ...]]]:
    """Per prompt and forced token: the `count` greedy tokens that follow."""
    import torch

    found: list[list[tuple[int, ...]]] = []
    with torch.inference_mode():
        for past, rows in _read(model, prompts, len(tokens)):
            fed = torch.tensor(list(tokens) * rows, device=model.device)[:, None]
            said = []
            for _ in range(count):
                hidden = model.get_decoder()(input_ids=fed, past_key_values=past, use_cache=True).last_hidden_state
                fed = model.get_output_embeddings()(hidden[:, -1]).argmax(dim=-1, keepdim=True)
                said.append(fed)
            decoded = [tuple(row) for row in torch.cat(said, dim=1).tolist()]
            found += [decoded[at : at + len(tokens)] for at in range(0, len(decoded), len(tokens))]
    return found


def score_continuations(model: Any, prompts: Prompts, continuations: Sequence[tuple[int, ...]]) -> Any:
    """(prompts, continuations, length) float32: log probability of each token of each continuation, all one length."""
    import torch

    assert len({len(continuation) for continuation in continuations}) == 1, "continuations of one length"
    wanted = torch.tensor(continuations, device=model.device)
    found = []
    with torch.inference_mode():
        for past, rows in _read(model, [prompt[:-1] for prompt in prompts], len(continuations)):
            start = sum(len(part) for part in found)
            last = torch.tensor([prompt[-1] for prompt in prompts[start : start + rows]], device=model.device)
            fed = torch.cat(
                [last.repeat_interleave(len(continuations))[:, None], wanted.repeat(rows, 1)[:, :-1]], dim=1
            )
            hidden = model.get_decoder()(input_ids=fed, past_key_values=past, use_cache=True).last_hidden_state
            logits = model.get_output_embeddings()(hidden).float().log_softmax(dim=-1)
            scores = logits.gather(2, wanted.repeat(rows, 1)[..., None])[..., 0]
            found.append(scores.view(rows, len(continuations), -1))
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
