"""An adapter's first weights: the same on every engine for the same seed."""

from __future__ import annotations

import json
import math
from typing import Any

import torch
from torch import nn

from agent.adapters import Factors, Lora
from consolidation.errors import TrainingRefused
from consolidation.trainers.base import Job


def first_factors(job: Job) -> Lora:
    """`a` uniform within 1 / sqrt(in), `b` zero, for every linear layer that the job names; float32, at the scale of training.

    Drawn with torch's generator in the order of the base's layers, number for number as PEFT draws them: it makes both
    factors as linear layers, and then draws `a` again. The base's weights are not read.

    Raises:
        TrainingRefused: the base has no such layers.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        config = AutoConfig.from_pretrained(str(job.base), local_files_only=True)
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        base: Any = AutoModelForCausalLM.from_config(config)
    found = [(n, m) for n, m in base.named_modules() if isinstance(m, nn.Linear) and n.rpartition(".")[2] in job.lora.targets]
    if missing := sorted(set(job.lora.targets) - {name.rpartition(".")[2] for name, _ in found}):
        raise TrainingRefused(f"{job.base} has no linear layers {', '.join(missing)}; change lora.targets")
    rank, layers = job.lora.rank, {}
    torch.manual_seed(job.seed)
    for name, module in found:
        down = nn.Linear(module.in_features, rank, bias=False)
        nn.Linear(rank, module.out_features, bias=False)
        nn.init.kaiming_uniform_(down.weight, a=math.sqrt(5))
        layers[name] = Factors(down.weight.detach(), torch.zeros(module.out_features, rank))
    return Lora(rank, job.lora.alpha, layers)


def is_mlx_quantised(job: Job) -> bool:
    """Whether the base was quantised by mlx-lm."""
    try:
        return "quantization" in json.loads((job.base / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False  # the engine says what is wrong with it
