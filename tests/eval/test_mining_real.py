"""Mining the histories of real repositories, and grading what was found, in the real sandbox.

SLEEPY_MIRRORS names a folder with `<owner>__<name>.git` or `<owner>+<name>/repo`, SLEEPY_MINE_PYTHON a Python that has
what those repositories' tests need (this one otherwise).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from agent.repositories import Mirror, Mirrors
from agent.sandbox import probe
from agent.sandbox.base import PYTHON
from eval.mining import Environment, Options, environment_of, grade, mine
from eval.mining.schema import read
from eval.mining.stream import RepositoryStream
from memory.trajectories import Outcome

pytestmark = pytest.mark.real_repos
REPOSITORIES = ("more-itertools/more-itertools", "pallets/itsdangerous", "pytest-dev/pytest")
FAKE = ("def pytest_runtest_logreport(report):", "    report.outcome = 'passed'")


def adopted(repo: str, folder: Path) -> Mirror:
    given = os.environ.get("SLEEPY_MIRRORS")
    if not given:
        pytest.skip("SLEEPY_MIRRORS names no folder of mirrors")
    places = [Path(given, f"{repo.replace('/', '__')}.git"), Path(given, repo.replace("/", "+"), "repo")]
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        pytest.skip(f"SLEEPY_MIRRORS has no {repo}")
    return Mirrors(folder).adopt(repo, found)


@pytest.mark.parametrize("repo", REPOSITORIES)
def test_a_real_history_has_tasks_and_only_their_fixes_resolve_them(repo: str, tmp_path: Path) -> None:
    mirror, sandbox = adopted(repo, tmp_path / "mirrors"), probe(trusted_generated=False)
    environment = Environment.at(Path(os.environ.get("SLEEPY_MINE_PYTHON", PYTHON)), mirror)
    path = tmp_path / "stream.json"
    tasks = int(os.environ.get("SLEEPY_MINE_TASKS", "1"))
    file = mine(repo, mirror, path, sandbox, environment, Options(tasks=tasks))
    assert file is not None
    stream = RepositoryStream(path, mirror)
    assert len(stream.tasks()) == tasks
    for shown, task in zip(stream.tasks(), file.sequences[0].tasks, strict=True):
        secret = task.evaluation
        for value in (
            task.metadata.fix_commit,
            *secret.FAIL_TO_PASS,
            *(line for line in secret.patch.split("\n") if len(line) > 30),
        ):
            assert value not in shown.issue

        def verdict(patch: str, task=task) -> tuple[Outcome, str]:  # type: ignore[no-untyped-def]
            return grade(mirror, task, patch, sandbox, environment_of(read(path)))

        assert verdict(secret.patch) == (
            Outcome.RESOLVED,
            f"{len(secret.FAIL_TO_PASS) + len(secret.PASS_TO_PASS)} tests passed",
        )
        assert verdict("")[0] is Outcome.UNRESOLVED
        wrong = re.sub(r"^\+(?!\+\+ ).*$", "+", secret.patch, flags=re.MULTILINE)
        assert verdict(wrong)[0] is Outcome.UNRESOLVED
        added = "".join(f"+{line}\n" for line in FAKE)
        fake = (
            f"diff --git a/{{0}} b/{{0}}\nnew file mode 100644\n--- /dev/null\n+++ b/{{0}}\n@@ -0,0 +1,{len(FAKE)} @@\n{added}"
        )
        fake = fake.format("zz/conftest.py")
        assert verdict(fake)[0] is Outcome.UNRESOLVED
        assert verdict(secret.test_patch.replace("assert ", "assert True or "))[0] is Outcome.UNRESOLVED
