"""The planner: exact parameters, memory held against what torch really allocates, bytes against real files."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from ml.adapter import make_update_manifest, write_update
from ml.base import BaseError
from ml.data import Block
from ml.plan import KNOWN, ModelShape, Setup, find_model, plan_host, plan_memory
from ml.plan.measure import measure_speed
from ml.plan.memory import NF4_BYTES
from ml.plan.work import DEVICES, HEADER_BYTES_PER_TENSOR, Speed, assume_speed, count_forward_flops, plan_work
from ml.spec import AdapterSpec, TrainSpec
from ml.team import Team
from ml.train_setup import TrainSetup
from ml.trainer import Trainer
from tests.support.command import Shell

SMALL = {
    "model_type": "llama",
    "hidden_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 384,
    "vocab_size": 600,
    "tie_word_embeddings": True,
    "num_hidden_layers": 4,
}
"""Large enough that tensors outweigh torch's small change."""


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("llama-3.2-1b", 1_235_814_400),
        ("llama-3.1-8b", 8_030_261_248),
        ("qwen2.5-32b", 32_763_876_352),
        ("llama-3.1-70b", 70_553_706_496),
        ("llama-3.1-405b", 405_853_388_800),
    ],
)
def test_published_parameters(name: str, parameters: int) -> None:
    """Counts by formula are those of the published weights."""
    assert find_model(name).parameters == parameters


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_parameters_of_transformers(name: str) -> None:
    """The same counts from transformers' own modules, on the meta device: nothing is allocated."""
    config = AutoConfig.for_model(**KNOWN[name])
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == find_model(name).parameters


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("vocabulary", [600, 10_000])
def test_peak_of_a_step(precision: str, checkpointing: bool, vocabulary: int) -> None:
    """The peak of two steps of the trainer is within 10 % of the plan, weights and runtime aside."""
    config = SMALL | {"vocab_size": vocabulary}
    setup = Setup(rank=8, length=128, batch=2, precision=precision, checkpointing=checkpointing)
    planned = plan_memory(ModelShape("small", config), setup, on_gpu=False)
    expected = planned.gradients + planned.optimizer + planned.activations + planned.passing
    assert _measure_peak(config, setup) == pytest.approx(expected, rel=0.10)


def test_nf4_bytes() -> None:
    """bitsandbytes' packed weight with its doubly quantised scales takes the planned bytes per parameter."""
    functional_4bit = pytest.importorskip("bitsandbytes.functional")
    weight = torch.zeros(1024, 1024)
    packed, state = functional_4bit.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    scales = state.absmax.numel() * state.absmax.element_size()
    outer = state.state2.absmax.numel() * state.state2.absmax.element_size()
    assert packed.numel() * packed.element_size() + scales + outer == weight.numel() * NF4_BYTES


def test_bytes_of_an_update(tmp_path: Path) -> None:
    """A real update's file is as long as planned; a tensor's header varies by a few digits and the module's name."""
    config, setup = SMALL, Setup(rank=8)
    spec = _make_spec(config, setup)
    update = {module: torch.zeros(out, 8, dtype=torch.int8) for module, out, _ in spec.shapes}
    manifest = make_update_manifest(spec, task=1, round=1, trainer="flk1" + "q" * 38, base_root="0" * 64)
    write_update(tmp_path / "update", update, manifest)
    planned = plan_work(ModelShape("small", config), setup, Speed(1, 1, "test")).update_bytes
    assert (tmp_path / "update").stat().st_size == pytest.approx(planned, abs=len(update) * HEADER_BYTES_PER_TENSOR / 4)


def test_flops_of_transformers() -> None:
    """The count of a forward pass is that of torch's own counter, which sees every product."""
    from torch.utils.flop_counter import FlopCounterMode

    model = LlamaForCausalLM(LlamaConfig(**SMALL, attn_implementation="eager"))
    tokens = torch.zeros(1, 64, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=tokens, use_cache=False)
    shape = ModelShape("small", SMALL)
    # The eager attention multiplies the masked half too; the plan counts what a fused kernel does.
    masked = shape.layers * 2 * 2 * shape.queries * 64 / 2
    rotary = 2 * SMALL_HEAD_DIM / 2 * 1
    assert counter.get_total_flops() / 64 == pytest.approx(count_forward_flops(shape, 64) + masked, abs=rotary)


SMALL_HEAD_DIM = 128 // 4


def test_more_gpus_share_the_weights() -> None:
    """Eight GPUs hold an eighth of the frozen weights each; a 405B shape fits eight of 141 GB and not one."""
    shape = find_model("405b")
    one, eight = (plan_memory(shape, Setup(gpus=gpus, length=2048)) for gpus in (1, 8))
    assert eight.weights == pytest.approx(one.weights / 8, abs=1)
    assert one.total > DEVICES["h200"].memory_gb * 1e9 > 0.9 * 141e9 > eight.total


