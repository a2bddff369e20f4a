"""What a night learns from: the latest results, where their tasks can be opened, told as pairs by whoever makes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from agent.models.engines import open_weights
from agent.sandbox.base import Sandbox
from agent.sandbox.ladder import probe
from consolidation.mixture.serving import Served
from consolidation.pairs import Pair
from consolidation.skill import adapter_for
from consolidation.synthesis.by_model import pairs_of_night
from consolidation.synthesis.choice import close_synthesiser, open_synthesiser
from consolidation.synthesis.offline import OfflineSynthesiser
from consolidation.synthesis.seam import Lived, Synthesiser
from consolidation.trainers.base import Job, Trainer
from daemon.events import Event
from daemon.plan import replay
from eval.errors import EvalError
from eval.experience import lived_of_day
from eval.files import FileStream
from eval.pocket.rehearsal import rehearsal_pairs
from eval.sources import PocketSource
from eval.streams import TaskStream
from eval.task_items import Place
from memory.knowledge.forgetting import REASON as FORGOTTEN
from memory.trajectories import Result

if TYPE_CHECKING:
    from daemon.work import Work

Stream = tuple[Callable[[str], bool], Callable[[list[str]], TaskStream], Callable[[], Sandbox]]
"""Whether a task is of it, the stream of some of its tasks, and what their programs run in."""


class NightPairs:
    """What the nights of one `Work` learn from. `trainer` measures losses under the base, where a synthesiser needs them."""

    def __init__(self, work: Work, trainer: Trainer, context: int) -> None:
        self.work, self.trainer, self.context = work, trainer, context
        self.home, self.config, self.store = work.home, work.config, work.store

    @property
    def free(self) -> bool:
        """Whether no model makes the pairs."""
        return self.config.night.synthesis.source == "offline" or self.config.night.synthesis.format == "T"

    def offline(self) -> tuple[list[Lived], list[Pair]]:
        """What was lived, and the pairs that rules make of it, rehearsal included."""
        lived, synthesis = self._lived(), self.config.night.synthesis
        teller = OfflineSynthesiser()
        return lived, [p for each in lived for p in teller.pairs(each, synthesis.format, synthesis.budget)] + self._rehearsed()

    def all(self, night: str) -> list[Pair]:
        """All pairs of a night; those of a model are made once, also if the night is broken off.

        Raises:
            SynthesisError, ModelUnavailable: the model that makes them cannot be used.
        """
        if self.free:
            return self.offline()[1]
        synthesis = self.config.night.synthesis
        serving = Served(self.home.mixtures)
        routes = self.work.routes() if synthesis.source in ("self", "hybrid") else {}
        groups: dict[Path | None, list[Lived]] = {}
        for lived in self._lived():
            adapter = adapter_for(routes, lived.task.repo)
            served = serving.route(adapter, lived.task) if adapter is not None else None
            groups.setdefault(served, []).append(lived)
        made: list[Pair] = []
        problems: Counter[str] = Counter()
        try:
            for folder, group in groups.items():
                self.work.model.use(folder)
                with ExitStack() as stack:
                    teller = self._teller(night)
                    stack.callback(close_synthesiser, teller)
                    made += pairs_of_night(teller, group, synthesis.format, synthesis.budget)
                    problems.update(getattr(teller, "problems", {}))
        finally:
            self.work.model.use(None)
        self.work.emit(Event.NIGHT_PAIRS, pairs=len(made), by=synthesis.source, problems=dict(sorted(problems.items())))
        return made + self._rehearsed()

    def _teller(self, night: str) -> Synthesiser:
        weights = open_weights(self.config.model)
        job = Job(base=weights.folder, base_hash=weights.hash, threads=self.config.night.threads, context=self.context)
        return open_synthesiser(
            self.config.night.synthesis,
            self.store,
            self.work.model,
            weights.encode,
            lambda examples: self.trainer.loss(job, examples),
            context=self.context,
            account=night,
            night=sum(each.ended_at is not None for each in self.store.nights()),
            pause=self.work.pause,
        )

    def _rehearsed(self) -> list[Pair]:
        night, tasks = self.config.night, self.config.tasks
        repos = tasks.pocket_repos if isinstance(self.work.source, PocketSource) else ()
        return [pair for repo in repos for pair in rehearsal_pairs(repo, night.rehearsal, night.seed)]

    def _streams(self, ids: Sequence[str]) -> list[Stream]:
        """Where tasks come from. What an earlier configuration's stream gave cannot be opened any more; it is in none."""
        own = self.work.sound([identity for identity in ids if (self.home.tasks / f"{identity}.json").is_file()])
        pocket, source = PocketSource(self.config.tasks), self.work.source
        streams: list[Stream] = [
            (pocket.has, pocket.stream, pocket.sandbox),
            (own.__contains__, lambda ids: FileStream(self.home.tasks, ids), lambda: probe(trusted_generated=False)),
        ]
        if not isinstance(source, PocketSource):
            streams.append((source.has, source.stream, source.sandbox))
        return streams

    def open_tasks(self, ids: Sequence[str]) -> list[Place]:
        """Streams that hold these tasks, as far as they can be opened here."""
        places: list[Place] = []
        for has, stream, sandbox in self._streams(ids):
            try:
                if theirs := [identity for identity in ids if has(identity)]:
                    opened = stream(theirs)
                    places.append(Place(opened, sandbox(), tuple(opened.tasks())))
            except EvalError:  # what its stream is made of is no longer here
                continue
        return places

    def _lived(self) -> list[Lived]:
        """What the latest results gave to learn from."""
        chosen = replay(self.store.results(), self.config)
        lived: list[Lived] = []
        for has, stream, sandbox in self._streams([result.task_id for result in chosen]):
            if theirs := [result for result in chosen if has(result.task_id)]:
                lived += self._lived_in(stream([result.task_id for result in theirs]), theirs, sandbox())
        return lived

    def _lived_in(self, stream: TaskStream, results: Sequence[Result], sandbox: Sandbox) -> list[Lived]:
        played = [self.store.trajectory(result.trajectory_id) for result in results]
        played = [trajectory for trajectory in played if trajectory.reason != FORGOTTEN]
        terse, safe = self.work.model.speaks == "terse", self.work.safe_points()
        return lived_of_day(stream, played, sandbox, self.config.night.merged_fixes, safe, terse)
