"""`sleepyctl demo`: one day, one night, the next day, in the pocket world; all of it real.

The second day brings new tasks in the same repositories. The frozen base plays it too, task by
task the same, so that the difference can be put down to the night.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from agent.model import Model, Sampling
from agent.models.engines import open_model, open_weights
from agent.sandbox.ladder import probe
from consolidation.adapters import AdapterStore
from consolidation.gate import Look
from consolidation.night import NightReport, Sleeper
from consolidation.pairs import Pair
from consolidation.skill import Publisher
from consolidation.synthesis.offline import OfflineSynthesiser
from consolidation.trainers.base import Progress as TrainingProgress
from consolidation.trainers.child import ChildTrainer
from daemon.arms import ArmResult, arms_table, play_arms
from daemon.body import utc_now
from daemon.config import Config
from daemon.days import DayResult, day_result, group
from daemon.sleeping import close_broken
from eval.coding.problems import data_folder
from eval.experience import lived_of_day
from eval.guards import compare, held_out_base_tasks
from eval.held_out import held_out_of
from eval.open_guards import open_guards
from eval.places import Places
from eval.play import Player, Routes
from eval.pocket.rehearsal import rehearsal_pairs
from eval.pocket.stream import PocketStream
from memory.knowledge.embedders import HashingEmbedder
from memory.store import Store
from memory.tasks import Task
from memory.trajectories import Trajectory


class NightResult(BaseModel):
    """What the night did. `sources` names whose solutions were learnt from."""

    pairs: int
    sources: dict[str, int]
    train_seconds: float
    loss_first: float
    loss_last: float
    verdict: str
    why: str
    numbers: dict[str, float]


class DayTwo(BaseModel):
    """The same new tasks, played by the frozen base and by what is live after the night."""

    tasks: int
    base: DayResult
    adapted: DayResult
    change: float
    change_low: float
    change_high: float


class DemoResult(BaseModel):
    """The one object that `--json` prints. Rates are pocket results, never SWE-bench results."""

    seed: int
    config_hash: str
    day1: DayResult
    night: NightResult
    day2: DayTwo
    arms: list[ArmResult] = []
    """With `--arms`: the second day of each arm."""
    wall_seconds: float
    home: str


@dataclass(frozen=True)
class Demo:
    """A demo run in a home folder."""

    home: Path
    seed: int
    tasks_per_day: int
    config: Config
    console: Console
    arms: bool = False
    """Also play the second day with what was remembered, with and without the adapters."""

    def run(self) -> DemoResult:
        """Day, night, day; the live routing table starts from the bare base."""
        began = time.monotonic()
        model = open_model(self.config.model, self.config.night.threads)
        sandbox = probe(trusted_generated=True)
        self.console.print(
            f"[bold]sleepy demo[/]  seed {self.seed}  model {model.name} {model.fingerprint}  sandbox {sandbox.name}"
        )
        self.home.mkdir(parents=True, exist_ok=True)
        with Store(self.home / "sleepy.db") as store:
            if interrupted := store.interrupted():
                self.console.print(f"{interrupted} attempts of an interrupted run are closed as infrastructure failures")
            while (night := store.open_night_now()) is not None:
                close_broken(store, night, "interrupted", utc_now())
                self.console.print("the open night of an interrupted run is closed")
            player = Player(model, sandbox, store, self.config.budget)
            first, second = self._days()
            publisher = Publisher(self.home / "live", AdapterStore(self.home / "adapters"))
            publisher.make_live({})
            day1 = self._play("day 1", player, store, first, first.tasks(), {}, self.config.day.attempts)
            report = self._night(model, player, store, publisher, first, day1, second)
            base = self._play("day 2, frozen base", player, store, second, second.tasks(), {})
            adapted = self._play("day 2, after the night", player, store, second, second.tasks(), publisher.routes())
            arms = self._arms(player, store, first, day1, second, publisher.routes(), base) if self.arms else []
        paired = compare(base, adapted)
        low, high = paired.interval()
        result = DemoResult(
            seed=self.seed,
            config_hash=report.night.config_hash,
            day1=day_result(first, _first_attempts(day1)),
            night=_night_result(report),
            day2=DayTwo(
                tasks=paired.n,
                base=day_result(second, base),
                adapted=day_result(second, adapted),
                change=round(-paired.drop, 4),
                change_low=round(low, 4),
                change_high=round(high, 4),
            ),
            arms=arms,
            wall_seconds=round(time.monotonic() - began, 1),
            home=str(self.home),
        )
        (self.home / "demo.json").write_text(result.model_dump_json(indent=2), encoding="utf-8")
        return result

    def _days(self) -> tuple[PocketStream, PocketStream]:
        repos = self.config.tasks.pocket_repos
        per_repo = max(2, self.tasks_per_day // len(repos))
        return PocketStream(self.seed, repos, per_repo), PocketStream(self.seed, repos, per_repo, start=per_repo)

    def _play(
        self,
        name: str,
        player: Player,
        store: Store,
        stream: PocketStream,
        tasks: Sequence[Task],
        routes: Routes,
        attempts: int = 1,
    ) -> list[Trajectory]:
        for task in tasks:
            store.add_task(task)
        played: list[Trajectory] = []
        with self._bar(name, len(tasks) * attempts) as advance:
            for number in range(attempts):
                sampling = Sampling() if number == 0 else Sampling(temperature=0.8, seed=self.seed + number)
                for trajectory in player.play(stream, tasks, routes, sampling):
                    played.append(trajectory)
                    advance(f"{sum(t.resolved for t in played)} of {len(played)} resolved")
        return played

    def _arms(
        self,
        player: Player,
        store: Store,
        first: PocketStream,
        day: Sequence[Trajectory],
        second: PocketStream,
        routes: Routes,
        base: Sequence[Trajectory],
    ) -> list[ArmResult]:
        def play(name: str, who: Player, serving: Routes) -> list[Trajectory]:
            return self._play(name, who, store, second, second.tasks(), serving)

        return play_arms(player, store, self.home, self.config, first, day, second, routes, play, base)

    def _night(
        self,
        model: Model,
        player: Player,
        store: Store,
        publisher: Publisher,
        stream: PocketStream,
        day: Sequence[Trajectory],
        tomorrow: PocketStream,
    ) -> NightReport:
        config = self.config.night.model_copy(update={"seed": self.seed})
        examiner = Player(model, player.sandbox, budget=self.config.budget, mixtures=self.home / "mixtures")
        repos = self.config.tasks.pocket_repos
        opened = open_guards(self.config.guard, examiner, data_folder(Places(self.home)), repos, self.seed)
        held_out = held_out_of(*held_out_base_tasks(self.seed, repos, self.config.guard.tasks))
        held_out |= held_out_of(tomorrow, tomorrow.tasks())
        with self._bar("night", 100) as advance:

            def collect() -> list[Pair]:
                told, teller = config.synthesis, OfflineSynthesiser()
                lived = lived_of_day(stream, day, player.sandbox, config.merged_fixes, store)
                pairs = [pair for each in lived for pair in teller.pairs(each, told.format, told.budget)]
                for repo in self.config.tasks.pocket_repos:
                    pairs += rehearsal_pairs(repo, config.rehearsal, config.seed)
                return pairs

            def on_step(repo: str, progress: TrainingProgress) -> None:
                advance(f"{repo}: loss {progress.loss:.3f}", 100 * progress.step / progress.steps)

            def on_look(look: Look) -> None:
                advance(f"{look.claim}: drop {look.drop:+.1%}, at most {look.bound:+.1%}", 100 * look.tasks / look.of)

            weights = open_weights(self.config.model)
            sleeper = Sleeper(
                config=config,
                base=weights.folder,
                base_hash=weights.hash,
                encode=weights.encode,
                context=config.context or self.config.model.tokens,
                trainer=ChildTrainer(name=self.config.model.trained_by),
                publisher=publisher,
                recorder=store,
                work=self.home / "work",
                answers=self.home / "answers",
                guards=lambda live: opened.guards,
                embed=HashingEmbedder().embed,
                verified={trajectory.id for trajectory in day if trajectory.resolved}.__contains__,
                on_step=on_step,
                on_look=on_look,
                on_phase=lambda phase: advance(phase, 0),
            )
            report = sleeper.sleep(collect, held_out)
            advance("done", 100)
        return report

    @contextmanager
    def _bar(self, name: str, total: int) -> Iterator[Callable[..., None]]:
        columns = (TextColumn(f"{name:<24}"), BarColumn(30), TextColumn("{task.fields[note]}"), TimeElapsedColumn())
        with Progress(*columns, console=self.console) as bar:
            task = bar.add_task("", total=total, note="")

            def advance(note: str, completed: float | None = None) -> None:
                bar.update(task, note=note, advance=1 if completed is None else None, completed=completed)

            yield advance

    def show(self, result: DemoResult) -> None:
        """The table a person understands."""
        table = Table(title="the second day: new tasks, same repositories", title_justify="left")
        for column in ("", "frozen base", "after the night", "change"):
            table.add_column(column, justify="left" if not column else "right")
        base, adapted = result.day2.base, result.day2.adapted
        for label, convention in (("house conventions", True), ("base skills", False)):
            b, a = group(base, convention), group(adapted, convention)
            table.add_row(label, f"{b.resolved} of {b.tasks}", f"{a.resolved} of {a.tasks}", f"{a.resolved - b.resolved:+d}")
        table.add_row(
            "all",
            f"{base.resolved} of {base.tasks}",
            f"{adapted.resolved} of {adapted.tasks}",
            f"{adapted.resolved - base.resolved:+d}",
        )
        self.console.print()
        self.console.print(table)
        if result.arms:
            self.console.print(arms_table(result.arms))
        day2, night = result.day2, result.night
        self.console.print(
            f"change {day2.change:+.1%}, 95 % interval {day2.change_low:+.1%} to {day2.change_high:+.1%}, one seed"
        )
        learnt = f"{night.pairs} examples ({_sources(night.sources)})"
        loss = f"loss {night.loss_first:.3f} -> {night.loss_last:.3f}"
        self.console.print(f"night: {learnt}, {loss}, {night.train_seconds:.0f} s of training")
        self.console.print(f"verdict: [bold]{night.verdict}[/] because {night.why}")
        self.console.print(f"everything lies in {result.home}: sleepy.db (trajectories, nights), adapters/, live/, demo.json")
        self.console.print(f"took {result.wall_seconds:.0f} s; pocket results, not SWE-bench results")


def _first_attempts(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    first: dict[str, Trajectory] = {}
    for trajectory in trajectories:
        first.setdefault(trajectory.task_id, trajectory)
    return list(first.values())


def _night_result(report: NightReport) -> NightResult:
    night = report.night
    assert night.verdict is not None
    return NightResult(
        pairs=night.pairs,
        sources=night.sources,
        train_seconds=round(night.train_seconds or 0.0, 1),
        loss_first=round(night.loss_first or 0.0, 4),
        loss_last=round(night.loss_last or 0.0, 4),
        verdict="promoted" if night.verdict.promoted else "rejected",
        why=night.verdict.why,
        numbers=night.verdict.numbers,
    )


def _sources(sources: dict[str, int]) -> str:
    names = {"agent": "own successes", "merged_fix": "merged fixes of tasks that were over"}
    return ", ".join(f"{count} {names.get(source, source)}" for source, count in sorted(sources.items()))
