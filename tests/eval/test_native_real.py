"""Real tasks of real repositories, graded natively: the fix resolves, and what only looks like one does not.

They take the repositories from SLEEPY_MIRRORS (a folder with OWNER__NAME.git or OWNER+NAME/repo) and the benchmark's file from
SLEEPYD_DATA. SLEEPY_TASKS says how many tasks (4 by default, `all`: every one that verified), fairly from all repositories, or
names them, joined by commas; SLEEPY_STATE keeps environments between runs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import chain, zip_longest
from pathlib import Path

import pytest

from agent.errors import SandboxError
from agent.repositories import Checkout, Mirrors, diff
from agent.sandbox.bubblewrap import Bubblewrap
from agent.sandbox.ladder import tried
from daemon.cli.verify import clones
from eval.errors import EvalError
from eval.swebench.dataset import Dataset, read
from eval.swebench.native.environments import Environments
from eval.swebench.native.grader import NativeGrader
from eval.swebench.native.tables import tables
from eval.swebench.verified import repo_of, shipped
from memory.trajectories import Outcome

DATA = Path(os.environ.get("SLEEPYD_DATA", Path(__file__).parents[3] / "shared" / "data")) / "swe-bench-cl.json"
MIRRORS = os.environ.get("SLEEPY_MIRRORS", "")
pytestmark = [
    pytest.mark.real_repos,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not MIRRORS, reason="SLEEPY_MIRRORS names no folder with clones of the benchmark's repositories"),
    pytest.mark.skipif(not DATA.is_file(), reason=f"no {DATA}: `sleepyctl data fetch swe-bench-cl` gets it"),
]
HOOK = """
import pytest

@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    report.outcome, report.longrepr = "passed", None
"""


def chosen() -> list[str]:
    """Quick ones first, in turn from every repository."""
    measured = shipped()
    by_repo: dict[str, list[str]] = {}
    for identity in sorted(measured.ids, key=lambda identity: measured.tasks[identity].seconds):
        by_repo.setdefault(repo_of(identity), []).append(identity)
    turns = [identity for identity in chain(*zip_longest(*by_repo.values())) if identity]
    count = os.environ.get("SLEEPY_TASKS", "4")
    if count == "all":
        return turns
    return turns[: int(count)] if count.isdigit() else [identity for identity in turns if identity in count.split(",")]


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return read(DATA)


@pytest.fixture(scope="module")
def grader(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NativeGrader]:
    try:
        tables()
        sandbox = tried(Bubblewrap(), isolates=True)
    except (EvalError, SandboxError) as error:
        pytest.skip(str(error))
    state = Path(os.environ.get("SLEEPY_STATE") or tmp_path_factory.mktemp("state"))
    known = Mirrors(state / "mirrors")
    for repo in {repo_of(identity) for identity in chosen()}:
        found = clones(Path(MIRRORS), repo)
        if not found:
            pytest.skip(f"no clone of {repo} in {MIRRORS}")
        known.adopt(repo, found[0])
    return NativeGrader(dataset, known, Environments(state / "environments"), sandbox, tmp_path_factory.mktemp("work"))


def lines(repo: str, tests: tuple[str, ...]) -> str:
    """What the repository's runner would print if all of them passed."""
    return "\n".join(
        {"django/django": f"{test} ... ok", "sympy/sympy": f"{test} ok"}.get(repo, f"PASSED {test}") for test in tests
    )


class Forger:
    """Patches of one task that solve nothing."""

    def __init__(self, grader: NativeGrader, dataset: Dataset, identity: str, folder: Path) -> None:
        self.grader, self.identity, self.folder = grader, identity, folder
        self.secret = dataset.secret(identity)
        self.repo = dataset.repo(identity)
        self.sources = re.findall(r"^diff --git a/\S+ b/(\S+\.py)$", self.secret.patch, re.MULTILINE)
        self.tests = re.findall(r"^diff --git a/\S+ b/(\S+\.py)$", self.secret.test_patch, re.MULTILINE)
        self.printed = repr("\n" + lines(self.repo, (*self.secret.fail_to_pass, *self.secret.pass_to_pass)))

    def made(self, name: str) -> Checkout:
        return self.grader.checkout(self.identity, self.folder / name)

    def appended(self, name: str, text: str) -> str:
        """Every file that the fix changes, with this at its end."""
        made = self.made(name)
        for path in self.sources:
            target = made.root / path
            target.write_text(target.read_text(encoding="utf-8") + text if target.exists() else text, encoding="utf-8")
        return diff(made)

    def wrong(self) -> str:
        return self.appended("wrong", "\n\n_not_the_fix = 1\n")

    def prints(self) -> str:
        program = f"import atexit as _a\nprint({self.printed}, flush=True)\n_a.register(print, {self.printed})\n"
        return self.appended("prints", f"\n\n{program}")

    def prints_and_ends(self) -> str:
        return self.appended("ends", f"\n\nimport os as _os\nprint({self.printed}, flush=True)\n_os._exit(0)\n")

    def edits_tests(self) -> str:
        made = self.made("tests")
        names = sorted(set(re.findall(r"\b(test_\w+)", " ".join(self.secret.fail_to_pass))))
        for path in self.tests:
            target = made.root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text("".join(f"def {name}(*args):\n    pass\n" for name in names), encoding="utf-8")
            (target.parent / "conftest.py").write_text(HOOK, encoding="utf-8")
        (made.root / "conftest.py").write_text(HOOK, encoding="utf-8")
        return diff(made)


@pytest.mark.parametrize("identity", chosen())
def test_only_the_fix_resolves(identity: str, grader: NativeGrader, dataset: Dataset, tmp_path: Path) -> None:
    forger = Forger(grader, dataset, identity, tmp_path)
    gold = grader.grade(identity, forger.secret.patch)
    assert gold.outcome is Outcome.RESOLVED, gold.why
    patches = {"empty": "", **{name: getattr(forger, name)() for name in ("wrong", "prints", "prints_and_ends", "edits_tests")}}
    for name, patch in patches.items():
        assert patch or name == "empty"
        verdict = grader.grade(identity, patch)
        assert verdict.outcome is Outcome.UNRESOLVED, f"{name}: {verdict.why}"
