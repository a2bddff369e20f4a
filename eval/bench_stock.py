"""The contestants of `eval.bench_train`: this project's trainers, and the engines' own loops with their stock settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from agent.adapters import Factors, Lora
from consolidation.layouts.peft import write_peft
from consolidation.trainers.base import Example, Job
from consolidation.trainers.batches import WARM_UP, steps_of

Measured = Callable[[], AbstractContextManager[None]]
"""Surrounds the training steps alone; models are loaded before, adapters written after."""


def with_this(job: Job, examples: Sequence[Example], out: Path, contestant: str, measured: Measured) -> None:
    """This project's trainer, its writing of the adapter included."""
    from consolidation.trainers.initial import first_factors

    if contestant.startswith("torch"):
        from consolidation.trainers.torch_lora import TORCH as TRAINER
    else:
        from consolidation.trainers.mlx_lora import MLX as TRAINER
    from consolidation.trainers.loop import LocalTrainer

    engine = TRAINER.open(job, first_factors(job))
    with measured():
        LocalTrainer(TRAINER.name, lambda *_: engine).fit(job, examples, out, lambda progress: None)


def with_peft(job: Job, examples: Sequence[Example], out: Path, contestant: str, measured: Measured) -> None:
    """PEFT under transformers' `Trainer`."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

    lora = job.lora
    torch.set_num_threads(job.threads)
    torch.manual_seed(job.seed)
    base = AutoModelForCausalLM.from_pretrained(job.base, dtype=torch.float32)
    model = get_peft_model(
        base, LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.targets), task_type="CAUSAL_LM")
    )
    settings = TrainingArguments(
        output_dir=str(out.parent / "stock"),
        per_device_train_batch_size=lora.batch_size,
        num_train_epochs=lora.epochs,
        learning_rate=lora.learning_rate,
        warmup_steps=int(WARM_UP * steps_of(len(examples), lora)),
        max_grad_norm=lora.max_grad_norm,
        adam_beta2=0.98,
        seed=job.seed,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    data = [{"ids": e.ids, "own": e.own} for e in examples]
    settings.remove_unused_columns = False
    trainer = Trainer(model=model, args=settings, train_dataset=data, data_collator=_padded)
    with measured():
        trainer.train()
    model.save_pretrained(out)


def _padded(batch: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Ids, attention mask and labels (B, T), padded on the right to the longest."""
    import torch

    width = max(len(example["ids"]) for example in batch)
    rows = [(e["ids"], e["own"], width - len(e["ids"])) for e in batch]
    return {
        "input_ids": torch.tensor([ids + [0] * pad for ids, _, pad in rows]),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * pad for ids, _, pad in rows]),
        "labels": torch.tensor(
            [[t if own else -100 for t, own in zip(ids, mine, strict=True)] + [-100] * pad for ids, mine, pad in rows]
        ),
    }


def with_mlx_lm(job: Job, examples: Sequence[Example], out: Path, contestant: str, measured: Measured) -> None:
    """The loop of `mlx_lm lora`. It knows one prompt per example and no mask behind it, so it learns observations too."""
    import mlx.core as mx
    import numpy as np
    import torch
    from mlx import optimizers
    from mlx.utils import tree_flatten
    from mlx_lm.tuner.trainer import TrainingArgs, train
    from mlx_lm.tuner.utils import linear_to_lora_layers
    from mlx_lm.utils import load_model

    lora = job.lora
    mx.random.seed(job.seed)
    model: Any = load_model(job.base)[0]
    model.set_dtype(mx.float32)
    model.freeze()
    linear_to_lora_layers(model, len(model.layers), {"rank": lora.rank, "scale": lora.alpha / lora.rank, "dropout": 0.0})
    steps = steps_of(len(examples), lora)
    settings = TrainingArgs(
        batch_size=lora.batch_size,
        iters=steps,
        steps_per_report=steps,
        steps_per_save=steps + 1,
        max_seq_length=job.context,
        adapter_file=str(out.parent / "stock.safetensors"),
    )
    data = [(e.ids, e.own.index(True)) for e in examples]
    optimizer = optimizers.Adam(lora.learning_rate, [0.9, 0.98], bias_correction=True)
    with measured():
        train(model, optimizer, data, args=settings)
    flat = {name: torch.from_numpy(np.array(a)).T.contiguous() for name, a in tree_flatten(model.trainable_parameters())}
    paths = [name.removesuffix(".lora_a") for name in flat if name.endswith(".lora_a")]
    layers = {path: Factors(flat[f"{path}.lora_a"], flat[f"{path}.lora_b"]) for path in paths}
    write_peft(Lora(lora.rank, lora.alpha, layers), out, str(job.base))
