"""LoRA in mode `shared_a`: A drawn once for the task and frozen, B trained (FFA-LoRA, Sun et al., arXiv:2403.12313).

With one A for everyone the mean of the products B A is the product of the mean of B with A, so averaging is exact.
`fixed_a` needs no torch: norms, aggregation and verification use it too.
"""

import hashlib
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ml.spec import UPDATE_LIMIT, AdapterSpec

FIXED_A_CONTEXT = b"flockchain/fixed-a/1"


def fixed_a(spec: AdapterSpec, module: str, in_features: int) -> tuple[npt.NDArray[np.int8], int]:
    """(int8 (rank, in_features), step_log2): A of one module is these values times 2**step_log2.

    Values are uniform over -127..127, from SHAKE-256 of the seed and the module's path: `torch.randn` gives other
    bits on other CPUs. The step is the power of two nearest to 1 / (127 sqrt(in_features)), so that A spans about
    +-1/sqrt(in_features) like peft's default (`kaiming_uniform_(a=sqrt(5))`).
    """
    assert in_features > 0
    message = _prefixed(FIXED_A_CONTEXT) + _prefixed(spec.a_seed) + _prefixed(module.encode())
    wanted = spec.rank * in_features
    # One byte in 256 is -128 and is skipped; 2 % and 64 bytes more leave it out of reach that too few remain.
    stream = hashlib.shake_256(message).digest(wanted + wanted // 50 + 64)
    values = np.frombuffer(stream, np.int8)
    values = values[values >= -UPDATE_LIMIT]
    assert values.size >= wanted
    return values[:wanted].reshape(spec.rank, in_features).copy(), compute_a_step_log2(in_features)


def compute_a_step_log2(in_features: int) -> int:
    """round(log2(1 / (127 sqrt(in_features)))), in integers."""
    return -(((2 * UPDATE_LIMIT**2 * in_features).bit_length() - 1) // 2)


def attach(model: Any, spec: AdapterSpec, adapter: Mapping[str, Any] | None, device: Any = None) -> Any:
    """A peft model over `model` with A fixed and B float32, trainable, at the global adapter (zero for None).

    A stands in the base's own format: int8 values times a power of two are exact in bf16 too. `device` is where A and
    B go, by default where the base is. `detach` gives the model back unchanged. Raises ValueError when a module or
    shape is not the base's.
    """
    import torch

    from ml.libraries import import_peft

    _check_shapes(model, spec)
    peft = import_peft()
    device, dtype = device or model.device, _get_compute_dtype(model)
    config = peft.LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        target_modules=list(spec.modules),
        lora_dropout=0.0,
        bias="none",
        init_lora_weights=False,
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        # peft 0.21 asks transformers 5.23 for a property under its old name.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        wrapped = peft.get_peft_model(model, config)
    with torch.no_grad():
        for module, out_features, in_features in spec.shapes:
            layer = model.get_submodule(module)
            values, step_log2 = fixed_a(spec, module, in_features)
            fixed = torch.as_tensor(values.astype(np.float32) * np.float32(2.0**step_log2))
            layer.lora_A["default"] = _make_linear(fixed.to(device, dtype)).requires_grad_(False)
            start = torch.as_tensor(make_start(spec, module, out_features, adapter))
            layer.lora_B["default"] = _make_linear(start.to(device)).requires_grad_(True)
    return wrapped


def make_start(
    spec: AdapterSpec, module: str, out_features: int, adapter: Mapping[str, Any] | None
) -> npt.NDArray[np.float32]:
    """B (out_features, rank) of one module as training finds it: the global adapter's, zero for None."""
    if adapter is None:
        return np.zeros((out_features, spec.rank), np.float32)
    # int32 below 2^24 times a power of two: exact in float32.
    start: npt.NDArray[np.float32] = np.asarray(adapter[module]).astype(np.float32) * np.float32(
        2.0**spec.grid_step_log2
    )
    return start


def detach(wrapped: Any) -> Any:
    """The bare model, its weights never having changed."""
    return wrapped.unload()


def get_trained_factors(model: Any, spec: AdapterSpec) -> dict[str, Any]:
    """Module -> B's parameter, float32 (out, rank), of an attached model."""
    return {module: model.get_submodule(module).lora_B["default"].weight for module in spec.modules}


def _make_linear(weight: Any) -> Any:
    from torch import nn

    from ml.master_linear import MasterLinear

    linear = MasterLinear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    linear.weight = nn.Parameter(weight)
    return linear


def _get_compute_dtype(model: Any) -> Any:
    """Of the base's activations: that of its norms and embeddings, also where its linear layers are 4-bit."""
    return model.get_input_embeddings().weight.dtype


def _check_shapes(model: Any, spec: AdapterSpec) -> None:
    for module, out_features, in_features in spec.shapes:
        try:
            layer = model.get_submodule(module)
        except AttributeError:
            raise ValueError(f"the base has no module {module}: the task was made for another base") from None
        found = (layer.out_features, layer.in_features)
        if found != (out_features, in_features):
            raise ValueError(f"{module} is {found} in the base, the task says {(out_features, in_features)}")


def _prefixed(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data
