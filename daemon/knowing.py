"""Knowledge, as a daemon has it: that of its arm, made of the attempts in its store, and going back together with its skill."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence, Set
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.distil import distil
from agent.errors import ModelUnavailable
from agent.recalled import cost, fact_cost
from daemon.config import Config
from daemon.events import Event
from daemon.home import Home
from daemon.space import pair, space_of
from memory.errors import KnowledgeError
from memory.ingest.sessions import task_of
from memory.knowledge.consolidation import Tidied, consolidate
from memory.knowledge.layer import Knowledge
from memory.knowledge.memories import Memory
from memory.store import Store
from memory.tasks import MergedFix, Task
from memory.trajectories import Trajectory

if TYPE_CHECKING:
    from agent.model import Model

Distil = Callable[[Trajectory, Task, MergedFix | None], Sequence[Memory]]
BATCH = 64
TIDYING = "knowledge.tidying"
"""Note of the night that last began to consolidate."""


def open_knowledge(folder: Path, config: Config, store: Store, held_out: Set[str] = frozenset()) -> tuple[Knowledge, str]:
    """The knowledge of the configured arm, its index in `folder`, and which embedder was taken and why.

    Raises:
        KnowledgeError: the embedder or the index cannot be used.
    """
    from memory.knowledge.embedders import open_embedder

    embedder, why = open_embedder(config.knowledge.embedder)
    found = Knowledge(store, folder, embedder, config.knowledge, space_of(config), held_out, cost, fact_cost)
    return found, why


class Knowing:
    """The knowledge of a working process, opened when it is first asked for. Any thread may ask."""

    def __init__(
        self,
        home: Home,
        config: Config,
        store: Store,
        emit: Callable[..., None],
        model: Model,
        fix: Callable[[Task], MergedFix | None],
        belongs: Callable[[str], bool],
        held_out: Callable[[], Set[str]],
    ) -> None:
        self._home, self._config, self._store, self._emit = home, config, store, emit
        self._model, self._fix, self._belongs, self._held_out = model, fix, belongs, held_out
        self._lock = threading.Lock()
        self._open: Knowledge | None = None
        self._distil: Distil = distil

    def layer(self) -> Knowledge:
        """The open layer, in step with the store.

        Raises:
            KnowledgeError: it cannot be used.
        """
        with self._lock:
            if self._open is None:
                layer, why = open_knowledge(self._home.chroma, self._config, self._store, self._held_out())
                layer.sync()
                if self._config.knowledge.distiller == "model":
                    from agent.distil.by_model import ModelDistiller

                    self._distil = ModelDistiller(self._model)
                known = sum(layer.shelf.repos().values())
                told = {"space": layer.shelf.space, "embedder": layer.embedder.name, "why": why, "memories": known}
                self._emit(Event.KNOWLEDGE_OPENED, **told)
                self._open = layer
            return self._open

    def catch_up(self, checkpoint: Callable[[], None] = lambda: None) -> None:
        """Remember every attempt of this arm that is over, and was not remembered yet."""
        layer = self.layer()
        lived = self._store.lived(("", self._config.arm))
        fresh = layer.shelf.undistilled(list(lived))
        waiting = [identity for identity in fresh if not lived[identity] or self._belongs(lived[identity])]
        tasks = {task.id: task for task in self._store.tasks()} if waiting else {}
        for start in range(0, len(waiting), BATCH):
            checkpoint()
            ids = waiting[start : start + BATCH]
            kept = layer.remember({identity: self._lessons(identity, tasks) for identity in ids})
            problems = getattr(self._distil, "problems", 0)
            self._emit(Event.KNOWLEDGE_REMEMBERED, trajectories=len(ids), memories=len(kept), problems=problems)

    def _lessons(self, identity: str, tasks: Mapping[str, Task]) -> Sequence[Memory]:
        trajectory = self._store.trajectory(identity)
        if trajectory.imported:
            return distil(trajectory, tasks.get(trajectory.task_id) or task_of(trajectory))
        task = tasks.get(trajectory.task_id)
        if task is None:
            return []
        fix = self._fix(task) if self._config.knowledge.merged_fixes and not trajectory.resolved else None
        return self._distil(trajectory, task, fix)

    def tidy(self, night: str, live: Mapping[str, str]) -> dict[str, Any]:
        """Consolidate the knowledge in a night; the skill that is live is noted as the one that went with what was known.

        Raises:
            ModelUnavailable: the index's server is away; the night goes on when it is back.
        """
        try:
            self.catch_up()
            layer = self.layer()
        except KnowledgeError as error:
            raise ModelUnavailable(str(error)) from error
        if self._store.note(TIDYING) != night:  # done again after a kill, it may be consolidated already
            pair(self._store, layer.shelf, live)
            self._store.set_note(TIDYING, night)
        done: Tidied = consolidate(layer.shelf, self._config.knowledge, layer.embedder.embed, datetime.now(UTC), night)
        layer.sync()
        told = done.model_dump(mode="json")
        self._emit(Event.KNOWLEDGE_TIDIED, **told)
        return told

    def asked(self, what: str, query: str, repo: str, most: int) -> dict[str, Any]:
        """`search` the knowledge, `rebuild` its index or `scrub` what was forgotten from it; what there is to tell of it."""
        layer = self.layer()
        take_imported(layer, self._store)
        if what == "search":
            return {"found": found_rows(layer, query, repo, most)}
        if what == "rebuild":
            return rebuilt(layer)
        return {"version": layer.scrub()}

    def close(self) -> None:
        """Let go of the index."""
        with self._lock:
            if self._open is not None:
                self._open.close()
                self._open = None


def take_imported(layer: Knowledge, store: Store) -> None:
    """Remember other agents' sessions that were imported since; that needs rules alone."""
    waiting = layer.shelf.undistilled([identity for identity, task in store.lived(()).items() if not task])
    tasks = {task.id: task for task in store.tasks()} if waiting else {}
    for start in range(0, len(waiting), BATCH):
        sessions = [store.trajectory(identity) for identity in waiting[start : start + BATCH]]
        layer.remember({one.id: distil(one, tasks.get(one.task_id) or task_of(one)) for one in sessions})


def found_rows(layer: Knowledge, query: str, repo: str, most: int) -> list[dict[str, Any]]:
    """What a search finds, best first, in one repository or in all of them."""
    now = datetime.now(UTC)
    found = [hit for name in ([repo] if repo else layer.shelf.repos()) for hit in layer.search(query, name, now, most)]
    return [
        {
            "id": hit.memory.id,
            "score": round(hit.score, 5),
            "similarity": round(hit.similarity, 3),
            "covered": round(hit.covered, 3),
            "fits": hit.fits,
            **hit.memory.model_dump(mode="json"),
        }
        for hit in sorted(found, key=lambda hit: -hit.score)[:most]
    ]


def rebuilt(layer: Knowledge, on_progress: Callable[[int, int], None] = lambda done, whole: None) -> dict[str, Any]:
    """The index made anew; how many memories it has."""
    done = layer.rebuild(on_progress)
    return {"memories": done.added, "embedder": layer.embedder.name, "version": layer.sync()}
