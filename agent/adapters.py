"""A LoRA adapter as every engine understands it, and how it is read from a folder in PEFT's layout.

The weight of a linear layer (out, in) is changed by `alpha / rank * b @ a`, with `a` (rank, in) and `b` (out, rank)
(Hu et al. 2021, "LoRA", section 4.1).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from agent.errors import ModelError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
DOWN, UP = ".lora_A.weight", ".lora_B.weight"
PLAIN: dict[str, tuple[Any, ...]] = {
    "use_rslora": (False, None),
    "use_dora": (False, None),
    "fan_in_fan_out": (False, None),
    "lora_bias": (False, None),
    "bias": ("none", None),
    "modules_to_save": ([], None),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "init_lora_weights": (True, False, None, "gaussian", "eva", "orthogonal"),
    "layer_replication": (None,),
    "target_parameters": ([], None),
    "trainable_token_indices": (None,),
    "use_qalora": (False, None),
    "peft_type": ("LORA", None),
}
"""What PEFT can do beyond plain LoRA has no counterpart in MLX's and GGUF's layouts; some of it changes the base."""
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
RETRAIN = "train it again, or roll back with `sleepyctl adapters rollback`"


@dataclass(frozen=True)
class Factors:
    """One adapted layer: `a` (rank, in) and `b` (out, rank)."""

    a: Tensor
    b: Tensor


@dataclass(frozen=True)
class Lora:
    """An adapter: its layers by their path in the base model, such as `model.layers.0.self_attn.q_proj`."""

    rank: int
    alpha: float
    layers: dict[str, Factors]

    @property
    def scale(self) -> float:
        """What the product of the factors is multiplied by."""
        return self.alpha / self.rank

    def delta(self, path: str) -> Tensor:
        """Change of a layer's weight (out, in), in float32."""
        factors = self.layers[path]
        return self.scale * (factors.b.float() @ factors.a.float())

    def check(self, where: object) -> None:
        """Refuse what can do nothing, or nothing good.

        Raises:
            ModelError: it is empty, not finite, without effect, or its shapes contradict each other.
        """
        if not self.layers:
            raise ModelError(f"{where}: the adapter has no layers; {RETRAIN}")
        for path, f in self.layers.items():
            if f.a.ndim != 2 or f.b.ndim != 2 or f.a.shape[0] != self.rank or f.b.shape[1] != self.rank:
                raise ModelError(
                    f"{where}: the factors of {path} have shapes {tuple(f.a.shape)} and {tuple(f.b.shape)}, rank {self.rank}"
                )
            if f.a.dtype not in FLOATS or f.b.dtype not in FLOATS:
                raise ModelError(f"{where}: the factors of {path} are of {f.a.dtype} and {f.b.dtype}; {RETRAIN}")
            if not (torch.isfinite(f.a).all() and torch.isfinite(f.b).all()):
                raise ModelError(f"{where}: the factors of {path} are not finite; {RETRAIN}")
        if not any((f.a.bool().any(1) & f.b.bool().any(0)).any() for f in self.layers.values()):
            raise ModelError(f"{where}: the adapter changes nothing; {RETRAIN}")


def read_peft(folder: Path) -> Lora:
    """The adapter in a folder, checked.

    Raises:
        ModelError: it is missing, damaged, no plain LoRA, or can have no good effect.
    """
    rank, alpha = _read_config(folder / CONFIG)
    try:
        tensors = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError, ValueError, TypeError, RuntimeError) as error:
        raise ModelError(f"{folder / WEIGHTS}: no readable adapter ({str(error)[:300]}); {RETRAIN}") from error
    layers: dict[str, Factors] = {}
    for name, down in tensors.items():
        path = name.removeprefix(PREFIX).removesuffix(DOWN)
        if name == f"{PREFIX}{path}{DOWN}":
            up = tensors.get(f"{PREFIX}{path}{UP}")
            if up is None:
                raise ModelError(f"{folder / WEIGHTS}: {name} has no counterpart; {RETRAIN}")
            layers[path] = Factors(down, up)
    if 2 * len(layers) != len(tensors):
        odd = sorted(set(tensors) - {f"{PREFIX}{path}{end}" for path in layers for end in (DOWN, UP)})
        raise ModelError(f"{folder / WEIGHTS}: {odd[0][:200]} belongs to no adapted layer; {RETRAIN}")
    lora = Lora(rank, alpha, dict(sorted(layers.items())))
    lora.check(folder)
    return lora


def _read_config(path: Path) -> tuple[int, float]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        rank, alpha = config["r"], float(config["lora_alpha"])
        if type(rank) is not int or rank < 1 or not 0 < alpha < float("inf"):
            raise ValueError(f"rank {rank}, alpha {alpha}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise ModelError(f"{path}: no readable adapter configuration ({str(error)[:300]}); {RETRAIN}") from error
    for name, plain in PLAIN.items():
        if config.get(name) not in plain:
            raise ModelError(f"{path}: {name} is {config[name]!r}; only plain LoRA can be served by every engine")
    return rank, alpha


def adapter_digest(folder: Path) -> str:
    """sha256 over configuration and weights of an adapter folder."""
    digest = hashlib.sha256()
    for name in (CONFIG, WEIGHTS):
        digest.update(name.encode() + b"\0" + (folder / name).read_bytes())
    return digest.hexdigest()
