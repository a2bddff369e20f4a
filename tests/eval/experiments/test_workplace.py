"""Where a process works: what the dead left behind goes, what the living work in stays."""

import errno
import fcntl
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from eval.experiments.workplace import workplace


def _work(parent: Path, name: str, began: Any, end: Any) -> None:
    with workplace(parent, name) as work:
        (work / "adapter").write_text("half")
        began.set()
        end.recv()


def test_what_the_dead_left_is_swept_and_what_the_living_hold_stays(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ends = {name: context.Pipe() for name in ("dead-1", "living-2")}
    began = {name: context.Event() for name in ends}
    workers = {name: context.Process(target=_work, args=(tmp_path, name, each, ends[name][0])) for name, each in began.items()}
    try:
        for name, worker in workers.items():
            worker.start()
            assert began[name].wait(30)
        assert {each.name for each in tmp_path.iterdir()} == {"dead-1", "living-2"}  # neither swept the other
        pid = workers["dead-1"].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        workers["dead-1"].join(30)
        assert (tmp_path / "dead-1" / "adapter").exists()
        with workplace(tmp_path, "mine-3") as mine:
            assert list(mine.iterdir()) == []
            assert {each.name for each in tmp_path.iterdir()} == {"living-2", "mine-3"}
    finally:
        ends["living-2"][1].send("go")
        workers["dead-1"].kill()
        for worker in workers.values():
            worker.join(30)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_the_same_name_is_empty_again(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    with workplace(tmp_path, "a") as work:
        assert list(work.iterdir()) == []


def test_without_locks_nothing_but_its_own_name_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    (tmp_path / "other").mkdir()
    (tmp_path / "mine" / "half").mkdir(parents=True)
    with workplace(tmp_path, "mine") as work:
        assert list(work.iterdir()) == []
        assert (tmp_path / "other").exists()
