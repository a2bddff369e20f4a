"""The work itself, wherever it runs: the next tasks of the day, and one night.

Everything that needs a model lives behind this module and runs in the worker process, so that
the daemon stays small and a crash here costs nothing but time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from agent.errors import ModelUnavailable, SandboxError
from agent.loop import Recorder
from agent.models.engines import ModelConfig, open_model, open_weights
from agent.sandbox.ladder import probe
from consolidation.adapters import AdapterStore
from consolidation.mixture.serving import is_mixture
from consolidation.publishing import PublishError
from consolidation.publishing.ollama import OllamaPublisher
from consolidation.skill import Publisher, adapter_for
from daemon.config import Config
from daemon.events import Event
from daemon.home import Home
from daemon.knowing import Knowing
from daemon.night_work import NightWork
from daemon.plan import own_tasks
from daemon.recording import DayRecorder, SafePoints
from daemon.worker import Request
from eval.errors import EvalError
from eval.files import FileStream, damaged
from eval.guards import held_out_base_tasks
from eval.koans import held_out
from eval.play import Player
from eval.sources import PocketSource, open_source
from eval.streams import TaskStream
from eval.watch import is_control
from memory.knowledge.seam import KnowledgeLayer, NoKnowledge
from memory.store import Store
from memory.tasks import MergedFix, Task
from memory.trajectories import Outcome

Emit = Callable[..., None]
"""Called with an event's name and its fields."""
CANARY_TOKENS = 64
MIXTURE = "Ollama cannot choose among the experts of a mixture; `sleepyctl adapters rollback`, or serve it with torch: or mlx:"


class Stopped(BaseException):
    """The owner wants an end; what is open stays open and is taken up again.

    No `Exception`: nothing on the way may take it for a failure.
    """


