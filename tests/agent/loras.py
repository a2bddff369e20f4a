"""Random adapters for the pocket model, good and bad, in PEFT's layout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from agent.adapters import CONFIG, DOWN, PREFIX, UP
from agent.adapters import WEIGHTS as TENSORS
from agent.pocket import WEIGHTS

TARGETS = ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")
RANK = 4
WAYS = (
    *("missing", "truncated", "without configuration", "not finite"),
    *("without effect", "too wide", "too tall", "of another base"),
)


def write(folder: Path, tensors: dict[str, Tensor], **config: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / TENSORS)
    whole = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": 2 * RANK, "bias": "none", **config}
    whole |= {"base_model_name_or_path": "pocket", "target_modules": [name.rpartition(".")[2] for name in TARGETS]}
    (folder / CONFIG).write_text(json.dumps(whole))
    return folder


def good(folder: Path, seed: int, size: float = 4.0) -> Path:
    """An adapter that changes answers."""
    draw = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, weight in load_file(WEIGHTS / "model.safetensors").items():
        path = name.removesuffix(".weight")
        if path.endswith(TARGETS):
            out, into = weight.shape
            tensors[f"{PREFIX}{path}{DOWN}"] = torch.randn(RANK, into, generator=draw) / into**0.5
            tensors[f"{PREFIX}{path}{UP}"] = torch.randn(out, RANK, generator=draw) * size / RANK
    return write(folder, tensors)


def bad(folder: Path, seed: int = 1) -> dict[str, Path]:
    """One folder for each way to be no adapter of this base."""
    source = good(folder / "source", seed)
    tensors = load_file(source / TENSORS)
    name = f"{PREFIX}model.layers.0.self_attn.q_proj"
    down, up = tensors[f"{name}{DOWN}"], tensors[f"{name}{UP}"]
    found = {
        "missing": folder / "missing",
        "not finite": write(folder / "nan", tensors | {f"{name}{UP}": up * float("nan")}),
        "too wide": write(folder / "wide", tensors | {f"{name}{DOWN}": torch.cat([down, down], 1)}),
        "too tall": write(folder / "tall", tensors | {f"{name}{UP}": torch.cat([up, up])}),
        "of another base": write(folder / "deep", {k.replace("layers.0.", "layers.99."): v for k, v in tensors.items()}),
        "without effect": write(folder / "zero", {k: v * 0 for k, v in tensors.items()}),
    }
    for why, part in {"truncated": TENSORS, "without configuration": CONFIG}.items():
        found[why] = shutil.copytree(source, folder / why)
        content = (found[why] / part).read_bytes()
        (found[why] / part).write_bytes(content[: len(content) // 2])
    assert set(found) == set(WAYS)
    return found
