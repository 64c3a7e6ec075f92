"""Cross entropy of a frozen head, a few rows of logits at a time, its gradient taken on the way forward.

The logits of 2,048 tokens over a vocabulary of 128,256 are 1 GB in float32, and autograd keeps several such arrays.
With a frozen head the gradient that is wanted is that of the hidden states alone, `(softmax - one hot) @ W`, which has
their small size: so each slice of logits is made, used twice and dropped (as in Liger, arXiv:2410.10989, here in plain
torch).
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ml.batches import IGNORED
from ml.head_rows import choose_rows


class LossModel(nn.Module):
    """A causal language model that answers with a loss, so that wrappers of modules see one forward pass."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, tokens: torch.Tensor, targets: torch.Tensor, positions: torch.Tensor | None, scale: float
    ) -> torch.Tensor:
        """`scale` times the sum of nats over all targets; int64 (rows, length) in, a float32 scalar out."""
        given = {} if positions is None else {"position_ids": positions}
        hidden = self.model.get_decoder()(input_ids=tokens, use_cache=False, **given).last_hidden_state
        is_target = targets != IGNORED
        head = self.model.get_output_embeddings()
        loss: torch.Tensor = _HeadLoss.apply(hidden[is_target], targets[is_target], head.weight, head.bias, scale)
        return loss


class _HeadLoss(torch.autograd.Function):
    """(n, d) hidden states, (n,) targets, (V, d) frozen weight -> scalar; the weight gets no gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        targets: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        scale: float,
    ) -> torch.Tensor:
        is_gradient_wanted = ctx.needs_input_grad[0]
        gradient = torch.empty_like(hidden) if is_gradient_wanted else None
        total = torch.zeros((), dtype=torch.float64, device=hidden.device)
        rows, softmax_rows = choose_rows(weight.shape[0], on_gpu=hidden.device.type != "cpu")
        for at in range(0, len(targets), rows):
            logits = functional.linear(hidden[at : at + rows], weight, bias)
            slopes = torch.empty_like(logits) if is_gradient_wanted else logits
            for first in range(0, len(logits), softmax_rows):
                part = slice(first, first + softmax_rows)
                own = targets[at : at + rows][part, None]
                probabilities, nats = _softmax(logits[part], own)
                total += nats.double()
                if is_gradient_wanted:
                    probabilities.scatter_add_(1, own, torch.full_like(own, -1, dtype=torch.float32))
                    slopes[part] = probabilities.mul_(scale)
                del probabilities  # or the next rows would be made beside them
            if gradient is not None:
                torch.mm(slopes, weight, out=gradient[at : at + rows])
            del logits, slopes
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return (total * scale).float()

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> Any:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream[0].to(gradient.dtype), None, None, None, None


def _softmax(logits: torch.Tensor, own: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(float32 probabilities, sum of -log of those at `own`)."""
    shifted = logits.float()
    if shifted is logits:
        shifted = logits.clone()
    shifted -= shifted.amax(dim=-1, keepdim=True)
    at_target = shifted.gather(1, own)
    shifted.exp_()
    sums = shifted.sum(dim=-1, keepdim=True)
    nats = (sums.log() - at_target).sum()
    return shifted.div_(sums), nats
