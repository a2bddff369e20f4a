"""Where a training stands, in one file that is there whole or not at all: kill it at any time, and it goes on.

A safetensors file with the adapter and the optimiser's moments; what else is to be known is JSON in its header.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from agent.adapters import adapter_digest
from agent.models.weights import file_hash, folder_hash
from consolidation.trainers.base import Checkpoint, Item, Job
from consolidation.trainers.starts import Tensors
from memory.files import sync
from memory.hashing import content_hash

VERSION = 2
POSITION = "position"
END = ".state.safetensors"


class Position(BaseModel):
    """How far a training has come. `references` are the preferences' log-probabilities, `job` the hash of what is trained."""

    job: str
    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    losses: list[float] = []
    references: list[tuple[float, float]] = []
    checkpoints: list[Checkpoint] = []
    stopped: bool = False


def state_file(out: Path) -> Path:
    """Where the state of a training into the folder `out` lies."""
    return out.with_name(out.name + END)


def job_hash(engine: str, job: Job, items: Sequence[Item]) -> str:
    """Hash of everything that decides what is trained, weights on disk included.

    Raises:
        ModelError: the base holds no weights.
    """
    parts: list[object] = [VERSION, engine, job, items, folder_hash(job.base)]
    parts += [adapter_digest(folder) for folder in (job.start, job.penalty and job.penalty.anchor) if folder]
    parts += [file_hash(job.penalty.fisher)] if job.penalty else []
    return content_hash(parts)


def save_state(path: Path, position: Position, tensors: Tensors) -> None:
    """Replace the state, whole."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, temporary, metadata={POSITION: position.model_dump_json()})
        sync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def load_state(path: Path, job: str) -> tuple[Position, Tensors] | None:
    """The state of this very job. None if there is none; one that is damaged or another job's is removed."""
    for left in path.parent.iterdir() if path.parent.is_dir() else ():
        if left.name.startswith(f".{path.name}."):
            left.unlink(missing_ok=True)
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            position = Position.model_validate_json((file.metadata() or {})[POSITION])
            if position.job == job:
                return position, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValidationError, KeyError, ValueError):
        pass  # it is only computed again
    path.unlink()
    return None