def test_assumed_speed_says_so() -> None:
    """What nobody measured is called an assumption, with the share that it takes."""
    shape, setup = find_model("8b"), Setup()
    speed = assume_speed(shape, setup, DEVICES["a100"])
    assert "assumed" in plan_work(shape, setup, speed).source
    assert speed.train_s > 2 * speed.judge_s


def test_measured_speed_of_a_small_shape() -> None:
    """Timing one and three layers gives a positive speed, named as measured; training takes longer than scoring."""
    speed = measure_speed(ModelShape("small", SMALL), Setup(rank=4, length=64, precision="fp32"))
    assert speed.train_s > speed.judge_s > 0
    assert speed.source.startswith("measured here")
    with pytest.raises(ValueError, match="bench gpu"):
        measure_speed(ModelShape("small", SMALL), Setup())


def test_models_by_folder_and_file(tmp_path: Path) -> None:
    """A folder, its config.json and a hub-like name of a known shape lead to the same sizes."""
    (tmp_path / "config.json").write_text(json.dumps(KNOWN["llama-3.1-8b"]))
    for name in (str(tmp_path), str(tmp_path / "config.json"), "meta-llama/Llama-3.1-8B-Instruct"):
        assert find_model(name).parameters == 8_030_261_248


@pytest.mark.parametrize(("content", "said"), [("[]", "not a JSON object"), ("{", "JSON"), ("{}", "Llama-type")])
def test_unusable_config(content: str, said: str, tmp_path: Path) -> None:
    """A file that is no Llama-type configuration is refused with what is missing."""
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(BaseError, match=said):
        find_model(str(tmp_path))


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(monkeypatch, capsys)


def test_command_prints_a_table(shell: Shell) -> None:
    """The table fits 80 columns and ends in a verdict; JSON holds the same sum."""
    ran = shell("plan", "--model", "70b", "--length", 2048)
    assert ran.code == 0
    assert max(map(len, ran.out.splitlines())) <= 80
    assert "fits: " in ran.out
    document = shell("plan", "--model", "70b", "--length", 2048, "--json").json
    parts = dict(document["memory_bytes"])
    assert parts.pop("total") == sum(parts.values())
    assert document["parameters"] == 70_553_706_496


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--model", "nope"), "give a folder"),
        (("--model", "8b", "--precision", "int3"), "choose from nf4"),
        (("--model", "8b", "--targets", "q_proj,zebra"), "zebra"),
        (("--model", "8b", "--device", "cpu"), "--measure"),
        (("--model", "8b", "--device", "tpu"), "choose from h200"),
    ],
)
def test_command_explains_refusals(arguments: tuple[str, ...], said: str, shell: Shell) -> None:
    """A wrong option ends with one sentence that names the choices."""
    ran = shell("plan", *arguments)
    assert ran.code == 1
    assert len(ran.error_lines) == 1
    assert said in ran.err


def test_what_does_not_fit_names_what_would(shell: Shell) -> None:
    """Beside the sum stands the size of GPU that is enough."""
    ran = shell("plan", "--model", "8b", "--precision", "bf16", "--length", 16384, "--device", "rtx3090")
    said = " ".join(ran.out.split())
    assert "does not fit rtx3090" in said
    assert "a GPU of 48 GB" in said


def test_host_and_disk() -> None:
    """Disk holds the base's files and a round's updates."""
    shape, setup = find_model("8b"), Setup(precision="bf16", adapters=4)
    host = plan_host(shape, setup)
    trained, _ = setup.count_adapter(shape)
    assert host.disk_base == 2 * shape.parameters
    assert host.disk_round == 4 * trained + 2 * 4 * trained


def _make_spec(config: dict[str, Any], setup: Setup) -> AdapterSpec:
    bare = AdapterSpec("0" * 64, setup.rank, setup.rank, tuple(sorted(setup.targets)), "shared_a", b"plan", -12)
    return bare.with_shapes(config)


def _measure_peak(config: dict[str, Any], setup: Setup) -> int:
    torch.manual_seed(0)
    dtype = torch.bfloat16 if setup.precision == "bf16" else torch.float32
    model = LlamaForCausalLM(LlamaConfig(**config)).to(dtype).requires_grad_(False)
    spec, blocks = _make_spec(config, setup), [Block("d", (0,) * setup.length)] * setup.batch
    train_spec = TrainSpec(2, setup.batch, setup.length, 1e-3, 0)
    how = TrainSetup(gradient_checkpointing=setup.checkpointing)
    trainer = Trainer(model, spec, train_spec, setup=how, team=Team())
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        for _ in range(2):  # the second with the optimizer's moments in place
            trainer.step(blocks)
    assert profiler.profiler is not None
    events = profiler.profiler.kineto_results.events()
    moves = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    allocated = peak = 0
    for _, move in moves:
        allocated += move
        peak = max(peak, allocated)
    return peak