class Work:
    """Day and night on one state directory. `stopping` is asked at every safe point."""

    def __init__(self, home: Home, config: Config, store: Store, emit: Emit, stopping: Callable[[], bool]) -> None:
        self.home, self.config, self.store, self.emit = home, config, store, emit
        self.stopping = stopping
        self.source = open_source(config.tasks, home.places)
        self.sandbox = probe(trusted_generated=True)
        self.server = server_of(home, config.model)
        self.model = open_model(config.model, config.night.threads, self.server.provide if self.server else None)
        self.publisher = Publisher(home.live, AdapterStore(home.adapters), self.align)
        self._left_out: dict[str, str] = {}
        self.knowing = Knowing(home, config, store, emit, self.model, self._fix, self._belongs, self._held_out)

    def align(self, routes: Mapping[str, Path]) -> None:
        """Have the server's aliases lead to what is, or is about to be, live; nothing to do for engines in this process.

        Raises:
            PublishError, ModelUnavailable: it cannot, for some scope; doing it again does no harm.
        """
        if self.server is None:
            return
        if any(is_mixture(folder) for folder in routes.values()):
            raise PublishError(MIXTURE)
        try:
            for scope in {*self.server.scopes(), *routes}:
                folder = adapter_for(routes, scope)
                self.server.make_live(scope, self.server.base if folder is None else self.server.publish(folder).tag)
        except PublishError as error:
            if isinstance(error.__cause__, ModelUnavailable):
                raise ModelUnavailable(str(error)) from error
            raise

    def checkpoint(self) -> None:
        """A safe point: raises `Stopped` if the owner wants an end."""
        if self.stopping():
            raise Stopped

    def do(self, request: Request) -> dict[str, Any]:
        """Carry out a request of the daemon's; what there is to tell of it."""
        if request.do == "play":
            return self.play(request.count)
        if request.do == "night":
            return NightWork(self).hold(self.store.open_night_now())
        if request.do == "rehearse":
            return NightWork(self).rehearse()
        if request.do == "align":
            self.align(self.routes())
            return {}
        return self.knowing.asked(request.do, request.query, request.repo, request.count)

    def close(self) -> None:
        """Let go of what is held open."""
        self.knowing.close()
        for held in (self.model, self.server):
            if (close := getattr(held, "close", None)) is not None:
                close()

    def routes(self) -> dict[str, Path]:
        """What serves which repository, for the arm: live adapters that were trained, and so guarded, on this base."""
        table = self.publisher.live() if self.config.arm.adapts else {}
        fitting = self.publisher.fitting(table, self.base) if table and self.base else table
        left_out = {repo: identity for repo, identity in table.items() if repo not in fitting}
        if left_out and left_out != self._left_out:
            why = f"trained on another base model than {self.base}; configure their own base, or sleep to train on this one"
            self.emit(Event.ADAPTER_LEFT_OUT, adapters=left_out, why=why)
        self._left_out = left_out
        return self.publisher.routes(fitting)

    @cached_property
    def base(self) -> str:
        """Hash of the weights that answer; empty where a server keeps them to itself."""
        return open_weights(self.config.model).hash if self.config.model.weights is not None else ""

    def _knowledge(self) -> KnowledgeLayer:
        """What attempts may ask: all that is over is remembered before."""
        if not self.config.arm.recalls:
            return NoKnowledge()
        self.knowing.catch_up(self.checkpoint)
        return self.knowing.layer()

    def play(self, count: int) -> dict[str, int]:
        """Work on the next `count` tasks at once; each ends in one result, unless the infrastructure failed.

        The watch's controls are worked on by the bare base, whatever is live.
        """
        done = {result.task_id for result in self.store.results()}
        own = self.sound(own_tasks(self.store, self.home, done)[:count])
        sandbox, held = self.sandbox, 0
        stream: TaskStream | None = None
        if own:
            try:
                sandbox, stream = probe(trusted_generated=False), FileStream(self.home.tasks, own)
            except SandboxError:
                held = len(own)
        if stream is None:
            sandbox = self.source.sandbox()
            stream = self.source.stream(self.source.next(done, count))
            self.store.add_tasks(stream.tasks())
        arm = self.config.arm
        player = Player(
            self.model,
            sandbox,
            DayRecorder(self),
            self.config.budget,
            knowledge=self._knowledge(),
            arm=arm,
            mixtures=self.home.mixtures,
        )
        controls = [task for task in stream.tasks() if is_control(task.id, self.config.watch.control_share)]
        others = [task for task in stream.tasks() if task not in controls]
        ended = [*player.play(stream, others, self.routes()), *player.play(stream, controls)]
        if arm.recalls:
            self.knowing.catch_up(self.checkpoint)
        return {
            "taken": len(stream.tasks()),
            "resolved": sum(t.resolved for t in ended),
            "failed": sum(t.outcome is Outcome.INFRASTRUCTURE_FAILURE for t in ended),
            "held": held,
        }

    def sound(self, own: list[str]) -> list[str]:
        """Those whose file can be read; a damaged one is put aside, so that it holds up nothing."""
        lost = damaged(self.home.tasks, own)
        for identity, why in lost.items():
            path = self.home.tasks / f"{identity}.json"
            path.replace(path.with_suffix(".damaged"))
            self.emit(Event.INBOX_REJECTED, file=path.name, error=why)
        return [identity for identity in own if identity not in lost]

    def pause(self, seconds: float) -> None:
        """Wait, and stop waiting where the owner wants an end."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.checkpoint()
            time.sleep(min(left, 1.0))
        self.checkpoint()

    def safe_points(self) -> Recorder:
        """A recorder that keeps nothing, and makes every step a safe point."""
        return SafePoints(self)

    def _held_out(self) -> frozenset[str]:
        """Ids of tasks that are examined, and so neither learnt from nor remembered."""
        tasks = self.config.tasks
        _, examined = held_out_base_tasks(tasks.seed, tasks.pocket_repos, self.config.guard.tasks)
        return frozenset(task.id for task in examined) | frozenset(held_out())

    def _belongs(self, task_id: str) -> bool:
        """Whether a task is one of the configured stream, or of the owner's own."""
        if (self.home.tasks / f"{task_id}.json").is_file():
            return True
        if isinstance(self.source, PocketSource):
            return self.source.has(task_id) and task_id.split("-")[-2] == str(self.config.tasks.seed)
        try:
            return self.source.has(task_id)
        except EvalError:  # what the stream is made of is no longer here
            return False

    def _fix(self, task: Task) -> MergedFix | None:
        """What upstream merged for a task that is over, if that is known here."""
        try:
            if (self.home.tasks / f"{task.id}.json").is_file():
                return FileStream(self.home.tasks, [task.id]).merged_fix(task)
            pocket = PocketSource(self.config.tasks)
            source = pocket if pocket.has(task.id) else self.source
            return source.stream([task.id]).merged_fix(task) if source.has(task.id) else None
        except EvalError:  # what its stream is made of is no longer here
            return None


def server_of(home: Home, config: ModelConfig) -> OllamaPublisher | None:
    """What has adapters served, where that is not this process."""
    if config.engine.kind != "ollama":
        return None
    return OllamaPublisher(
        config.host,
        config.engine.name,
        home.root / "ollama",
        context=config.tokens,
        tokens=CANARY_TOKENS,
        timeout=config.timeout_seconds,
    )
