"""PEFT's layout: `adapter_config.json` and `adapter_model.safetensors`; read by `agent.adapters.read_peft`."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save_file

from agent.adapters import CONFIG, DOWN, PREFIX, UP, WEIGHTS, Lora, read_peft
from consolidation.layouts import check, check_same, made_whole


def write_peft(lora: Lora, folder: Path, base_name: str) -> None:
    """Write an adapter; the same adapter and base name give the same bytes.

    `target_modules` holds whole paths, so that PEFT adapts these layers and no others, whatever the base has.

    Raises:
        ModelError, AdapterError: the adapter can do nothing, or the folder cannot be made.
    """
    check(lora, folder)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "inference_mode": True,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "target_modules": sorted(lora.layers),
    }
    tensors = {f"{PREFIX}{path}{DOWN}": f.a.contiguous() for path, f in lora.layers.items()}
    tensors |= {f"{PREFIX}{path}{UP}": f.b.contiguous() for path, f in lora.layers.items()}
    with made_whole(folder) as made:
        made.mkdir()
        (made / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
        save_file(tensors, made / WEIGHTS, metadata={"format": "pt"})
        check_same(lora, read_peft(made), folder)
