"""The runner: every life once, each failure by itself, and nothing lost but what was going on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from eval.errors import EvalError
from eval.experiments.crosschecks import crosscheck
from eval.experiments.executor import Done, Job, Work
from eval.experiments.executors.attempt import attempt, packed
from eval.experiments.executors.local import LocalExecutor
from eval.experiments.ledger import Ledger
from eval.experiments.life import Life, LifeConfig
from eval.experiments.plan import Experiment, Size
from eval.experiments.runner import Progress, Ran, run
from tests.eval.experiments.works import MODEL, Fails, alive, computed, experiment, until

ROOT = Path(__file__).parents[3]
NOW = datetime(2026, 1, 2, tzinfo=UTC)


@dataclass
class Here:
    """Lives one life after another in this process."""

    name: str = "here"
    workers: int = 1
    asked: list[str] = field(default_factory=list)

    def map(self, work: Work, jobs: Sequence[Job[LifeConfig]]) -> Iterator[Done]:
        body = packed(work)
        for job in jobs:
            self.asked.append(job.key)
            found = attempt(body, job.given)
            yield Done(job.key, None, found) if isinstance(found, str) else Done(job.key, found)


def ran(lab: Path, work: Work = computed, planned: Experiment | None = None, **changes: Any) -> tuple[Ran, list[str]]:
    """A run, and the digests of the lives that it lived."""
    executor = Here()
    given: dict[str, Any] = {"lab": lab, "executor": executor, "work": work, "model": lambda config: MODEL, "now": lambda: NOW}
    return run(planned or experiment(), "pocket", **given | changes), executor.asked


def test_what_was_lived_is_not_lived_again(tmp_path: Path) -> None:
    first, asked = ran(tmp_path)
    cells = experiment().cells("pocket")
    assert asked == [cell.life.digest(MODEL) for cell in cells]
    assert (first.there, first.lived, first.failed, first.warnings) == (0, 6, {}, ())
    with Ledger(tmp_path, read_only=True) as ledger:
        assert ledger.lives(first.registration, "pocket") == {cell.name: computed(cell.life) for cell in cells}
    again, asked = ran(tmp_path)
    assert (again.there, again.lived, asked) == (6, 0, [])


def test_cells_of_one_life_are_lived_once(tmp_path: Path) -> None:
    twice = experiment(
        references=(*experiment().references, *(v.model_copy(update={"name": "b"}) for v in experiment().references))
    )
    result, asked = ran(tmp_path, planned=twice)
    assert (len(result.cells), len(asked), result.lived) == (8, 6, 6)
    with Ledger(tmp_path, read_only=True) as ledger:
        lives = ledger.lives(result.registration, "pocket")
    assert lives["plain/seed 0"] == lives["b/seed 0"]


def test_a_failing_cell_is_reported_sinks_no_other_and_is_tried_again_last(tmp_path: Path) -> None:
    told: list[Progress] = []
    first, _ = ran(tmp_path, Fails((0,)), on_progress=told.append)
    assert (first.lived, len(first.failed)) == (3, 3)
    assert all(why.startswith("ValueError: seed 0 is unlucky\n") for why in first.failed.values())
    assert [(each.done, each.failed, each.total) for each in told][-1] == (3, 3, 6)
    assert told[1].error.startswith("ValueError")
    more = experiment().model_copy(update={"sizes": {"pocket": experiment().sizes["pocket"]}})
    second, asked = ran(tmp_path, planned=more, seeds=3)
    assert (second.there, second.lived, second.failed) == (3, 6, {})
    assert asked == [cell.life.digest(MODEL) for seed in (2, 0) for cell in more.cells("pocket", 3) if cell.seed == seed]
    with Ledger(tmp_path, read_only=True) as ledger:
        assert ledger.cells(first.registration, "pocket")["plain/seed 0"].tries == 2


def test_remaining_seconds_are_those_that_lives_of_the_variant_took(tmp_path: Path) -> None:
    told: list[Progress] = []

    def work(config: LifeConfig) -> Life:
        return computed(config).model_copy(update={"seconds": 10.0 if config.guards else 4.0})

    executor = _Direct(work)
    run(
        experiment(),
        "pocket",
        lab=tmp_path,
        executor=executor,
        work=computed,
        model=lambda config: MODEL,
        on_progress=told.append,
    )
    # Plain and centre take 10 seconds, guards=False 4; before the first has ended, the registered minute is all there is.
    assert [each.remaining for each in told] == pytest.approx([360 / 2, 50 / 2, 40 / 2, 24 / 2, 14 / 2, 4 / 2, 0])


@dataclass
class _Direct:
    """Two workers' worth of a function of this test."""

    does: Callable[[LifeConfig], Life]
    name: str = "direct"
    workers: int = 2

    def map(self, work: Work, jobs: Sequence[Job[LifeConfig]]) -> Iterator[Done]:
        for job in jobs:
            yield Done(job.key, self.does(job.given))


