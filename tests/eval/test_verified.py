"""The shipped measurements, their page, and the commands about them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from eval.swebench.dataset import PUBLISHED, read
from eval.swebench.native.grader import is_protected
from eval.swebench.native.recipes import known, recipe
from eval.swebench.verified import Measured, Verified, markdown, repo_of, shipped

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("SLEEPYD_DATA", Path(__file__).parents[3] / "shared" / "data")) / "swe-bench-cl.json"
here = pytest.mark.skipif(not DATA.is_file(), reason=f"no {DATA}: `sleepyctl data fetch swe-bench-cl` gets it")


def command(*words: str) -> subprocess.CompletedProcess[str]:
    program = "from daemon.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, "tasks", *words], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )


def test_the_page_is_what_its_command_prints() -> None:
    assert (ROOT / "docs" / "verified.md").read_text(encoding="utf-8") == markdown(shipped())
    printed = json.loads(command("verified", "--json").stdout)
    assert Verified.model_validate(printed) == shipped()


def test_enough_tasks_verify() -> None:
    good = [repo_of(identity) for identity in shipped().ids]
    assert good.count("pytest-dev/pytest") == 19
    assert len(good) >= 40
    assert len(set(good)) >= 4
    totals = {row.repo: row.tasks for row in PUBLISHED}
    assert all(good.count(repo) <= totals[repo] for repo in good)


def test_the_page_tells_what_did_not_verify_and_what_was_not_tried() -> None:
    tasks = {
        "pytest-dev__pytest-1": Measured(python="3.11", verified=True, seconds=2),
        "pytest-dev__pytest-2": Measured(python="3.9", verified=False, seconds=3, why="a | b\nc"),
    }
    page = markdown(
        Verified(date="2026-01-01", machine="this", dataset="x", tasks=tasks), {"pytest-dev/pytest": 3, "acme/x": 1}
    )
    assert "| pytest-dev/pytest | 3 | 2 | 1 | 3.11, 3.9 |" in page
    assert "| all | 4 | 2 | 1 | |" in page
    assert "| pytest-dev__pytest-2 | 3.9 | 3 | a / b c |" in page
    assert "Not tried: 1 of pytest-dev/pytest, 1 of acme/x." in page


@here
def test_no_fix_touches_what_grading_takes_from_the_base() -> None:
    dataset = read(DATA)
    for task in dataset.tasks(known()):
        how = recipe(task.repo, dataset.base(task.id).version)
        changed = re.findall(r"^diff --git a/\S+ b/(\S+)$", dataset.secret(task.id).patch, re.MULTILINE)
        assert changed
        assert not [path for path in changed if is_protected(path, how.protected)]
        hidden = re.findall(r"^diff --git a/\S+ b/(\S+)$", dataset.secret(task.id).test_patch, re.MULTILINE)
        assert all(is_protected(path) for path in hidden)


@here
def test_the_shipped_ids_are_the_datasets() -> None:
    assert set(shipped().tasks) <= {task.id for task in read(DATA).tasks()}


def test_verify_says_what_it_needs(tmp_path: Path) -> None:
    without = command("verify", "--home", str(tmp_path))
    assert without.returncode == 2
    assert "--gold" in without.stderr
    nothing = command("verify", "--gold", "--home", str(tmp_path))
    assert nothing.returncode == 1
    assert "sleepyctl data fetch swe-bench-cl" in nothing.stderr


@here
def test_a_task_that_cannot_be_tried_here_says_why(tmp_path: Path) -> None:
    tried = command(
        "verify", "--gold", "--home", str(tmp_path), "--data", str(DATA), "--ids", "matplotlib__matplotlib-20859", "--json"
    )
    if tried.returncode and "no sandbox" in tried.stderr:
        pytest.skip(tried.stderr)
    found = json.loads(tried.stdout)["matplotlib__matplotlib-20859"]
    assert (found["base_fails"], found["gold_resolves"]) == (False, False)
    assert "no native environment for matplotlib/matplotlib" in found["why"]
    assert command("verify", "--gold", "--home", str(tmp_path), "--data", str(DATA), "--ids", "nobody__knows-1").returncode == 1
