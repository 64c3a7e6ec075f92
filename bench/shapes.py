"""Models of a size, with random weights: honest for memory, bytes and speed, and without a word about quality.

Quantised to NF4 layer by layer on the device, so that nothing ever holds more than one layer's weights in bf16 beside
what is already small. A 70B-shaped model is built so on one GPU, from no file.
"""

from collections.abc import Mapping
from typing import Any

SHAPES: Mapping[str, Mapping[str, Any]] = {
    "1B-shaped": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128_256,
        "tie_word_embeddings": True,
    },
    "8B-shaped": {
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128_256,
        "tie_word_embeddings": False,
    },
    "70B-shaped": {
        "hidden_size": 8192,
        "intermediate_size": 28_672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "vocab_size": 128_256,
        "tie_word_embeddings": False,
    },
    "tiny-shaped": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 259,
        "tie_word_embeddings": False,
    },
}
"""Those of Llama 3.2 1B, Llama 3 8B and Llama 3 70B."""
ROPE_THETA = 500_000.0
MAX_LENGTH = 8_192
STD = 0.02


def build_shaped(name: str, device: str, *, four_bit: bool) -> Any:
    """A Llama of this shape on the device: linear layers in NF4 with double quantisation, or all of it in bf16."""
    import torch
    from torch import nn
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    config = LlamaConfig(
        **SHAPES[name],
        max_position_embeddings=MAX_LENGTH,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        attn_implementation="sdpa",
        dtype=torch.bfloat16,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    generator = torch.Generator(device).manual_seed(0)
    model.model.rotary_emb = LlamaRotaryEmbedding(config).to(device)
    for path, layer in list(model.named_modules()):
        if isinstance(layer, nn.Linear) and path != "lm_head":
            weight = _draw(layer.weight.shape, device, generator)
            parent = model.get_submodule(path.rpartition(".")[0])
            setattr(parent, path.rpartition(".")[2], _make_linear(weight, four_bit=four_bit))
        elif isinstance(layer, nn.Linear | nn.Embedding):
            layer.weight = _as_parameter(_draw(layer.weight.shape, device, generator))
        elif "RMSNorm" in type(layer).__name__:
            layer.weight = _as_parameter(torch.ones(layer.weight.shape, dtype=torch.bfloat16, device=device))
    if config.tie_word_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight
    left = [path for path, tensor in [*model.named_parameters(), *model.named_buffers()] if tensor.is_meta]
    assert not left, f"no values for {left[:3]}"
    if four_bit:
        from ml.precision import keep_nf4_trainable

        model.is_loaded_in_4bit = True
        keep_nf4_trainable(model)
    return model.eval().requires_grad_(False)


def count_parameters(name: str) -> tuple[int, int]:
    """(all parameters, those that multiply each token: without the table of input embeddings)."""
    shape = SHAPES[name]
    hidden, head = shape["hidden_size"], shape["hidden_size"] // shape["num_attention_heads"]
    keys = shape["num_key_value_heads"] * head
    layer = 2 * hidden * hidden + 2 * hidden * keys + 3 * hidden * shape["intermediate_size"]
    table = shape["vocab_size"] * hidden
    multiplied = shape["num_hidden_layers"] * layer + table
    norms = (2 * shape["num_hidden_layers"] + 1) * hidden
    return multiplied + norms + (0 if shape["tie_word_embeddings"] else table), multiplied


def count_train_flops(name: str, length: int) -> float:
    """Model FLOPs per token of LoRA training, after PaLM (Chowdhery et al., arXiv:2204.02311, appendix B).

    Forward 2 N; backward 2 N for the gradient of the activations, for frozen weights need none. Causal attention:
    2 L h s forward and twice that backward. Recomputation under gradient checkpointing counts for nothing.
    """
    shape = SHAPES[name]
    attention = 2 * shape["num_hidden_layers"] * shape["hidden_size"] * length
    return 4.0 * count_parameters(name)[1] + 3.0 * attention


def _draw(shape: Any, device: str, generator: Any) -> Any:
    import torch

    return torch.empty(shape, dtype=torch.bfloat16, device=device).normal_(0, STD, generator=generator)


def _as_parameter(values: Any) -> Any:
    from torch import nn

    return nn.Parameter(values, requires_grad=False)


def _make_linear(weight: Any, *, four_bit: bool) -> Any:
    from torch import nn

    out_features, in_features = weight.shape
    if not four_bit:
        linear: Any = nn.Linear(in_features, out_features, bias=False, device="meta")
        linear.weight = _as_parameter(weight)
        return linear
    import torch

    from ml.libraries import mute_kernel_hint

    mute_kernel_hint()
    from bitsandbytes.nn import Linear4bit, Params4bit

    linear = Linear4bit(
        in_features, out_features, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4", device="meta"
    )
    # Moving it to its device is what quantises it.
    linear.weight = Params4bit(weight, requires_grad=False, quant_type="nf4", compress_statistics=True).to(
        weight.device
    )
    return linear