def test_a_life_with_problems_or_of_another_configuration_counts_for_nothing(tmp_path: Path) -> None:
    def work(config: LifeConfig) -> Life:
        life = computed(config)
        if not config.guards:
            return life.model_copy(update={"problems": ("it was taught the exam",)})
        return life if config.seed else computed(config.model_copy(update={"seed": 7}))

    result, _ = ran(tmp_path, executor=_Direct(work))
    assert result.lived == 2
    assert result.failed["guards=False/seed 1"] == "refused by the runner's own checks: it was taught the exam"
    assert "another one's" in result.failed["plain/seed 0"]


def test_a_changed_registration_is_a_new_version_and_says_so(tmp_path: Path) -> None:
    ran(tmp_path)
    result, asked = ran(tmp_path, planned=experiment(hypothesis="What came out."), now=lambda: NOW + timedelta(days=1))
    assert (result.registration.version, asked) == (2, [])
    seen, before = sorted(result.warnings, key=lambda text: "before" in text)
    assert seen.startswith("version 2 was registered after 6 lives of earlier versions had ended")
    assert before.startswith("6 of 6 lives were there before this registration was locked")
    same, _ = ran(tmp_path, seeds=1)
    assert same.registration.version == 1
    assert same.warnings == ("run with 1 seeds instead of the 2 that were registered",)


def test_another_model_is_another_life(tmp_path: Path) -> None:
    ran(tmp_path)
    result, asked = ran(tmp_path, model=lambda config: "another")
    assert len(asked) == 6
    assert any("changed under 6 cells" in text for text in result.warnings)


def test_lives_that_shared_a_folder_are_refused_and_differences_of_code_are_told(tmp_path: Path) -> None:
    def work(config: LifeConfig) -> Life:
        life = computed(config)
        night = life.nights[0].model_copy(update={"adapters": {"r": "one"} if config.guards else {"r": f"of {config.seed}"}})
        return life.model_copy(update={"nights": (night,), "code": f"code of {config.seed}"})

    result, _ = ran(tmp_path, executor=_Direct(work))
    assert set(result.failed) == {f"{variant}/seed {seed}" for variant in ("plain", "centre") for seed in (0, 1)}
    assert all("adapter one is of centre/seed 0 and of centre/seed 1" in why for why in result.failed.values())
    assert any("2 different states of the code" in text for text in result.warnings)


def test_lives_of_other_code_are_taken_with_a_warning_or_lived_again(tmp_path: Path) -> None:
    def by(code: str) -> _Direct:
        return _Direct(lambda config: computed(config).model_copy(update={"code": code}))

    ran(tmp_path, executor=by("old"), seeds=1)
    told: list[Progress] = []
    mixed, _ = ran(tmp_path, executor=by("new"), code="new", on_progress=told.append)
    assert (mixed.there, mixed.lived) == (3, 3)
    assert told[0].warning == "3 of 3 lives were lived by other code (old: 3) than this (new); --again lives them anew"
    assert "3 of 6 lives were lived by other code (old: 3) than this (new); --again lives them anew" in mixed.warnings
    (pairs,) = [text for text in mixed.warnings if "2 different states of the code" in text]
    assert "in 0 of 2 seeds and places variants of different code are compared" in pairs  # each seed is of one code
    again, _ = ran(tmp_path, executor=by("new"), code="new", again=True)
    assert (again.there, again.lived) == (3, 3)
    assert not any("code" in text for text in again.warnings)
    with Ledger(tmp_path, read_only=True) as ledger:
        assert {life.code for life in ledger.lives(again.registration, "pocket").values()} == {"new"}
    same, asked = ran(tmp_path, code="new", again=True)
    assert (same.there, asked) == (6, [])


def test_variants_of_different_code_that_are_compared_are_counted(tmp_path: Path) -> None:
    def work(config: LifeConfig) -> Life:
        return computed(config).model_copy(update={"code": "odd" if config.seed and not config.guards else "even"})

    result, _ = ran(tmp_path, executor=_Direct(work))
    assert any("in 1 of 2 seeds and places variants of different code are compared" in text for text in result.warnings)


