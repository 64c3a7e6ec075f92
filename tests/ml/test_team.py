"""Two processes that hold half of a 4-bit base each: FSDP as on GPUs, here over gloo between two CPU processes."""

import multiprocessing
import os
import queue
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from ml.base import base_hash, load_base
from ml.data import Block
from ml.spec import AdapterSpec, TrainSpec, make_spec
from ml.team import AccelerateTeam, make_wrap_policy
from ml.train import train_update
from ml.train_setup import TrainSetup

TRAIN = TrainSpec(local_steps=4, batch_size=4, sequence_length=64, learning_rate=1e-2, seed=1)
MAX_WAIT_S = 240
SETUP = TrainSetup(gradient_checkpointing=True)


class ShardedOnCpus(AccelerateTeam):
    """accelerate shards on GPUs only; this calls torch's FSDP with what `make_accelerator` asks accelerate for."""

    def prepare(self, model: torch.nn.Module) -> torch.nn.Module:
        from torch.distributed.fsdp import FullyShardedDataParallel

        ignored = [m for name, m in model.named_modules() if name.endswith(("lora_A.default", "lora_B.default"))]
        prepared = FullyShardedDataParallel(
            model,
            auto_wrap_policy=make_wrap_policy(model),
            use_orig_params=False,
            ignored_modules=ignored,
            device_id=torch.device("cpu"),
        )
        frozen = [parameter for parameter in prepared.parameters() if not parameter.requires_grad]
        self.held_bytes = sum(parameter.numel() * parameter.element_size() for parameter in frozen)
        return prepared


def find_free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def train_one_half(rank: int, port: int, folder: Path, spec: AdapterSpec, blocks: Sequence[Block], said: Any) -> None:
    """In a process of its own."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    os.environ |= {"MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true", "GLOO_SOCKET_IFNAME": "lo"}
    os.environ["OMP_NUM_THREADS"] = "1"  # accelerate warns where nobody said how many
    from accelerate import Accelerator

    team = ShardedOnCpus(Accelerator(cpu=True), shard=True)
    base = load_base(str(folder), "nf4", sharded=True)
    whole = sum(parameter.numel() * parameter.element_size() for parameter in base.parameters())
    result = train_update(base, spec, TRAIN, blocks, setup=SETUP, team=team)
    said.put((rank, team.held_bytes / whole, result.losses, result.update))


def take(said: Any, processes: Sequence[Any]) -> Any:
    """The next answer; a process that failed is not waited for."""
    for _ in range(MAX_WAIT_S):
        try:
            return said.get(timeout=1)
        except queue.Empty:
            assert all(process.exitcode in (None, 0) for process in processes), "a process failed: see its traceback"
    raise AssertionError(f"no answer within {MAX_WAIT_S} s")


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_two_processes_train_over_halves_of_one_base(tiny_dir: Path) -> None:
    """Each holds about half the bytes, both end with one update, which is that of the whole base up to rounding."""
    spec = make_spec(
        tiny_dir,
        base_hash(tiny_dir),
        rank=4,
        alpha=16,
        target_modules=("q_proj", "v_proj"),
        a_seed=b"t",
        update_step_log2=-10,
    )
    generator = torch.Generator().manual_seed(0)
    blocks = [Block("d", tuple(torch.randint(0, 256, (64,), generator=generator).tolist())) for _ in range(16)]
    alone = train_update(load_base(str(tiny_dir), "nf4"), spec, TRAIN, blocks, setup=SETUP)
    context = multiprocessing.get_context("fork")
    said = context.Queue()
    given = (find_free_port(), tiny_dir, spec, blocks, said)
    processes = [context.Process(target=train_one_half, args=(rank, *given)) for rank in range(2)]
    for process in processes:
        process.start()
    answers = sorted((take(said, processes) for _ in processes), key=lambda answer: answer[0])
    for process in processes:
        process.join()
    (_, share, losses, update), (_, other_share, other_losses, other_update) = answers
    assert 0.45 < share < 0.6
    assert share == other_share
    assert losses == other_losses
    assert losses == pytest.approx(alone.losses, rel=1e-3)
    for module in spec.modules:
        assert (update[module] == other_update[module]).all()
        assert abs(update[module].astype(int) - alone.update[module]).mean() < 2
