"""The same day and the same night on other engines: the daemon with its model on a server, or on MLX."""

from __future__ import annotations

from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import pytest

from consolidation.publishing import PublishError
from consolidation.publishing.ollama import OllamaPublisher
from consolidation.skill import ALL
from memory.store import Store
from tests.daemon.running import daemon, run, status, until, write_config
from tests.doubles.ollama import Habits, serving
from tests.doubles.pocket_ollama import NAME, pocket_ollama


def now_served(publisher: OllamaPublisher, scope: str) -> str | None:
    """What serves a scope; None while the daemon is just publishing, when nobody else can know."""
    try:
        return publisher.live(scope)
    except PublishError as error:
        if "is publishing now" not in str(error):
            raise
        return None


@pytest.mark.parametrize(("scope", "served"), [("repository", "bank"), ("all", ALL)])
def test_a_day_and_a_night_on_ollama_and_the_way_back(tmp_path: Path, scope: str, served: str) -> None:
    home = tmp_path / "home"
    with pocket_ollama(tmp_path / "ollama", Habits(version="0.34.1", adapters="refuse")) as double:
        more = f'[model]\nkind = "ollama:{NAME}"\nbase = "pocket"\nhost = "{double.host}"\ncontext = 1280\n'
        write_config(home, count=6, after=0, more=more)
        config = home / "sleepyd.toml"
        config.write_text(config.read_text().replace("[night]\n", f'[night]\nscope = "{scope}"\n'))
        publisher = OllamaPublisher(double.host, NAME, home / "ollama")
        with daemon(home):
            until(lambda: status(home)["tasks_ended"] == 6, "six tasks")
            done = run("sleep-now", "--wait", "--json", "--home", str(home), timeout=300)
            assert done.returncode == 0, done.stdout + done.stderr
            live = publisher.live(served)
            assert live != NAME
            names = publisher.server.digests()
            assert names[publisher.alias(served)] == names[live]
            assert run("adapters", "rollback", "--home", str(home)).returncode == 0
            until(lambda: now_served(publisher, served) == NAME, "the alias to follow")
        publisher.close()


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mlx_lm") is None, reason="needs mlx-lm")
def test_a_day_and_a_night_on_mlx_and_a_task_on_what_it_learnt(tmp_path: Path) -> None:
    write_config(tmp_path, count=6, after=0, more='[model]\nkind = "mlx:pocket"\n')
    with daemon(tmp_path):
        until(lambda: status(tmp_path)["tasks_ended"] == 6, "six tasks")
        done = run("sleep-now", "--wait", "--json", "--home", str(tmp_path), timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        (adapter,) = status(tmp_path)["live"].values()
        (tmp_path / "sleepyd.toml").write_text((tmp_path / "sleepyd.toml").read_text().replace("count = 6", "count = 7"))
        until(lambda: status(tmp_path)["tasks_ended"] == 7, "the next task")
    with Store(tmp_path / "sleepy.db", read_only=True) as store:
        used = [store.trajectory(result.trajectory_id).adapter for result in store.results()]
        assert {t.model for t in store.trajectories()} == {"mlx:weights"}
    assert used == [None] * 6 + [adapter]


def test_a_server_that_goes_away_in_the_night_is_waited_for_and_the_night_goes_on(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with ExitStack() as living:
        with pocket_ollama(tmp_path / "ollama") as double:
            port = int(double.host.rpartition(":")[2])
            more = f'[model]\nkind = "ollama:{NAME}"\nbase = "pocket"\nhost = "{double.host}"\ncontext = 1280\n'
            write_config(home, count=4, after=0, more=more)
            living.enter_context(daemon(home))
            until(lambda: status(home)["tasks_ended"] == 4, "four tasks")
            assert run("sleep-now", "--home", str(home)).returncode == 0
            until(lambda: status(home)["doing"]["step"].startswith("train"), "training")
        until(lambda: "does not answer" in status(home)["holding"], "the complaint")
        assert status(home)["nights"] == 0
        with serving(double, port):
            until(lambda: status(home)["nights"] == 1, "the night's end", 300)
            verdict = status(home)["last_verdict"]
            assert verdict["promoted"], verdict["why"]


def test_a_server_that_is_not_there_is_waited_for_and_named_with_what_to_do(tmp_path: Path) -> None:
    write_config(tmp_path, count=2, after=0, more='[model]\nkind = "ollama:nothing"\nhost = "http://127.0.0.1:9"\n')
    with daemon(tmp_path) as process:
        until(lambda: "ollama serve" in status(tmp_path)["holding"], "the complaint")
        assert status(tmp_path)["tasks_ended"] == 0
        assert process.poll() is None
        done = run("sleep-now", "--dry-run", "--home", str(tmp_path))
        assert done.returncode == 0
