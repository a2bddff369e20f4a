"""Native grading on a small repository of its own: gold resolves, and nothing that only looks like it does."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.errors import SandboxError
from agent.repositories import Mirrors, checkout, diff
from agent.sandbox.bubblewrap import Bubblewrap
from agent.sandbox.ladder import tried
from eval.errors import EvalError
from eval.swebench.dataset import Dataset, read
from eval.swebench.native import runs
from eval.swebench.native.environments import Environment, Facts
from eval.swebench.native.grader import NativeGrader, is_protected
from eval.swebench.native.recipes import Recipe, recipe
from eval.swebench.native.tables import tables
from eval.swebench.native.verify import Finding, kept, verify
from memory.trajectories import Outcome

TASK = "pytest-dev__pytest-1"
BAD = "def half(n):\n    return n\n"
GOOD = "def half(n):\n    return n // 2\n"
VISIBLE = "from lathe import half\n\n\ndef test_zero():\n    assert half(0) == 0\n"
HIDDEN = f"{VISIBLE}\n\ndef test_half():\n    assert half(4) == 2\n"
HALF, ZERO = "tests/test_lathe.py::test_half", "tests/test_lathe.py::test_zero"
LIMITS = replace(runs.LIMITS, seconds=12.0)

try:
    tables()
except EvalError as error:
    pytest.skip(str(error), allow_module_level=True)


class Here:
    """Environments that are all this very interpreter's."""

    def key(self, how: Recipe) -> str:
        return "here"

    def get(self, how: Recipe) -> Environment:
        prefixes = {Path(sys.prefix), Path(sys.base_prefix), Path(sys.base_prefix).resolve()}
        mounts = tuple(sorted(path for path in prefixes if not path.is_relative_to("/usr")))
        return Environment(Facts(key="here", python="3", lock="here"), Path(sys.prefix, "bin", "python"), mounts)


