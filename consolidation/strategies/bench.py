"""The bench a strategy works at: a trainer, a folder that outlives a broken-off night, and each piece of work done once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from consolidation.errors import ConsolidationError
from consolidation.trainers.base import Example, Item, Job, Progress, Trained, Trainer
from memory.files import write_whole
from memory.hashing import content_hash

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ANY: TypeAdapter[Any] = TypeAdapter(Any)


@dataclass
class Bench:
    """What a strategy works with. `job` is the recipe of the night: strategies change it with `model_copy(update=...)`.

    `embed` gives texts as unit vectors (texts, dimensions). Work has a name, unique within a night and a scope.
    `beside` adds up the seconds of all work but fitting.
    """

    trainer: Trainer
    job: Job
    folder: Path
    embed: Callable[[Sequence[str]], NDArray[np.float32]]
    on_step: Callable[[Progress], None] = lambda progress: None
    beside: float = field(default=0.0, init=False)

    def fit(self, name: str, items: Sequence[Item], job: Job | None = None) -> Trained:
        """Train an adapter, once: a night that was broken off takes it up again, or has it already."""
        job = job or self.job
        found = self._once(name, [job, items], lambda: self.trainer.fit(job, items, self.folder / name, self.on_step))
        trained = Trained.model_validate(found)
        if not trained.folder.is_dir():
            raise ConsolidationError(f"{trained.folder}: the adapter is gone; the night cannot go on")
        return trained

    def loss(self, name: str, examples: Sequence[Example], adapter: Path | None = None, job: Job | None = None) -> list[float]:
        """Nats per own token of each example under the base or an adapter as it is served, measured once."""
        job = job or self.job
        return list(self.aside(name, [job, examples, adapter], lambda: self.trainer.loss(job, examples, adapter)))

    def fisher(self, name: str, examples: Sequence[Example], adapter: Path, job: Job | None = None) -> Path:
        """The file of the diagonal Fisher information at an adapter, computed once."""
        job, out = job or self.job, self.folder / f"{name}.safetensors"
        self.folder.mkdir(parents=True, exist_ok=True)
        return Path(self.aside(name, [job, examples, adapter], lambda: str(self.trainer.fisher(job, examples, out, adapter))))

    def aside(self, name: str, inputs: object, do: Callable[[], Any]) -> Any:
        """Work beside training, once; what it gives must be JSON. Its seconds count, also those of a process before."""

        def timed() -> dict[str, Any]:
            began = time.monotonic()
            given = do()
            return {"given": given, "seconds": time.monotonic() - began}

        found = self._once(name, inputs, timed)
        self.beside += float(found["seconds"])
        return found["given"]

    def _once(self, name: str, inputs: object, do: Callable[[], Any]) -> Any:
        path, key = self.folder / f"{name}.done.json", content_hash([name, inputs])
        if path.is_file():
            kept = ANY.validate_json(path.read_bytes())
            if isinstance(kept, dict) and kept.get("key") == key:
                return kept["given"]
        given = do()
        path.parent.mkdir(parents=True, exist_ok=True)
        text = ANY.dump_json({"key": key, "given": given}, serialize_as_any=True)
        write_whole(path, text.decode())
        return ANY.validate_json(text)["given"]
