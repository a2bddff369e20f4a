"""mlx-lm's layout: `adapter_config.json` and `adapters.safetensors`.

Its factors are PEFT's transposed: `lora_a` (in, rank), `lora_b` (rank, out); its scale is alpha / rank.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from agent.adapters import CONFIG, Factors, Lora
from consolidation.errors import AdapterError
from consolidation.layouts import check, check_same, look_over_safetensors, made_whole, number, read_json

WEIGHTS = "adapters.safetensors"
DOWN, UP = ".lora_a", ".lora_b"


def write_mlx(lora: Lora, folder: Path) -> None:
    """Write an adapter so that `mlx_lm` loads it.

    `keys` holds whole paths: mlx-lm would count layers from the end, and the adapter does not know how many the base has.
    alpha stands beside the scale, because alpha / rank * rank need not be alpha again.

    Raises:
        ModelError, AdapterError: the adapter can do nothing, or the folder cannot be made.
    """
    check(lora, folder)
    blocks = {found[1] for path in lora.layers if (found := re.search(r"\.layers\.(\d+)\.", path))}
    config = {
        "fine_tune_type": "lora",
        "num_layers": len(blocks),
        "lora_parameters": {
            "rank": lora.rank,
            "scale": lora.scale,
            "alpha": lora.alpha,
            "dropout": 0.0,
            "keys": sorted(lora.layers),
        },
    }
    tensors = {f"{path}{DOWN}": f.a.T.contiguous() for path, f in lora.layers.items()}
    tensors |= {f"{path}{UP}": f.b.T.contiguous() for path, f in lora.layers.items()}
    with made_whole(folder) as made:
        made.mkdir()
        (made / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
        save_file(tensors, made / WEIGHTS, metadata={"format": "mlx"})
        check_same(lora, read_mlx(made), folder)


def read_mlx(folder: Path) -> Lora:
    """The adapter in a folder, checked.

    Raises:
        ModelError, AdapterError: it is missing, damaged, no plain LoRA, or can have no good effect.
    """
    rank, alpha = _read_config(folder / CONFIG)
    path = folder / WEIGHTS
    look_over_safetensors(path)
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise AdapterError(f"{path}: no readable adapter ({str(error)[:300]})") from error
    lora = Lora(rank, alpha, paired(tensors, DOWN, UP, path))
    lora = Lora(rank, alpha, {name: Factors(_turned(f.a), _turned(f.b)) for name, f in lora.layers.items()})
    check(lora, folder)
    return lora


def paired(tensors: dict[str, Tensor], down: str, up: str, where: Path) -> dict[str, Factors]:
    """Both factors of every layer, by the layer's path.

    Raises:
        AdapterError: one of them is missing, or there is something else.
    """
    layers = {
        name.removesuffix(down): Factors(tensor, tensors[name.removesuffix(down) + up])
        for name, tensor in sorted(tensors.items())
        if name.endswith(down) and name.removesuffix(down) + up in tensors
    }
    odd = set(tensors) - {path + end for path in layers for end in (down, up)}
    if odd:
        raise AdapterError(f"{where}: {min(odd)[:200]!r} belongs to no adapted layer")
    return layers


def _turned(tensor: Tensor) -> Tensor:
    return tensor.T.contiguous() if tensor.ndim == 2 else tensor


def _read_config(path: Path) -> tuple[int, float]:
    config = read_json(path)
    if config.get("fine_tune_type", "lora") != "lora":
        raise AdapterError(
            f"{path}: fine_tune_type is {str(config['fine_tune_type'])[:100]!r}; only plain LoRA is the same on every engine"
        )
    given = config.get("lora_parameters")
    given = given if isinstance(given, dict) else {}
    rank, scale = given.get("rank"), number(given.get("scale"), "scale", path)
    if not isinstance(rank, int) or number(rank, "rank", path) > 1 << 16:
        raise AdapterError(f"{path}: rank must be a whole number, not {str(rank)[:100]}")
    alpha = number(given.get("alpha", scale * rank), "alpha", path)
    if abs(alpha - scale * rank) > 1e-9 * alpha:
        raise AdapterError(f"{path}: alpha {alpha:g} contradicts scale {scale:g} and rank {rank}")
    return rank, alpha
