"""llama.cpp's layout: one GGUF file whose tensors have PEFT's orientation, `blk.N.attn_q.weight.lora_a`.

alpha is a float32 there; where that is not exact, the exact one stands beside it for the way back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter, Keys
from torch import Tensor

from agent.adapters import Lora
from consolidation.errors import AdapterError
from consolidation.layouts import check, check_same, made_whole, number
from consolidation.layouts.gguf_file import open_gguf, value
from consolidation.layouts.mlx import paired

ARCHITECTURES = ("qwen2", "qwen3", "qwen3moe", "command-r")
"""Their attention is not permuted on the way to GGUF. Only qwen2 was run."""
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
PATHS = {name: path for path, name in NAMES.items()}
DOWN, UP = ".weight.lora_a", ".weight.lora_b"
EXACT_ALPHA = "sleepy.lora.alpha"
F32, F16, BF16 = GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.BF16
TYPES = {torch.float32: F32, torch.float16: F16, torch.bfloat16: BF16}


def gguf_name(path: str) -> str:
    """`blk.0.attn_q` for `model.layers.0.self_attn.q_proj`.

    Raises:
        AdapterError: GGUF has no name for it.
    """
    found = re.fullmatch(r"model\.layers\.([0-9]{1,5})\.(\w+\.\w+)", path)
    if found and found[2] in NAMES:
        return f"blk.{found[1]}.{NAMES[found[2]]}"
    if path == "lm_head":
        return "output"
    raise AdapterError(f"{path[:200]} has no counterpart in GGUF; adapt linear layers of attention and MLP only")


def layer_path(name: str) -> str:
    """`model.layers.0.self_attn.q_proj` for `blk.0.attn_q`.

    Raises:
        AdapterError: it is the name of no linear layer.
    """
    found = re.fullmatch(r"blk\.([0-9]{1,5})\.(\w+)", name)
    if found and found[2] in PATHS:
        return f"model.layers.{found[1]}.{PATHS[found[2]]}"
    if name == "output":
        return "lm_head"
    raise AdapterError(f"{name[:200]!r} is no linear layer that an adapter can change")


def write_gguf_adapter(lora: Lora, path: Path, architecture: str = "qwen2") -> None:
    """Write an adapter for llama.cpp and Ollama.

    Raises:
        ModelError, AdapterError: the architecture or a layer has no counterpart, or the file cannot be made.
    """
    known_architecture(architecture, path)
    check(lora, path)
    number(_float32(lora.alpha), "alpha, as a float32,", path)
    tensors = {gguf_name(layer): f for layer, f in lora.layers.items()}
    with made_whole(path) as made, writing(made, architecture) as writer:
        writer.add_type("adapter")
        writer.add_string(Keys.Adapter.TYPE, "lora")
        writer.add_float32(Keys.Adapter.LORA_ALPHA, lora.alpha)
        writer.add_float64(EXACT_ALPHA, lora.alpha)
        for name, factors in tensors.items():
            for end, tensor in ((DOWN, factors.a), (UP, factors.b)):
                writer.add_tensor(name + end, raw(tensor), raw_dtype=TYPES[tensor.dtype])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.flush()
        check_same(lora, read_gguf_adapter(made), path)


def read_gguf_adapter(path: Path) -> Lora:
    """The adapter in a file, checked.

    Raises:
        ModelError, AdapterError: it is missing, damaged, no LoRA, or can have no good effect.
    """
    reader = open_gguf(path)
    if value(reader, Keys.General.TYPE) != "adapter" or value(reader, Keys.Adapter.TYPE) != "lora":
        raise AdapterError(f"{path} holds no LoRA adapter; name the file that `sleepyctl adapters export` wrote")
    known_architecture(str(value(reader, Keys.General.ARCHITECTURE)), path)
    alpha = number(value(reader, Keys.Adapter.LORA_ALPHA), "alpha", path)
    exact = value(reader, EXACT_ALPHA)
    if isinstance(exact, float) and _float32(exact) == alpha:
        alpha = exact
    named: dict[str, Tensor] = {}
    for tensor in reader.tensors:
        name, dot, end = tensor.name.partition(".weight.lora_")
        named[layer_path(name) + dot + end] = _tensor(tensor, path)
    layers = paired(named, DOWN, UP, path)
    lora = Lora(next(iter(layers.values())).a.shape[0] if layers else 0, alpha, layers)
    check(lora, path)
    return lora


def known_architecture(architecture: str, where: object) -> None:
    """Refuse a model whose tensors are not the same in GGUF.

    Raises:
        AdapterError: naming those that are.
    """
    if architecture not in ARCHITECTURES:
        raise AdapterError(
            f"{where}: adapters for architecture {architecture[:100]!r} cannot be converted to GGUF and back; "
            f"use one of {', '.join(ARCHITECTURES)}"
        )


@contextmanager
def writing(path: Path, architecture: str) -> Iterator[GGUFWriter]:
    """The library's writer, its file closed whatever happens."""
    writer = GGUFWriter(path, architecture)
    try:
        yield writer
    except BaseException:
        with suppress(OSError):  # what is buffered fails again
            writer.close()
        raise
    writer.close()


def raw(tensor: Tensor) -> np.ndarray[Any, Any]:
    """The bits of a tensor as the library wants them: bfloat16, which numpy has not, as bytes (rows, 2 * columns)."""
    tensor = tensor.detach().cpu().contiguous()
    return tensor.view(torch.uint8).numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()


def _float32(number: float) -> float:
    return torch.tensor(number, dtype=torch.float32).item()


def _tensor(tensor: Any, path: Path) -> Tensor:
    if tensor.tensor_type not in TYPES.values():
        raise AdapterError(f"{path}: {tensor.name[:200]} is of {tensor.tensor_type.name}; an adapter is of F32, F16 or BF16")
    data = torch.from_numpy(np.array(tensor.data))
    return data.view(torch.bfloat16) if tensor.tensor_type == BF16 else data