def test_what_is_to_be_lived_again_counts_for_nothing_until_it_is(tmp_path: Path) -> None:
    ran(tmp_path)

    def stops(config: LifeConfig) -> Life:
        if config.seed:
            raise KeyboardInterrupt
        return computed(config).model_copy(update={"code": "new"})

    with pytest.raises(KeyboardInterrupt):
        ran(tmp_path, executor=_Direct(stops), code="new", again=True)
    result, asked = ran(tmp_path, code="new")
    assert (result.there, len(asked), result.lived) == (3, 3, 3)


def test_settings_without_effect_are_told() -> None:
    planned = experiment(
        references=(),
        factors=(experiment().factors[0].model_copy(update={"setting": "night.seed", "levels": (1, 2), "centre": 1}),),
    )
    cells = {cell.name: cell for cell in planned.cells("pocket")}
    lives = {name: computed(cell.life) for name, cell in cells.items()}
    assert crosscheck(cells, lives).warnings == []
    night = lives["centre/seed 0"].nights
    lives["guards=2/seed 0"] = lives["guards=2/seed 0"].model_copy(update={"nights": night})
    (said,) = crosscheck(cells, lives).warnings
    assert (
        said == "variants centre and guards=2 trained the same adapters in 1 of their cells: what tells them apart did nothing"
    )


def test_nothing_is_begun_where_the_registration_is_wrong_or_another_runner_works(tmp_path: Path) -> None:
    wrong = experiment(sizes={"pocket": Size(seeds=1, design={"kind": "split"}, minutes=1, machine="any")})
    with pytest.raises(EvalError, match=r"cell plain/seed 0: design.split.repo"):
        ran(tmp_path, planned=wrong)
    assert not (tmp_path / "lab.db").exists()
    wrong = experiment(measures=("forward_transfr",))
    with pytest.raises(EvalError, match=r"exp99, measures: no measure 'forward_transfr'; did you mean forward_transfer\?"):
        ran(tmp_path, planned=wrong)
    assert not (tmp_path / "lab.db").exists()
    with Ledger(tmp_path), pytest.raises(EvalError, match="another runner"):
        ran(tmp_path)


SCRIPT = """
import sys
from pathlib import Path
from eval.experiments.executors.local import LocalExecutor
from eval.experiments.runner import run
from tests.eval.experiments.works import MODEL, Slow, experiment
if __name__ == "__main__":
    lab = Path(sys.argv[1])
    run(experiment(), "pocket", lab=lab, executor=LocalExecutor(1), work=Slow(lab, 300, since=1), model=lambda config: MODEL)
"""


def kept(lab: Path) -> int:
    with Ledger(lab, read_only=True) as ledger:
        return len(ledger.digests())


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_is_killed_loses_what_was_going_on_and_no_more(tmp_path: Path, how: signal.Signals) -> None:
    (tmp_path / "main.py").write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    runner = subprocess.Popen([sys.executable, tmp_path / "main.py", tmp_path], env=environment, stderr=subprocess.DEVNULL)
    until((tmp_path / "pids-1").exists)
    until(lambda: kept(tmp_path) == 3)  # a life that has ended is written after the next one has begun
    living = [int(pid) for pid in (tmp_path / "pids-1").read_text().split()]
    runner.send_signal(how)
    runner.wait(10)
    result, asked = ran(tmp_path)
    assert (result.there, len(asked), result.lived, result.failed) == (3, 3, 3, {})
    until(lambda: not any(map(alive, living)), 10)


@pytest.mark.slow
def test_a_real_life_is_lived_by_a_worker_and_not_twice(tmp_path: Path) -> None:
    design = {"kind": "split", "repo": "farm", "split": "A", "tasks": 12}
    settings = {"skills": 2, "night.lora.epochs": 1, "night.threads": 1}
    size = {"seeds": 1, "design": design, "settings": settings, "minutes": 1, "machine": "one CPU core"}
    plan = experiment(references=(), factors=(), sizes={"pocket": size})
    first = run(plan, "pocket", lab=tmp_path, executor=LocalExecutor(1))
    assert (first.lived, first.failed) == (1, {})
    with Ledger(tmp_path, read_only=True) as ledger:
        (life,) = ledger.lives(first.registration, "pocket").values()
    assert {row.attempt.repo for row in life.exams} == {"farm"}
    again = run(plan, "pocket", lab=tmp_path, executor=LocalExecutor(1))
    assert (again.there, again.lived) == (1, 0)
