"""Small models and adapters for tests."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gguf
import torch

from agent.adapters import Factors, Lora
from agent.models.weights import folder_hash
from agent.pocket import WEIGHTS
from consolidation.adapters import Adapter, AdapterStore, Manifest
from consolidation.layouts.peft import write_peft

ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
MLP = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
LAYERS = 3


def shape_of(base: Path, kind: str) -> tuple[int, int]:
    """(out, in) of a kind of layer of a Qwen2 model."""
    c = json.loads((base / "config.json").read_text())
    hidden, wide = c["hidden_size"], c["intermediate_size"]
    narrow = hidden // c["num_attention_heads"] * c["num_key_value_heads"]
    out = {"k_proj": narrow, "v_proj": narrow, "gate_proj": wide, "up_proj": wide}.get(kind.split(".")[1], hidden)
    return out, wide if kind == "mlp.down_proj" else hidden


def random_lora(
    base: Path = WEIGHTS,
    kinds: Sequence[str] = ATTENTION + MLP,
    layers: Sequence[int] = (0, 1, 2),
    rank: int = 4,
    alpha: float = 6.0,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Lora:
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for layer in layers:
        for kind in kinds:
            out, inner = shape_of(base, kind)
            a = torch.randn(rank, inner, generator=generator) / inner**0.5
            b = torch.randn(out, rank, generator=generator) * 0.2
            found[f"model.layers.{layer}.{kind}"] = Factors(a.to(dtype), b.to(dtype))
    return Lora(rank, alpha, found)


def tiny_qwen2(folder: Path, tied: bool, dtype: torch.dtype = torch.float32, **save: Any) -> Path:
    """A random Qwen2 model whose biases are not zero, with the pocket tokenizer (and a vocabulary with room to spare)."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(7 + tied)
    config = Qwen2Config(
        vocab_size=1300,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        rope_theta=10_000.0,
        tie_word_embeddings=tied,
        initializer_range=0.15,
    )
    model = Qwen2ForCausalLM(config).to(dtype)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".bias"):
                parameter.normal_(0.0, 0.5)
            elif "norm" in name:
                parameter.normal_(1.0, 0.2)
    model.save_pretrained(folder, **save)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rope_theta": 10_000.0}))
    shutil.copyfile(WEIGHTS / "tokenizer.json", folder / "tokenizer.json")
    return folder


def stored(store: AdapterStore, lora: Lora, base: Path) -> Adapter:
    folder = store.root.parent / f"trained-{len(list(store.root.parent.iterdir()))}"
    write_peft(lora, folder, base.name)
    manifest = Manifest(
        created_at=datetime.now(UTC),
        base=folder_hash(base),
        strategy="test",
        seed=0,
        data="d",
        scope=("bank",),
        config_hash="c",
        loss_first=2.0,
        loss_last=1.0,
    )
    return store.admit(folder, manifest)


def converted(base: Path, out: Path, kind: gguf.GGMLQuantizationType, only: str = "attn_q.weight") -> Path:
    """A GGUF base with some of its tensors in another type."""
    reader = gguf.GGUFReader(base)
    writer = gguf.GGUFWriter(out, "qwen2")
    for tensor in reader.tensors:
        data, of = tensor.data, tensor.tensor_type
        if tensor.name.endswith(only):
            try:
                data, of = gguf.quants.quantize(gguf.quants.dequantize(data, of), kind), kind
            except NotImplementedError:
                block, size = gguf.GGML_QUANT_SIZES[kind]
                rows, columns = data.shape
                data, of = torch.zeros((rows, columns // block * size), dtype=torch.uint8).numpy(), kind
        writer.add_tensor(tensor.name, data, raw_dtype=of)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out
