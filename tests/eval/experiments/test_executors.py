"""Worker processes: the same lives as here, one failure sinks no other, and nothing outlives its parent."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from eval.errors import EvalError
from eval.experiments.executors import ray as on_ray
from eval.experiments.executors.choice import open_executor
from eval.experiments.executors.local import LocalExecutor
from tests.eval.experiments.works import Dies, Fails, Slow, alive, computed, jobs, threads, until

ROOT = Path(__file__).parents[3]


def mapped(executor: Any, work: Any, seeds: int) -> dict[str, Any]:
    return {done.key: done for done in executor.map(work, jobs(seeds))}


def test_lives_are_those_that_would_be_lived_here(capfd: pytest.CaptureFixture[str]) -> None:
    found = mapped(LocalExecutor(2), Fails((1,)), 4)
    for job in jobs(4):
        done = found[job.key]
        if job.given.seed == 1:
            assert (done.life, done.tries) == (None, 1)
            assert done.error.startswith("ValueError: seed 1 is unlucky\nTraceback")
            assert "works.py" in done.error
        else:
            assert done.life == computed(job.given)
    assert {done.worker.split(":")[1] for done in found.values()}.isdisjoint({str(os.getpid())})
    assert capfd.readouterr().out == ""  # what work prints must not get into the caller's JSON


def test_jobs_whose_workers_die_are_begun_again_up_to_a_limit_and_sink_no_other(tmp_path: Path) -> None:
    found = mapped(LocalExecutor(1), Dies(tmp_path, {1: 9, 2: 1}), 4)
    assert {job.given.seed: found[job.key].tries for job in jobs(4)} == {0: 1, 1: 3, 2: 2, 3: 1}
    lost = found[jobs(4)[1].key]
    assert lost.life is None
    assert re.fullmatch("its process was killed by SIGKILL, 3 times; .* memory ran out: use fewer workers", lost.error)
    assert all(found[job.key].life == computed(job.given) for job in jobs(4) if job.key != lost.key)


def test_work_that_cannot_be_sent_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match="use a function of a module"):
        list(LocalExecutor(1).map(lambda given: computed(given), jobs(1)))


def test_workers_have_one_thread() -> None:
    (done,) = LocalExecutor(1).map(threads, jobs(1))
    assert done.life is not None
    assert done.life.code == "1False"  # told before anything that reads it was imported


def pids(folder: Path, seed: int) -> list[int]:
    until((folder / f"pids-{seed}").exists)
    return [int(pid) for pid in (folder / f"pids-{seed}").read_text().split()]


def test_closing_ends_workers_and_what_they_started(tmp_path: Path) -> None:
    results = LocalExecutor(1).map(Slow(tmp_path, 300, since=1), jobs(3))
    with closing(results):
        assert next(results).life == computed(jobs(1)[0].given)
        living = pids(tmp_path, 1)
    until(lambda: not any(map(alive, living)), 10)


def test_workers_end_on_ctrl_c(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from eval.experiments.executors.local import LocalExecutor
from tests.eval.experiments.works import Slow, jobs
if __name__ == "__main__":
    list(LocalExecutor(1).map(Slow(Path(sys.argv[1]), 300), jobs(2)))
"""
    (tmp_path / "main.py").write_text(script)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, tmp_path / "main.py", tmp_path], env=environment, stderr=subprocess.DEVNULL)
    living = pids(tmp_path, 0)
    parent.send_signal(signal.SIGINT)  # to the parent alone; a killed one is a test of the runner
    parent.wait(10)
    until(lambda: not any(map(alive, living)), 10)
    assert not (tmp_path / "pids-1").exists()


def test_an_executor_is_chosen_by_its_name() -> None:
    assert open_executor("local", 3).name == "local:3"
    assert open_executor("local:2", 3).name == "local:2"
    for name, address in (("ray", "auto"), ("ray:local", "local"), ("ray:node:6379", "node:6379"), ("ray://n:1", "ray://n:1")):
        found = open_executor(name)
        assert isinstance(found, on_ray.RayExecutor)
        assert found.address == address
    for wrong in ("slurm", "local:", "local:x", "ray:", "ray://", "ray://host", "ray:host", ""):
        with pytest.raises(EvalError, match="it is one of local, local:N, ray"):
            open_executor(wrong)
    for spec, workers in (("local", 0), ("local:0", 1)):
        with pytest.raises(EvalError, match="at least"):
            open_executor(spec, workers)


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EvalError, match=r"pip install 'sleepy-agent\[ray\]'"):
        open_executor("ray:local")
