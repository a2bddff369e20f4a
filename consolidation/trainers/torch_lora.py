"""LoRA training with torch and PEFT, as a plain loop; runs inside the child process."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from consolidation.errors import TrainingRefused
from consolidation.trainers.base import Example, Job, Progress, Trained, check_examples

MIN_MOVEMENT = 1e-6
WARM_UP = 0.05


def fit(job: Job, examples: Sequence[Example], out: Path, on_step: Callable[[Progress], None]) -> Trained:
    """Train one adapter and write it to `out`; a function of job and examples.

    Raises:
        TrainingRefused: see FACTS on silent failures: zero, constant or non-finite loss, zero
            gradients, an adapter without effect, and everything `check_examples` finds.
    """
    from peft import LoraConfig as PeftConfig
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    check_examples(job, examples)
    torch.manual_seed(job.seed)
    torch.set_num_threads(job.threads)
    lora = job.lora
    base = AutoModelForCausalLM.from_pretrained(job.base, dtype=torch.float32)
    config = PeftConfig(
        r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.targets), bias="none", task_type="CAUSAL_LM"
    )
    model: Any = get_peft_model(base, config)
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=lora.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    steps = lora.epochs * (len(examples) // lora.batch_size)
    losses: list[float] = []
    tokens, began = 0, time.monotonic()
    for batch in _batches(examples, lora.batch_size, lora.epochs, random.Random(job.seed)):
        factor = min(1.0, (len(losses) + 1) / max(1.0, WARM_UP * steps), (steps - len(losses)) / steps)
        for group in optimizer.param_groups:
            group["lr"] = lora.learning_rate * factor
        loss, total = _loss(model, batch, lora.kl_weight)
        total.backward()
        norm = torch.nn.utils.clip_grad_norm_(trainable, lora.max_grad_norm)
        _check_step(loss.item(), norm.item(), len(losses))
        optimizer.step()
        optimizer.zero_grad()
        tokens += sum(len(example.ids) for example in batch)
        losses.append(loss.item())
        on_step(Progress(step=len(losses), steps=steps, loss=loss.item()))
    _check_whole(losses, trainable)
    model.peft_config["default"].lora_alpha = lora.alpha * lora.serving_scale
    model.save_pretrained(out, safe_serialization=True)
    per_epoch = max(1, len(losses) // lora.epochs)
    return Trained(
        folder=out,
        examples=len(examples),
        tokens=tokens,
        steps=len(losses),
        seconds=time.monotonic() - began,
        loss_first=sum(losses[:per_epoch]) / per_epoch,
        loss_last=sum(losses[-per_epoch:]) / per_epoch,
    )


def _batches(examples: Sequence[Example], size: int, epochs: int, rng: random.Random) -> Iterator[list[Example]]:
    """Batches of examples of similar length (little padding), in random order; no example is left out twice in a row."""
    for _ in range(epochs):
        order = list(examples)
        rng.shuffle(order)
        order = order[: len(order) // size * size]
        order.sort(key=lambda example: len(example.ids) // 32)
        groups = [order[i : i + size] for i in range(0, len(order), size)]
        rng.shuffle(groups)
        yield from groups


def _loss(model: Any, batch: Sequence[Example], kl_weight: float) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy over own words (tokens), and the same plus the weighted KL on rehearsal."""
    width = max(len(example.ids) for example in batch)
    ids = torch.zeros((len(batch), width), dtype=torch.long)
    own = torch.zeros((len(batch), width), dtype=torch.bool)
    for row, example in enumerate(batch):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        own[row, : len(example.own)] = torch.tensor(example.own)
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    mask, target = own[:, 1:], ids[:, 1:]
    loss = F.cross_entropy(logits[mask], target[mask])
    rehearsal = [row for row, example in enumerate(batch) if example.rehearsal]
    if not kl_weight or not rehearsal:
        return loss, loss
    with torch.no_grad(), model.disable_adapter():
        reference = model(input_ids=ids[rehearsal], use_cache=False).logits[:, :-1][mask[rehearsal]]
    adapted = logits[rehearsal][mask[rehearsal]]
    kl = F.kl_div(F.log_softmax(adapted, -1), F.log_softmax(reference, -1), log_target=True, reduction="batchmean")
    return loss, loss + kl_weight * kl


def _check_step(loss: float, norm: float, step: int) -> None:
    if loss != loss or loss in (float("inf"), float("-inf")):
        raise TrainingRefused(f"the loss is not finite at step {step}; lower the learning rate")
    if loss == 0.0:
        raise TrainingRefused(f"the loss is exactly zero at step {step}; the mask or the data is wrong")
    if norm == 0.0 or norm != norm:
        raise TrainingRefused(f"the gradient is {norm} at step {step}; nothing would be learnt")


def _check_whole(losses: Sequence[float], trainable: Sequence[Tensor]) -> None:
    if len(losses) > 1 and max(losses) - min(losses) < MIN_MOVEMENT:
        raise TrainingRefused(f"the loss stayed at {losses[0]:g}; nothing was learnt")
    if not all(torch.isfinite(p).all() for p in trainable):
        raise TrainingRefused("the adapter is not finite; lower the learning rate")
