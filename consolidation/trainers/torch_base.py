"""The base model under a torch adapter: loaded, perhaps in 4 bits, perhaps with attention for packed rows."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from consolidation.errors import TrainingRefused
from consolidation.trainers.base import Job
from consolidation.trainers.initial import is_mlx_quantised

ATTENTION = "sleepy_segments"
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


def open_base(job: Job, device: str) -> Any:
    """The base model, ready to have an adapter put beside it."""
    from transformers import AutoModelForCausalLM
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if is_mlx_quantised(job):
        raise TrainingRefused(f"{job.base} was quantised for MLX; train it with MLX, or name the folder it was made from")
    more: dict[str, Any] = {}
    if job.machine.quantise != "none":
        more["quantization_config"] = _four_bits(device)
        more["device_map"] = {"": device}
    if job.lora.batching == "packed":
        ALL_ATTENTION_FUNCTIONS.register(ATTENTION, attend_segments)
        more["attn_implementation"] = ATTENTION
    dtype = DTYPES[job.lora.precision]
    base: Any = AutoModelForCausalLM.from_pretrained(str(job.base), dtype=dtype, local_files_only=True, **more)
    if job.machine.quantise == "none":
        base.to(device)
    if job.machine.gradient_checkpointing:
        base.gradient_checkpointing_enable({"use_reentrant": False})
        base.train()
    return base


def _four_bits(device: str) -> Any:
    """NF4 with twice quantised constants (Dettmers et al. 2023, section 3)."""
    from importlib.util import find_spec

    from transformers import BitsAndBytesConfig

    if not device.startswith("cuda") or find_spec("bitsandbytes") is None:
        raise TrainingRefused(
            "torch trains on 4-bit bases only on CUDA with bitsandbytes installed; elsewhere quantise the base with "
            "`mlx_lm.convert -q` and train with MLX, or set quantise to none"
        )
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16
    )


def attend_segments(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Causal attention within each of the segments (lengths) that lie one behind the other: block-diagonal, without the blocks.

    Query (1, H, T, D), key and value (1, K, T, D); returns (1, T, H, D). Cost grows with the sum of the squared lengths,
    where a mask over the whole row would cost the square of their sum.

    Raises:
        TrainingRefused: the model does not hand the segments on, or looks back only through a window.
    """
    segments, window = options.get("segments"), options.get("sliding_window")
    if segments is None or mask is not None:
        raise TrainingRefused(f"{type(module).__name__} cannot be trained with packed batches; set lora.batching to bucket")
    if window is not None and max(segments) > window:
        raise TrainingRefused(f"examples of more than {window} tokens meet a sliding window; set lora.batching to bucket")
    parts = zip(query.split(segments, 2), key.split(segments, 2), value.split(segments, 2), strict=True)
    out = [F.scaled_dot_product_attention(*p, is_causal=True, scale=options.get("scaling"), enable_gqa=True) for p in parts]
    return torch.cat(out, 2).transpose(1, 2), None
