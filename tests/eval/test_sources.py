"""Task sources: what comes next in each, what is theirs, and what is said where something is missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from agent.errors import SandboxError
from agent.sandbox.base import Limits
from agent.workspace import Workspace
from eval.errors import EvalError
from eval.koans import days, held_out
from eval.places import Places, name_of
from eval.sources import InImages, open_source
from eval.swebench.dataset import Order
from eval.task_config import TasksConfig

DATA = Path(os.environ.get("SLEEPYD_DATA", Path(__file__).parents[3] / "shared" / "data")) / "swe-bench-cl.json"


def test_koans_come_in_order_none_twice_and_none_that_is_held_out(tmp_path: Path) -> None:
    source = open_source(TasksConfig(source="koans"), Places(tmp_path))
    first = source.next(frozenset(), 3)
    assert first == list(days()[:3])
    assert source.next(set(first), 100) == list(days()[3:])
    assert open_source(TasksConfig(source="koans", count=2), Places(tmp_path)).next(frozenset(), 9) == list(days()[:2])
    assert [task.id for task in source.stream(first).tasks()] == first
    assert source.has(first[0])
    assert not source.has(held_out()[0])


def test_the_pocket_source_ends_only_where_it_is_told_to(tmp_path: Path) -> None:
    source = open_source(TasksConfig(count=1), Places(tmp_path))
    assert source.next(frozenset(), 9) == ["bank-stream-0-0", "game-stream-0-0"]
    assert source.has("game-stream-7-12")
    assert not source.has("django__django-10097")


@pytest.mark.skipif(not DATA.is_file(), reason=f"no {DATA}: `sleepyctl data fetch swe-bench-cl` gets it")
def test_the_benchmark_comes_by_repository_and_in_either_order(tmp_path: Path) -> None:
    places = Places(tmp_path)
    places.data.mkdir()
    (places.data / DATA.name).symlink_to(DATA)
    every = open_source(TasksConfig(source="swe-bench-cl"), places)
    assert len(every.next(frozenset(), 999)) == 273
    some = TasksConfig(source="swe-bench-cl", repos=("pytest-dev/pytest", "xarray"), count=30)
    by_file = open_source(some, places).next(frozenset(), 999)
    by_date = open_source(some.model_copy(update={"order": Order.CHRONOLOGICAL}), places).next(frozenset(), 999)
    assert len(by_file) == len(by_date) == 30
    assert by_file != by_date
    tasks = {task.id: task for task in every.stream(every.next(frozenset(), 999)).tasks()}
    assert [tasks[i].created_at for i in by_date] == sorted(tasks[i].created_at for i in by_date)
    again = {task.id: task for task in open_source(some, places).stream(by_file).tasks()}
    assert all(tasks[i] == again[i] for i in by_file), "a task is the same whatever was chosen"
    other = some.model_copy(update={"order": Order.CHRONOLOGICAL})
    assert len({open_source(config, places).stream(by_file).name for config in (some, other)}) == 2
    with pytest.raises(EvalError, match="no repository 'flask'"):
        open_source(TasksConfig(source="swe-bench-cl", repos=("flask",)), places).next(frozenset(), 1)


def test_what_is_missing_is_named_with_the_command_that_brings_it(tmp_path: Path) -> None:
    with pytest.raises(EvalError, match="data fetch swe-bench-cl"):
        open_source(TasksConfig(source="swe-bench-cl"), Places(tmp_path)).next(frozenset(), 1)
    with pytest.raises(EvalError, match=r"tasks mine \S*project"):
        open_source(TasksConfig(source=f"repo:{tmp_path}/project"), Places(tmp_path)).examine()


@pytest.mark.parametrize("source", ["", "swebench", "repo:", "repo", "Pocket"])
def test_no_other_source_is_taken(source: str) -> None:
    with pytest.raises(ValidationError, match=r"valid is|needs a path"):
        TasksConfig(source=source)


def test_pocket_names_are_only_asked_of_the_pocket_world() -> None:
    with pytest.raises(ValidationError, match="did you mean"):
        TasksConfig(repos=("bnk",))
    assert TasksConfig(source="koans", repos=("django/django",)).pocket_repos == ("bank", "game")
    with pytest.raises(ValidationError, match="no repository's name"):
        TasksConfig(source="swe-bench-cl", repos=("../x",))


def test_repositories_are_called_after_their_folder(tmp_path: Path) -> None:
    (tmp_path / "my project!").mkdir()
    assert name_of(tmp_path / "my project!") == "my-project"
    assert name_of(Path("/")) == "repository"


def test_images_of_tasks_run_nothing_without_a_task(tmp_path: Path) -> None:
    with pytest.raises(SandboxError):
        InImages().run(["true"], Workspace(tmp_path), Limits())
