"""A real Ray cluster of three node processes, one of which is killed in the middle: the lives are those lived here."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from eval.errors import EvalError
from eval.experiments.executor import Job, Resources
from eval.experiments.executors import ray as on_ray
from eval.experiments.executors.attempt import code_hash
from eval.experiments.executors.local import LocalExecutor
from eval.experiments.executors.ray import RayExecutor, holds
from eval.experiments.ledger import Ledger
from eval.experiments.runner import run
from tests.eval.experiments.works import MODEL, Dies, Fails, Waits, alive, computed, config, experiment, jobs, until

pytest.importorskip("ray", reason="the extra ray is not installed")
ROOT = Path(__file__).parents[3]
SMALL = {"object_store_memory": 80 * 2**20}


def test_a_node_holds_a_job_or_not() -> None:
    node = {"CPU": 4.0, "GPU": 1.0, "engine": 2.0, "memory": 1e9}
    assert holds(node, Resources(cpus=4, gpus=0.5, custom={"engine": 1}))
    assert holds({"CPU": 1.0}, Resources(gpus=0, custom={"engine": 0}))
    for needs in (Resources(cpus=5), Resources(gpus=2), Resources(custom={"engine": 3}), Resources(custom={"qwen": 1})):
        assert not holds(node, needs)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A head that lives nothing, and two nodes of one core each, one of which has an engine."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (*on_ray.SETTINGS.items(), ("PYTHONPATH", str(ROOT))):
            patch.setenv(name, value)
        from ray.cluster_utils import Cluster

        folder = str(tmp_path_factory.mktemp("ray"))
        head = {"num_cpus": 0, "include_dashboard": False, "temp_dir": folder, **SMALL}
        found = Cluster(initialize_head=True, head_node_args=head)
        try:
            found.add_node(num_cpus=1, resources={"engine": 1}, **SMALL)
            found.add_node(num_cpus=1, **SMALL)
            yield found
        finally:
            found.shutdown()


def raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


@pytest.mark.slow
def test_all_jobs_come_back_each_with_what_came_of_it(cluster: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    executor = RayExecutor(cluster.address, patience=3)
    found = {done.key: done for done in executor.map(Fails((1,)), jobs(4))}
    for job in jobs(4):
        done = found[job.key]
        if job.given.seed == 1:
            assert done.error.startswith("ValueError: seed 1 is unlucky\nTraceback")
        else:
            assert (done.life, done.tries) == (computed(job.given), 1)
            assert done.worker.rpartition(":")[2] != str(os.getpid())
    dying = {done.key: done for done in executor.map(Dies(tmp_path, {1: 9, 2: 1}), jobs(4))}
    assert dying[jobs(4)[1].key].error.startswith("its worker was lost 3 times: ")
    assert [dying[job.key].tries for job in jobs(4)] == [1, 3, 2, 1]
    assert all(dying[job.key].life == computed(job.given) for job in jobs(4) if job.given.seed != 1)
    assert capfd.readouterr().out == ""


@pytest.mark.slow
def test_jobs_go_where_what_they_need_is_or_nowhere(cluster: Any, tmp_path: Path) -> None:
    placed = [Job(str(seed), config(seed), Resources(custom={"engine": 1})) for seed in range(2)]
    nowhere = Job("gpu", config(9), Resources(gpus=1))
    found = {done.key: done for done in RayExecutor(cluster.address, patience=3).map(computed, [nowhere, *placed])}
    assert found["gpu"].error == "no node of the cluster has CPU 1, GPU 1; start one that has"
    assert [found[str(seed)].life for seed in range(2)] == [computed(config(0)), computed(config(1))]


@pytest.mark.slow
def test_a_worker_of_other_code_refuses(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_ray, "code_hash", lambda: "another")
    (done,) = RayExecutor(cluster.address).map(computed, jobs(1))
    assert done.life is None
    assert f"its code is {code_hash()}, the caller's is another" in done.error


@pytest.mark.slow
def test_closing_ends_what_is_going_on(cluster: Any, tmp_path: Path) -> None:
    results = RayExecutor(cluster.address).map(Waits(tmp_path, since=1), jobs(3))
    with closing(results):
        assert next(results).life == computed(config(0))
        until(lambda: list(tmp_path.glob("began-1-*")))
        (began,) = tmp_path.glob("began-1-*")
    until(lambda: not alive(int(began.name.split("-")[2])), 10)


@pytest.mark.slow
def test_an_experiment_survives_a_killed_node_with_the_lives_that_are_lived_locally(cluster: Any, tmp_path: Path) -> None:
    node = cluster.add_node(num_cpus=1, **SMALL)

    def kill() -> None:
        until(lambda: len(list(tmp_path.glob("began-*"))) >= 3, 60)  # all three nodes are in the middle of a life
        os.kill(raylet(node), signal.SIGKILL)
        time.sleep(1)
        (tmp_path / "go").touch()

    killer = threading.Thread(target=kill)
    killer.start()
    given: dict[str, Any] = {"work": Waits(tmp_path), "model": lambda config: MODEL}
    try:
        there = run(experiment(), "pocket", lab=tmp_path / "ray", executor=RayExecutor(cluster.address), **given)
    finally:
        killer.join()
        cluster.remove_node(node, allow_graceful=False)
    here = run(experiment(), "pocket", lab=tmp_path / "local", executor=LocalExecutor(2), **given)
    assert (there.lived, there.failed) == (here.lived, here.failed) == (6, {})
    with Ledger(tmp_path / "ray", read_only=True) as far, Ledger(tmp_path / "local", read_only=True) as near:
        lives = far.lives(there.registration, "pocket")
        assert lives == near.lives(here.registration, "pocket")
        assert lives == {cell.name: computed(cell.life) for cell in experiment().cells("pocket")}
        tries = [record.tries for record in far.cells(there.registration, "pocket").values()]
    assert sorted(tries) == [1, 1, 1, 1, 1, 2]


@pytest.mark.slow
def test_a_cluster_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (done,) = RayExecutor("local", workers=1).map(computed, jobs(1))
    assert done.life == computed(config(0))


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "auto"])
def test_a_cluster_that_is_not_there_is_told_at_once(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(EvalError, match=r"no Ray cluster at '.*127\.0\.0\.1:9'.*ray start --head"):
        list(RayExecutor(address).map(computed, jobs(1)))
