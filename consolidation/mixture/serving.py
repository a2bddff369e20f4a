"""Which adapter folder answers an issue: for a mixture, the weighted sum of experts that its router asks for."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import ModelError
from consolidation.adapters import ARTEFACTS, ROUTER, artefact_hash
from consolidation.errors import AdapterError
from consolidation.layouts import check_same, look_over, look_over_safetensors, read_json
from consolidation.mixture.query import Query, vectors_of
from consolidation.mixture.router import Router
from memory.knowledge.embedders import Embedder, HashingEmbedder
from memory.tasks import Task

if TYPE_CHECKING:
    from agent.adapters import Lora

MIXTURES = ".mixtures"
"""Where mixtures are kept, beside the adapters they are made of; it can be deleted and is made again."""


def is_mixture(folder: Path) -> bool:
    """Whether an adapter folder has a router."""
    return any((folder / name).exists() or (folder / name).is_symlink() for name in ROUTER)


@dataclass
class Served:
    """Answers which folder serves which issue, for as long as no adapter is replaced: every file is read once.

    Mixtures are PEFT folders in `cache` (by default beside the adapter), named by artefact and weights.
    """

    cache: Path | None = None
    embedder: Embedder = field(default_factory=HashingEmbedder)
    _routers: dict[Path, tuple[Router, str]] = field(default_factory=dict, init=False)
    _made: dict[tuple[str, tuple[int, ...]], Path] = field(default_factory=dict, init=False)

    def route(self, folder: Path, task: Task) -> Path | None:
        """The folder that answers a task: the adapter itself if it is no mixture, None for the bare base.

        Raises:
            AdapterError: the mixture is damaged, or its router knows another embedder.
        """
        return self.choose(folder, Query(task.repo, task.issue))

    def choose(self, folder: Path, query: Query) -> Path | None:
        """The folder that answers any text, as if it were an issue.

        Raises:
            AdapterError: see `route`.
        """
        if not is_mixture(folder):
            return folder
        router, identity = self._router(folder)
        quarters = router.quarters(vectors_of([query], self.embedder.embed)[0])
        return None if quarters is None else self._mixture(folder, router, identity, quarters)

    def _router(self, folder: Path) -> tuple[Router, str]:
        if folder not in self._routers:
            router = Router.load(folder)
            known = router.routing.embedder, router.routing.dimensions
            if known != (self.embedder.name, self.embedder.dimensions):
                raise AdapterError(
                    f"{folder}: its router reads issues as embedded by {known[0]}, not by {self.embedder.name}; "
                    "train again, or roll back"
                )
            self._routers[folder] = router, artefact_hash(folder)
        return self._routers[folder]

    def _mixture(self, folder: Path, router: Router, identity: str, quarters: tuple[int, ...]) -> Path:
        key = identity, quarters
        if key not in self._made:
            path = (self.cache or folder.parent / MIXTURES) / f"{identity}-{'-'.join(map(str, quarters))}"
            self._made[key] = materialise(folder, router.routing.ranks, quarters, path)
        return self._made[key]


def materialise(folder: Path, ranks: tuple[int, ...], quarters: tuple[int, ...], path: Path) -> Path:
    """Write the mixture of an artefact to a PEFT folder, whole; one that is there already is checked, and replaced if damaged.

    Two processes may do it at once: they write the same.

    Raises:
        AdapterError: the artefact is damaged, or nothing can be written.
    """
    from agent.adapters import read_peft
    from consolidation.layouts.peft import write_peft
    from consolidation.mixture.experts import mixed

    config, weights = ARTEFACTS
    try:
        look_over_safetensors(folder / weights)
        lora = mixed(read_peft(folder), ranks, quarters, folder)
        name = str(read_json(folder / config).get("base_model_name_or_path", ""))
        if path.exists():
            if _holds(lora, path):
                return path
            shutil.rmtree(path, ignore_errors=True)
        try:
            write_peft(lora, path, name)
        except AdapterError:
            if not _holds(lora, path):  # else another process was faster
                raise
    except ModelError as error:
        raise AdapterError(str(error)) from error
    return path


def _holds(lora: Lora, path: Path) -> bool:
    from agent.adapters import read_peft

    try:
        for name in ARTEFACTS:
            look_over(path / name)
        check_same(lora, read_peft(path), path)
    except (AdapterError, ModelError):
        return False
    return True
