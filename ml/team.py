"""Processes that train one update together: each takes a part of every batch, gradients of B are summed.

An adapter is small beside its base, so every process holds all of A, B and the optimizer's state; where one GPU cannot
hold the base, its frozen layers are sharded over all of them (FSDP, through accelerate). So a checkpoint and a result
are those of one process, whatever the number of GPUs.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch

Item = TypeVar("Item")


class Team:
    """A team of one."""

    rank = 0
    size = 1
    device: torch.device | None = None
    """Where adapters go; None: where the base is."""
    shard = False
    """Whether the base is divided over the team."""

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def take(self, items: Sequence[Item]) -> Sequence[Item]:
        """This process's part of a batch."""
        return items[self.rank :: self.size]

    def prepare(self, model: torch.nn.Module) -> torch.nn.Module:
        """The model to call, sharded where the team shards."""
        return model

    def sum_up(self, tensors: Sequence[torch.Tensor]) -> None:
        """Each tensor becomes the sum over the team, in place."""


class AccelerateTeam(Team):
    """The processes of one launch by accelerate or torchrun."""

    def __init__(self, accelerator: Any, *, shard: bool) -> None:
        """From an `accelerate.Accelerator`; `make_accelerator` makes the one for sharding."""
        self.accelerator = accelerator
        self.rank, self.size = accelerator.process_index, accelerator.num_processes
        self.device = accelerator.device
        self.shard = shard

    def prepare(self, model: torch.nn.Module) -> torch.nn.Module:
        if not self.shard:
            return model
        plugin = self.accelerator.state.fsdp_plugin
        plugin.auto_wrap_policy = make_wrap_policy(model)
        prepared: torch.nn.Module = self.accelerator.prepare_model(model)
        return prepared

    def sum_up(self, tensors: Sequence[torch.Tensor]) -> None:
        flat = self.accelerator.reduce(torch.cat([tensor.flatten() for tensor in tensors]), reduction="sum")
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))


def make_accelerator(*, cpu: bool, shard: bool) -> Any:
    """From the environment that the launcher set: gloo between CPUs, NCCL between GPUs."""
    from accelerate import Accelerator, FullyShardedDataParallelPlugin

    if not shard:
        return Accelerator(cpu=cpu)
    # Of torch's two FSDPs the first is the one that 4-bit bases are known to work with; a unit's tensors are flattened
    # into one, so such a base must be stored as bf16 (`nf4_config`), and LoRA's float32 stays out.
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=1,
        sync_module_states=True,
        cpu_ram_efficient_loading=True,
        use_orig_params=False,
        ignored_modules=r".*\.lora_[AB]\.default",
    )
    return Accelerator(cpu=cpu, fsdp_plugin=plugin)


def make_wrap_policy(model: Any) -> Any:
    """Each decoder layer is one unit."""
    from functools import partial

    from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy

    layers = model.model.get_decoder().layers
    return partial(transformer_auto_wrap_policy, transformer_layer_cls={type(layers[0])})
