"""Where training begins other than at the base: a start adapter, and an anchor with its Fisher information."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from agent.adapters import DOWN, PREFIX, UP, Lora, read_peft
from agent.errors import ModelError
from consolidation.errors import TrainingRefused
from consolidation.trainers.base import Job

MANIFEST, STATE = "manifest.json", "state.json"
Tensors = dict[str, Tensor]
"""Tensors by their names in a PEFT adapter file."""


def read_start(job: Job, folder: Path) -> Lora:
    """The adapter that training goes on from, at the scale it is trained at.

    Its factors are taken as they are, so that nights in a row do not shrink what was learnt by the serving scale each time.

    Raises:
        TrainingRefused: it is damaged, of another recipe or base, or was rejected (FACTS 10.9).
    """
    try:
        lora = read_peft(folder)
    except ModelError as error:
        raise TrainingRefused(f"cannot start there: {error}") from error
    served, names = job.lora.alpha * job.lora.serving_scale, {path.rpartition(".")[2] for path in lora.layers}
    differing = {
        "rank": (lora.rank, job.lora.rank),
        "alpha": (round(lora.alpha, 6), round(served, 6)),
        "targets": (", ".join(sorted(names)), ", ".join(sorted(set(job.lora.targets)))),
    }
    for what, (theirs, ours) in differing.items():
        if theirs != ours:
            raise TrainingRefused(f"{folder}: its {what} is {theirs}, the job's {ours}; start from an adapter of this recipe")
    check_origin(job, folder)
    return replace(lora, alpha=job.lora.alpha)


def check_origin(job: Job, folder: Path) -> None:
    """Refuse an adapter that nothing may be built on, by the manifest and the standing beside it.

    Raises:
        TrainingRefused: it is of another base, or was rejected (FACTS 10.9).
    """
    if job.base_hash and _noted(folder / MANIFEST, "base") not in (None, job.base_hash):
        raise TrainingRefused(f"{folder} was trained on another base; start from an adapter of this one")
    if _noted(folder / STATE, "state") == "rejected":
        raise TrainingRefused(f"{folder} was rejected, and a rejected adapter is never a starting point; start from the base")


def _noted(path: Path, field: str) -> object:
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return found[field]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise TrainingRefused(f"{path} cannot be read ({str(error)[:300]}); start from another adapter") from error


def read_penalty(job: Job, trained: Mapping[str, Tensor]) -> tuple[Tensors, Tensors, float] | None:
    """Fisher information and anchor by the names of what is trained, and the weight; None if there is no penalty.

    The Fisher information is brought to mean 1 over all weights, so that a weight means the same at every size of the
    gradients: it shrinks with the loss, by orders of magnitude where a night is learnt well.

    Raises:
        TrainingRefused: they are damaged, or belong to another adapter.
    """
    if job.penalty is None:
        return None
    where, anchor = job.penalty.fisher, tensors_of(read_start(job, job.penalty.anchor))
    try:
        fisher = load_file(where)
    except (OSError, SafetensorError, ValueError, TypeError, RuntimeError) as error:
        raise TrainingRefused(f"{where}: no readable Fisher information ({str(error)[:300]}); compute it again") from error
    for found, source in ((fisher, where), (anchor, job.penalty.anchor)):
        if {n: t.shape for n, t in found.items()} != {n: t.shape for n, t in trained.items()}:
            raise TrainingRefused(f"{source} belongs to an adapter of other layers or shapes; compute it again")
    if not all(t.isfinite().all() and (t >= 0).all() for t in fisher.values()) or not any(t.any() for t in fisher.values()):
        raise TrainingRefused(f"{where}: squared gradients are finite, not negative, and not all zero; compute it again")
    mean = sum(t.double().sum().item() for t in fisher.values()) / sum(t.numel() for t in fisher.values())
    return {n: (t.double() / mean).float() for n, t in fisher.items()}, anchor, job.penalty.weight


def tensors_of(lora: Lora) -> Tensors:
    """An adapter's factors (float32) by their names in a PEFT file."""
    down = {f"{PREFIX}{path}{DOWN}": f.a.float() for path, f in lora.layers.items()}
    return down | {f"{PREFIX}{path}{UP}": f.b.float() for path, f in lora.layers.items()}