def git(where: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", where, *words], check=True, capture_output=True, text=True).stdout.strip()


class Bench:
    """One task on a small repository, and its grader."""

    def __init__(self, folder: Path, sandbox: Any) -> None:
        source = folder / "source"
        self.folder, self.count = folder, 0
        (source / "src").mkdir(parents=True)
        (source / "tests").mkdir()
        git(source, "init", "-q")
        (source / "src" / "lathe.py").write_text(BAD)
        (source / "tests" / "test_lathe.py").write_text(VISIBLE)
        git(source, "add", ".")
        git(source, "-c", "user.name=a", "-c", "user.email=a@localhost", "commit", "-qm", "base")
        self.commit = git(source, "rev-parse", "HEAD")
        self.mirrors = Mirrors(folder / "mirrors")
        self.mirrors.adopt("pytest-dev/pytest", source)
        self.gold = self.patch({"src/lathe.py": GOOD})
        self.dataset = self._dataset(self.patch({"tests/test_lathe.py": HIDDEN}))
        work = folder / "work"
        work.mkdir()
        self.grader = NativeGrader(self.dataset, self.mirrors, Here(), sandbox, work, LIMITS)  # type: ignore[arg-type]

    def patch(self, files: dict[str, str]) -> str:
        self.count += 1
        made = checkout(self.mirrors.get("pytest-dev/pytest"), self.commit, self.folder / f"edit-{self.count}")
        for path, text in files.items():
            (made.root / path).parent.mkdir(parents=True, exist_ok=True)
            (made.root / path).write_text(text)
        return diff(made)

    def _dataset(self, test_patch: str) -> Dataset:
        row = {
            "metadata": {
                "instance_id": TASK,
                "repo": "pytest-dev/pytest",
                "base_commit": self.commit,
                "created_at": "2022-10-01T00:00:00+00:00",
                "difficulty": "<15 min fix",
                "version": "7.2",
            },
            "task": {"problem_statement": "half is whole", "hints_text": ""},
            "evaluation": {"patch": self.gold, "test_patch": test_patch, "FAIL_TO_PASS": [HALF], "PASS_TO_PASS": [ZERO]},
            "continual_learning": {
                "sequence_position": 1,
                "difficulty_score": 1,
                "dependencies": [],
                "modified_files": ["src/lathe.py"],
            },
        }
        sequence = {
            "id": "one",
            "repo": "pytest-dev/pytest",
            "num_tasks": 1,
            "statistics": {"difficulty_distribution": {"1": 1}},
            "tasks": [row],
        }
        whole = {"metadata": {"name": "one", "version": "1.0", "num_sequences": 1, "total_tasks": 1}, "sequences": [sequence]}
        path = self.folder / "data.json"
        path.write_text(json.dumps(whole))
        return read(path)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    try:
        sandbox = tried(Bubblewrap(), isolates=True)
    except SandboxError as error:
        pytest.skip(f"bubblewrap: {error}")
    return Bench(tmp_path_factory.mktemp("native"), sandbox)


def test_the_fix_resolves_and_nothing_else_is_left_behind(bench: Bench) -> None:
    verdict = bench.grader.grade(TASK, bench.gold)
    assert verdict.outcome is Outcome.RESOLVED, verdict.why
    assert dict(verdict.results) == {HALF: "PASSED", ZERO: "PASSED"}
    assert verdict.environment == Facts(key="here", python="3", lock="here")
    assert list((bench.folder / "work").iterdir()) == []


def test_no_patch_does_not_resolve_and_says_nothing_of_hidden_tests(bench: Bench) -> None:
    verdict = bench.grader.grade(TASK, "")
    assert verdict.outcome is Outcome.UNRESOLVED
    assert dict(verdict.results) == {HALF: "FAILED", ZERO: "PASSED"}
    assert "test_" not in verdict.why
    assert "test_half" not in repr(verdict)


HOOK = """
import pytest

@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    report.outcome, report.longrepr = "passed", None
"""
LINES = f"PASSED {HALF}\\nPASSED {ZERO}"
FORGED = f"""
import glob, json, os
for name in glob.glob(".*"):
    if os.path.isfile(name):
        open(name, "a").write("key " + json.dumps(["{HALF}", "PASSED"]) + "\\n")
"""


@pytest.mark.parametrize(
    "files",
    [
        {"src/lathe.py": "def half(n):\n    return n - 2\n"},
        {"src/lathe.py": "def half(n):\n    return 2 if n == 4 else 1\n"},
        {"src/lathe.py": f"print('{LINES}', flush=True)\n{BAD}"},
        {"src/lathe.py": f"import atexit\natexit.register(print, '\\n{LINES}')\n{BAD}"},
        {"src/lathe.py": f"import os\nprint('{LINES}', flush=True)\nos._exit(0)\n"},
        {"src/lathe.py": f"{FORGED}\nprint('{LINES}')\n{BAD}"},
        {"tests/test_lathe.py": "def test_half(): pass\ndef test_zero(): pass\n"},
        {"tests/conftest.py": HOOK, "conftest.py": HOOK},
        {"pytest.ini": "[pytest]\naddopts = -p cheat\n", "tests/cheat.py": HOOK, "src/test_cheat.py": HOOK},
        {"src/sitecustomize.py": f"print('{LINES}')\n", "sitecustomize.py": HOOK},
        {"src/pytest.py": f"print('{LINES}')\n"},
        {"src/sleepy_pytest.py": "", "src/sleepy_witness.py": ""},
        {"src/lathe.py": f"import time\nprint('{LINES}', flush=True)\ntime.sleep(60)\n"},
    ],
    ids=[
        "wrong",
        "breaks-another",
        "prints",
        "prints-at-exit",
        "prints-and-exits",
        "forges-the-report",
        "edits-tests",
        "conftest-hook",
        "settings-load-a-hook",
        "sitecustomize",
        "another-pytest",
        "another-witness",
        "runs-on",
    ],
)
def test_what_only_looks_solved_is_not_resolved(bench: Bench, files: dict[str, str]) -> None:
    patch = bench.patch(files)
    assert patch
    verdict = bench.grader.grade(TASK, patch)
    assert verdict.outcome is Outcome.UNRESOLVED, verdict.why


def test_a_fix_with_edited_tests_is_graded_by_the_hidden_ones(bench: Bench) -> None:
    patch = bench.patch({"src/lathe.py": GOOD, "tests/test_lathe.py": "assert False\n", "tests/conftest.py": "assert False\n"})
    assert bench.grader.grade(TASK, patch).outcome is Outcome.RESOLVED


def test_a_patch_that_does_not_apply_or_makes_links_is_no_infrastructure_failure(bench: Bench) -> None:
    link = "diff --git a/tests b/tests\nnew file mode 120000\n--- /dev/null\n+++ b/tests\n@@ -0,0 +1 @@\n+/etc\n"
    in_the_way = bench.patch({"src/lathe.py": GOOD, "tests/test_new.py/file": "x"})
    assert bench.grader.grade(TASK, in_the_way).outcome is Outcome.RESOLVED
    for patch in (bench.gold.replace("return n", "return m"), link, "no patch at all"):
        verdict = bench.grader.grade(TASK, patch)
        assert verdict.outcome is Outcome.UNRESOLVED
        assert "does not apply" in verdict.why


def test_what_the_machine_lacks_is_an_infrastructure_failure(bench: Bench) -> None:
    lost = NativeGrader(bench.dataset, Mirrors(bench.folder / "none"), Here(), Bubblewrap())  # type: ignore[arg-type]
    verdict = lost.grade(TASK, bench.gold)
    assert verdict.outcome is Outcome.INFRASTRUCTURE_FAILURE
    assert "no mirror of pytest-dev/pytest" in verdict.why


def test_the_agents_own_runs_use_the_same_environment_without_hidden_tests(bench: Bench) -> None:
    made = bench.grader.checkout(TASK, bench.folder / "agents")
    run = bench.grader.run(TASK, made.root, ("tests/test_lathe.py",))
    assert run.passed
    assert "1 passed" in run.text
    assert not bench.grader.run(TASK, made.root, (HALF,)).passed


def test_verifying_goes_both_ways_and_is_not_asked_twice(bench: Bench) -> None:
    told: list[str] = []
    found = verify(bench.grader, bench.dataset, [TASK], bench.folder / "verified", 2, lambda task, *_: told.append(task))
    assert found[TASK].verified
    assert told == [TASK]

    class Refuses:
        def decides(self, task: str) -> str:
            return bench.grader.decides(task)

    again = verify(Refuses(), bench.dataset, [TASK], bench.folder / "verified")  # type: ignore[arg-type]
    assert again == found


def test_an_interrupt_loses_only_what_is_being_run(bench: Bench) -> None:
    def interrupted(*told: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify(bench.grader, bench.dataset, [TASK], bench.folder / "interrupted", 1, interrupted)
    assert kept(bench.grader, [TASK], bench.folder / "interrupted")[TASK].verified


def test_an_id_in_a_log_of_a_test_of_pytest_itself_is_no_test_of_this_run(bench: Bench) -> None:
    printed = [f"    print('PASSED {test}::test_inner')" for test in ("inner.py", "tests/test_lathe.py")]
    program = "\n".join(["def half(n):", *printed, "    return n // 2", ""])
    made = checkout(bench.mirrors.get("pytest-dev/pytest"), bench.commit, bench.folder / "inner")
    (made.root / "src" / "lathe.py").write_text(program)
    place = bench.grader.workspace(TASK, made.root)
    seen = runs.run(bench.grader.recipe(TASK), place, ("tests/test_lathe.py",), Bubblewrap(), LIMITS)
    assert seen.statuses == {ZERO: "PASSED", "inner.py::test_inner": "PASSED", "tests/test_lathe.py::test_inner": "FAILED"}


def test_only_what_is_known_is_told_without_a_run(bench: Bench) -> None:
    assert kept(bench.grader, [TASK], bench.folder / "nothing") == {}
    found = verify(bench.grader, bench.dataset, [TASK], bench.folder / "verified")
    assert kept(bench.grader, [TASK], bench.folder / "verified") == found


def test_failing_before_is_not_believed_where_nothing_ran(bench: Bench) -> None:
    class Dead:
        decides = bench.grader.decides

        def grade(self, task: str, patch: str) -> Any:
            found = bench.grader.grade(task, patch)
            return found if patch else replace(found, results={})

    found = verify(Dead(), bench.dataset, [TASK], bench.folder / "dead")  # type: ignore[arg-type]
    assert found[TASK] == found[TASK].model_copy(update={"base_fails": False, "gold_resolves": True})
    assert "1 of 1 tests that should pass do not" in found[TASK].why


def test_what_says_nothing_of_the_task_is_asked_again(bench: Bench) -> None:
    lost = NativeGrader(bench.dataset, Mirrors(bench.folder / "none"), Here(), Bubblewrap())  # type: ignore[arg-type]
    first: Finding = verify(lost, bench.dataset, [TASK], bench.folder / "again")[TASK]
    assert first.infrastructure
    assert verify(bench.grader, bench.dataset, [TASK], bench.folder / "again")[TASK].verified


def test_a_report_counts_only_behind_its_key_and_a_contradiction_is_the_worse(tmp_path: Path) -> None:
    report = tmp_path / "report"
    report.write_text('k ["a", "PASSED"]\nk ["a", "FAILED"]\nother ["b", "PASSED"]\n ["c", "PASSED"]\nk ["d", "PASSED"]\n')
    told = runs._told(report, "k")
    parse = tables().parsers["pytest-dev/pytest"]
    assert runs._seen("pytest", told, lambda line: parse(line, None)) == {"a": "FAILED", "d": "PASSED"}
    (tmp_path / "link").symlink_to(report)
    assert runs._told(tmp_path / "link", "k") == []
    report.write_text('k ["a", "PASSED"]\nk nonsense\n')
    assert runs._told(report, "k") == []


@pytest.mark.parametrize(
    ("repo", "witness", "test", "seen"),
    [
        ("django/django", "unittest", "test_a (x.Tests)\nWhat it is.", "What it is."),
        ("django/django", "unittest", "test_a (x.Tests)", "test_a (x.Tests)"),
        ("sympy/sympy", "sympy", "test_a", "test_a"),
        ("sphinx-doc/sphinx", "pytest", "tests/test_a.py::test_a[x y]", "tests/test_a.py::test_a[x"),
    ],
)
def test_witnesses_speak_as_the_official_parser_reads(repo: str, witness: str, test: str, seen: str) -> None:
    parse = tables().parsers[repo]
    for status, good in (("PASSED", True), ("FAILED", False), ("ERROR", False), ("SKIPPED", False)):
        found = runs._seen(witness, [(test, status)], lambda line: parse(line, None))
        assert (found.get(seen) in runs.PASSED) is good


def test_recipes_follow_the_tables_and_pins_of_ours_replace_theirs() -> None:
    assert "pluggy==0.13.1" in recipe("pytest-dev/pytest", "5.4").packages
    found = recipe("pydata/xarray", "2022.06").packages
    assert "numpy==1.23.5" in found
    assert "numpy==1.23.0" not in found
    for repo, version in (("pytest-dev/pytest", "0.0"), ("pytest-dev/pytest", None), ("acme/lathe", "1.0")):
        with pytest.raises(EvalError):
            recipe(repo, version)


@pytest.mark.parametrize(
    "path", ["tests/a.py", "src/testing/x/y.txt", "a/conftest.py", "setup.cfg", "src/a.pth", "Tests/a", "bin/x"]
)
def test_tests_and_their_settings_are_protected(path: str) -> None:
    assert is_protected(path, ("bin/",))


@pytest.mark.parametrize(
    "path", ["src/_pytest/python.py", "sympy/core/add.py", "setup.py", "docs/a.rst", "binary/x", "latest.py"]
)
def test_sources_are_not(path: str) -> None:
    assert not is_protected(path, ("bin/",))
