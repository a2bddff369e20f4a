"""`sleepyctl tasks mine` as its user calls it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.repositories import Mirrors
from eval.mining.schema import read
from eval.mining.stream import RepositoryStream
from eval.places import key_of
from tests.eval.histories import History

CALL = (sys.executable, "-c", "from daemon.cli import main; main()", "tasks", "mine")
SLOW = "import time\n\nimport count\n\n\ndef test_count():\n    time.sleep({})\n    assert count.X == {}\n"


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    """The newest commit is proven at once, the one before it takes a minute."""
    made = History(tmp_path_factory.mktemp("history") / "my count")
    made.commit("start", {"count.py": "X = 0\n", "test_count.py": "\n"})
    made.commit("Count on from none to one", {"count.py": "X = 1\n", "test_count.py": SLOW.format(60, 1)})
    made.commit("Count on from one to two", {"count.py": "X = 2\n", "test_count.py": SLOW.format(0, 2)})
    return made


def started(history: History, home: Path, *more: str) -> subprocess.Popen[str]:
    call = (*CALL, str(history.folder), "--home", str(home), *more)
    return subprocess.Popen(
        call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "200"}
    )


def test_what_was_proven_is_kept_on_ctrl_c_and_can_be_played(history: History, tmp_path: Path) -> None:
    running = started(history, tmp_path, "--json")
    journal = tmp_path / "streams" / f"{key_of(history.folder)}.json.journal"
    until = time.monotonic() + 240
    while not (journal.exists() and len(journal.read_bytes().splitlines()) == 2):
        assert time.monotonic() < until
        assert running.poll() is None, running.communicate()
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    said, told = running.communicate(timeout=120)
    assert running.returncode == 130, told
    answer = json.loads(said)
    assert (answer["total_tasks"], answer["complete"], answer["commits"]) == (1, False, 1)
    assert "the same command goes on from here" in told
    path = Path(answer["path"])
    assert read(path).metadata["complete"] is False
    (task,) = RepositoryStream(path, Mirrors(tmp_path / "mirrors").get(key_of(history.folder))).tasks()
    assert task.issue == "Count on from one to two"
    again, _ = started(history, tmp_path, "--json", "--max", "1").communicate(timeout=240)
    assert (json.loads(again)["total_tasks"], json.loads(again)["complete"]) == (1, True)


def test_a_dry_run_counts_and_runs_nothing(history: History, tmp_path: Path) -> None:
    said, _ = started(history, tmp_path, "--dry-run", "--json").communicate(timeout=240)
    assert json.loads(said) == {"to be tried": 2, "first commit": 1}
    assert not (tmp_path / "streams").exists()


@pytest.mark.parametrize(
    ("more", "advice"),
    [
        (("--python", "/bin/true"), "give a Python"),
        (("--tests", "make test"), "only pytest is understood"),
        (("--revision", "no-such"), "no commit 'no-such'"),
    ],
)
def test_a_mistake_is_one_line_with_what_to_do(history: History, tmp_path: Path, more: tuple[str, ...], advice: str) -> None:
    running = started(history, tmp_path, *more)
    _, told = running.communicate(timeout=240)
    assert running.returncode == 1
    assert advice in told
    assert "Traceback" not in told
