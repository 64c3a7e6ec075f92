"""A linear layer whose weights stay float32 and are rounded to its input's format for each product."""

import torch
from torch import nn
from torch.nn import functional


class MasterLinear(nn.Linear):
    """Master weights of mixed-precision training (Micikevicius et al., arXiv:1710.03740).

    peft keeps LoRA in float32 and casts the inputs of every layer up to it; on a bf16 base that is most of LoRA's cost.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.weight.to(x.dtype))
