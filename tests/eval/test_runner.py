"""The test runner of pocket repositories."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agent.workspace import Workspace
from eval.pocket import runner
from eval.pocket.episodes import run_visible


def project(root: Path, source: str, tests: str) -> Path:
    (root / "pkg").mkdir(parents=True)
    (root / "tests").mkdir()
    (root / "pkg" / "__init__.py").write_text("")
    (root / "pkg" / "mod.py").write_text(source)
    (root / "tests" / "test_mod.py").write_text(tests)
    return root


def test_a_failure_shows_what_was_found(tmp_path: Path) -> None:
    tests = "from pkg.mod import f\n\ndef test_good():\n    assert f(1) == 1\n\ndef test_bad():\n    assert f(2) == 3\n"
    results = runner.run_tests(project(tmp_path, "def f(x):\n    return x\n", tests))
    assert results == {"test_mod.py::test_good": "PASSED", "test_mod.py::test_bad": "f(2) == 3 but was 2"}
    assert runner.summary(results) == "FAILED test_bad: f(2) == 3 but was 2\n1 failed, 1 passed"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def f(x:\n", "SyntaxError in line 1"),
        ("raise SystemExit(0)\n", "SystemExit: 0"),
        ("def g(): pass\n", "ImportError"),
    ],
)
def test_a_module_that_does_not_import_fails_every_test(tmp_path: Path, source: str, reason: str) -> None:
    tests = "from pkg.mod import f\n\ndef test_a():\n    assert f(1) == 1\n\ndef test_b():\n    f(1)\n"
    results = runner.run_tests(project(tmp_path, source, tests))
    assert len(results) == 2
    assert all(why.startswith(reason) for why in results.values())


def test_an_exit_inside_a_test_is_a_failure_not_a_pass(tmp_path: Path) -> None:
    source = "import sys\ndef f(x):\n    sys.exit(0)\n"
    root = project(tmp_path, source, "from pkg.mod import f\n\ndef test_a():\n    assert f(1) == 1\n")
    done = subprocess.run([sys.executable, "-I", "-S", runner.__file__, str(root)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "SystemExit" in done.stdout


def test_the_report_lists_every_test(tmp_path: Path) -> None:
    root = project(
        tmp_path / "r", "def f(x):\n    return x\n", "from pkg.mod import f\n\ndef test_a():\n    assert f(1) == 1\n"
    )
    report = tmp_path / "report.json"
    done = subprocess.run(
        [sys.executable, "-I", runner.__file__, str(root), "--json", str(report)], check=False, capture_output=True
    )
    assert done.returncode == 0
    assert json.loads(report.read_text()) == {"test_mod.py::test_a": "PASSED"}


def test_no_tests_is_not_a_pass(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    done = subprocess.run([sys.executable, "-I", runner.__file__, str(tmp_path)], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout.strip() == "no tests"


def test_values_are_shortened(tmp_path: Path) -> None:
    root = project(
        tmp_path, "def f(x):\n    return 'y' * 10_000\n", "from pkg.mod import f\n\ndef test_a():\n    assert f(1) == 1\n"
    )
    assert len(runner.summary(runner.run_tests(root))) < 200


INTERRUPTED = "import signal\n\ndef test_it():\n    signal.raise_signal(signal.SIGINT)\n"


def test_ctrl_c_ends_the_making_of_episodes_but_is_a_failure_where_model_written_code_runs(tmp_path: Path) -> None:
    (tmp_path / "repo" / "tests").mkdir(parents=True)
    (tmp_path / "repo" / "tests" / "test_it.py").write_text(INTERRUPTED)
    assert runner.run_tests(tmp_path / "repo")["test_it.py::test_it"] != "PASSED"
    with pytest.raises(KeyboardInterrupt):
        run_visible(Workspace(tmp_path / "repo"))
