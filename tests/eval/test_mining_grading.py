"""Running and grading mined tasks in the real sandbox: what the agent is told, and what no patch may talk its way through."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.repositories import Mirror, Mirrors, checkout, diff
from agent.sandbox import Sandbox, probe
from agent.sandbox.base import PYTHON
from eval.errors import EvalError
from eval.mining import Environment, Options, grade, mine, prepare, run_tests
from eval.mining.environment import python_of, split_command
from eval.mining.running import LIMITS, _report, advice
from eval.mining.schema import MinedTask, read
from eval.mining.stream import RepositoryStream
from eval.places import Places, key_of
from eval.sources import open_source
from eval.task_config import TasksConfig
from memory.trajectories import Outcome
from tests.eval.histories import History

NOW = datetime(2030, 1, 1, tzinfo=UTC)
QUICK = replace(LIMITS, seconds=20.0)
BASE = "def fee(price):\n    return 0\n"
GOLD = "def fee(price):\n    return price / 10\n"
TEST = "from shop.fees import fee\n\n\ndef test_free():\n    assert fee(0) == 0\n\n\ndef test_fee():\n    assert fee(10) == 1\n"
CONFIGURATION = (
    '[project]\nname = "shop"\n[tool.setuptools_scm]\nwrite_to = "shop/_version.py"\n[tool.pytest.ini_options]\ntimeout = 99\n'
    'filterwarnings = ["error"]\naddopts = "-n auto --dist loadfile --cov=shop --cov-report xml --strict-markers"\n'
)
MAKE_PASS = (
    "import pytest\n\n\n@pytest.hookimpl(hookwrapper=True)\ndef pytest_runtest_makereport(item):\n"
    "    made = yield\n    made.get_result().outcome = 'passed'\n"
)


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    made = History(tmp_path_factory.mktemp("history") / "shop")
    there = {"shop/__init__.py": "from shop._version import version\n", ".gitignore": "_version.py\n"}
    old = TEST.replace("== 1", "== 0")
    made.commit("start", {**there, "pyproject.toml": CONFIGURATION, "shop/fees.py": BASE, "tests/test_fees.py": old})
    made.git("tag", "v2.1")
    made.commit("Fees are a tenth of the price", {"shop/fees.py": GOLD, "tests/test_fees.py": TEST})
    return made


@pytest.fixture(scope="module")
def mirror(history: History, tmp_path_factory: pytest.TempPathFactory) -> Mirror:
    return Mirrors(tmp_path_factory.mktemp("mirrors")).adopt("shop", history.folder)


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return probe(trusted_generated=False)


@pytest.fixture(scope="module")
def environment() -> Environment:
    return Environment.at(autoload=False)


@pytest.fixture(scope="module")
def mined(mirror: Mirror, sandbox: Sandbox, environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mined") / "shop.json"
    assert mine("shop", mirror, path, sandbox, environment, Options(), QUICK, now=NOW) is not None
    return path


@pytest.fixture(scope="module")
def task(mirror: Mirror, mined: Path) -> MinedTask:
    file, path = read(mined), mined
    assert file.metadata["ignored"] == ["--cov", "--cov-report", "--dist", "-n"]
    assert RepositoryStream(path, mirror).tasks()[0].issue == "Fees are a tenth of the price"
    return file.sequences[0].tasks[0]


Judged = Callable[..., tuple[Outcome, str]]


@pytest.fixture
def judged(mirror: Mirror, sandbox: Sandbox, environment: Environment, task: MinedTask, tmp_path: Path) -> Judged:
    """From changed files (None: deleted) to the verdict on them."""

    def verdict(files: Mapping[str, str | None], seconds: float = 20.0) -> tuple[Outcome, str]:
        made = checkout(mirror, task.metadata.base_commit, tmp_path / "work")
        for name, text in files.items():
            target = made.root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink() if text is None else target.write_text(text)
        return grade(mirror, task, diff(made), sandbox, environment, replace(LIMITS, seconds=seconds))

    return verdict


def test_a_fix_resolves_whatever_else_it_brings_along(judged: Judged) -> None:
    own = {"tests/test_fees.py": "def test_mine():\n    assert 0\n", "conftest.py": "raise SystemExit\n", "NEWS": "fees\n"}
    broken = {"pyproject.toml": "[tool.pytest.ini_options]\naddopts = '--nonsense'\n", "tests/conftest.py": "1 / 0\n"}
    verdict, why = judged({"shop/fees.py": GOLD, **own, **broken})
    assert (verdict, why) == (Outcome.RESOLVED, "2 tests passed")


def test_files_turned_into_folders_are_no_way_out_of_a_verdict(judged: Judged) -> None:
    verdict, _ = judged({"pyproject.toml": None, "tests/test_fees.py": None, "tests/test_fees.py/x": "1\n"})
    assert verdict is Outcome.UNRESOLVED


def test_nothing_resolves_nothing(mirror: Mirror, task: MinedTask, sandbox: Sandbox, environment: Environment) -> None:
    verdict, why = grade(mirror, task, "", sandbox, environment, QUICK)
    assert (verdict, why) == (Outcome.UNRESOLVED, "1 of 2 tests not seen to pass")


AT_IMPORT = "{}\n\n\n" + BASE
ATTACKS: dict[str, dict[str, str | None]] = {
    "a wrong fix": {"shop/fees.py": BASE.replace("0", "10 - price")},
    "edited tests": {"tests/test_fees.py": "def test_free():\n    pass\n\n\ndef test_fee():\n    pass\n"},
    "deleted tests": {"tests/test_fees.py": None, "tests/__init__.py": "", "tests/test_fees/__init__.py": ""},
    "a hook in conftest.py": {"conftest.py": MAKE_PASS, "tests/conftest.py": MAKE_PASS, "shop/conftest.py": MAKE_PASS},
    "a plugin in pytest's configuration": {
        "liar.py": MAKE_PASS, "pytest.ini": "[pytest]\naddopts = -p liar\n", "tests/pytest.ini": "[pytest]\naddopts = -p liar\n"
    },
    "a plugin that pytest finds by itself": {
        "liar.py": MAKE_PASS,
        "liar.egg-info/entry_points.txt": "[pytest11]\nliar = liar\n",
        "liar.egg-info/PKG-INFO": "Name: liar\nVersion: 1\n",
    },
    "another pytest": {"pytest.py": "def main(*a, **k):\n    print('2 passed')\n    return 0\n", "_pytest/__init__.py": ""},
    "code at Python's start": {"sitecustomize.py": "print('2 passed')\nimport os\nos._exit(0)\n"},
    "a printed report": {
        "shop/fees.py": AT_IMPORT.format(
            "import json\nfor key in ('', 'key', '0' * 32):\n"
            "    row = json.dumps(['tests/test_fees.py::test_fee', 'call', 'passed', False])\n"
            "    print(key, json.dumps({'code': 0, 'seconds': 1, 'rows': [row]}))"
        )
    },
    "an early end": {"shop/fees.py": AT_IMPORT.format("import os\nprint('2 passed')\nos._exit(0)")},
    "an early end that looks like a skip": {"shop/fees.py": AT_IMPORT.format("import pytest\npytest.exit('2 passed', 0)")},
    "a skipped module": {"shop/fees.py": AT_IMPORT.format("import pytest\npytest.skip('x', allow_module_level=True)")},
    "tests that are not called": {
        "shop/fees.py": AT_IMPORT.format("import pytest\npytest.Function.runtest = lambda self: None")
    },
    "reports that are made up": {
        "shop/fees.py": AT_IMPORT.format(
            "import _pytest.reports as r\nold = r.TestReport.from_item_and_call.__func__\n\n\ndef new(cls, item, call):\n"
            "    call.excinfo = None\n    return old(cls, item, call)\n\n\nr.TestReport.from_item_and_call = classmethod(new)"
        )
    },
    "a plugin registered at import": {
        "shop/fees.py": AT_IMPORT.format(
            "import gc, sys, types\nimport pytest\n\n" + MAKE_PASS.partition("import pytest")[2].strip() + "\n\n\n"
            "for thing in gc.get_objects():\n    if isinstance(thing, pytest.PytestPluginManager):\n"
            "        thing.register(sys.modules[__name__])"
        )
    },
}  # fmt: skip


SEEN_BY_THE_CONTROL = list(ATTACKS)[-3:]


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_is_no_fix_does_not_resolve(judged: Judged, attack: str) -> None:
    verdict, why = judged(ATTACKS[attack])
    assert verdict is Outcome.UNRESOLVED, why
    if attack in SEEN_BY_THE_CONTROL:
        assert "not sound" in why


def test_a_file_that_cannot_be_imported_without_the_fix_hides_no_other_test(
    sandbox: Sandbox, environment: Environment, tmp_path: Path
) -> None:
    made = History(tmp_path / "two")
    made.commit("start", {"two.py": "A = 0\n", "test_a.py": "", "test_b.py": ""})
    tests = {
        "test_a.py": "from two import B\n\n\ndef test_a():\n    assert B\n",
        "test_b.py": "def test_b():\n    import two\n",
    }
    made.commit("Give it a second value B", {"two.py": "A = 0\nB = 1\n", **tests})
    mirror = Mirrors(tmp_path / "mirrors").adopt("two", made.folder)
    file = mine("two", mirror, tmp_path / "two.json", sandbox, environment, None, QUICK, now=NOW)
    assert file is not None
    evaluation = file.sequences[0].tasks[0].evaluation
    assert (evaluation.FAIL_TO_PASS, evaluation.PASS_TO_PASS) == (("test_a.py::test_a",), ("test_b.py::test_b",))


def test_an_endless_fix_does_not_resolve(judged: Judged) -> None:
    assert judged({"shop/fees.py": "while True:\n    pass\n"}, seconds=3.0) == (
        Outcome.UNRESOLVED,
        "the tests did not end within 3 s",
    )


def test_odd_patches_are_answers_and_a_lost_interpreter_is_no_verdict(
    mirror: Mirror, task: MinedTask, sandbox: Sandbox, environment: Environment
) -> None:
    link = "diff --git a/l b/l\nnew file mode 120000\n--- /dev/null\n+++ b/l\n@@ -0,0 +1 @@\n+/etc/passwd\n"
    for patch in (link, "no patch\n", link.replace("120000", "100644").replace("b/l", "b/../../l"), "\udcff"):
        assert grade(mirror, task, patch, sandbox, environment, QUICK)[0] is Outcome.UNRESOLVED
    lost = environment.model_copy(update={"python": Path("/nonexistent/python")})
    assert grade(mirror, task, "", sandbox, lost, QUICK)[0] is Outcome.INFRASTRUCTURE_FAILURE


def test_a_link_that_was_there_cannot_be_led_elsewhere(
    mirror: Mirror, task: MinedTask, sandbox: Sandbox, environment: Environment
) -> None:
    led = f"diff --git a/l b/l\nindex {'1' * 40}..{'2' * 40} 120000\n--- a/l\n+++ b/l\n@@ -1 +1 @@\n-shop\n+/etc\n"
    assert "changes a link" in grade(mirror, task, led, sandbox, environment, QUICK)[1]


def test_code_under_test_cannot_rewrite_the_hidden_tests_or_read_the_key(
    sandbox: Sandbox, environment: Environment, tmp_path: Path
) -> None:
    root = tmp_path / "repo"
    root.mkdir()
    text = "import os, pathlib, shop\n\n\ndef test_it():\n    assert shop.X == 'tried', shop.X\n"
    (root / "test_it.py").write_text(text)
    (root / "shop.py").write_text(
        "import os, pathlib\n\nX = 'tried'\nif os.access('test_it.py', os.W_OK):\n    X = 'may write'\n"
        "if [n for n in os.listdir() if n.startswith('.')]:\n    X = 'sees the file with the key'\n"
        "try:\n    pathlib.Path(f'/proc/{os.getppid()}/mem').open('rb')\n"
        "    X = 'reads its parent'\nexcept OSError:\n    pass\n"
    )
    report = run_tests(root, sandbox, environment, ["test_it.py"], QUICK, hidden=["test_it.py"])
    assert (dict(report.results), report.sound) == ({"test_it.py::test_it": "passed"}, True), report.output
    assert sorted(path.name for path in root.iterdir()) == ["shop.py", "test_it.py"]


def test_a_hook_that_got_in_would_make_tests_pass_and_the_control_would_tell(
    sandbox: Sandbox, environment: Environment, tmp_path: Path
) -> None:
    (tmp_path / "conftest.py").write_text(MAKE_PASS)
    (tmp_path / "test_it.py").write_text("def test_it():\n    assert 0\n")
    for hidden, sound in (((), True), (("test_it.py",), False)):
        report = run_tests(tmp_path, sandbox, environment, ["test_it.py"], QUICK, hidden=hidden)
        assert (dict(report.results), report.sound) == ({"test_it.py::test_it": "passed"}, sound), report.output


class TestWhatTheAgentIsTold:
    @pytest.fixture
    def root(self, mirror: Mirror, tmp_path: Path) -> Path:
        made = checkout(mirror, mirror.commit("HEAD~1"), tmp_path / "repo")
        prepare(made.root, "2.1")
        (made.root / "shop/fees.py").write_text(GOLD)
        return made.root

    def test_targets_run_and_failures_are_shown(self, root: Path, sandbox: Sandbox, environment: Environment) -> None:
        report = run_tests(root, sandbox, environment, ["tests/test_fees.py::test_fee"], QUICK)
        assert dict(report.results) == {"tests/test_fees.py::test_fee": "failed"}
        assert not report.passed
        assert "assert 1.0 == 0" in report.output
        assert "control" not in report.output
        assert run_tests(root, sandbox, environment, ["tests/test_fees.py::test_free"], QUICK).passed

    def test_all_tests_run_where_none_is_named(self, root: Path, sandbox: Sandbox, environment: Environment) -> None:
        (root / "tests/test_more.py").write_text(
            "import pytest\n\n\n@pytest.mark.xfail\ndef test_x():\n    assert 0\n\n\n@pytest.fixture\ndef bad():\n"
            "    yield\n    1 / 0\n\n\ndef test_bad(bad):\n    pass\n\n\n@pytest.mark.skip\ndef test_s():\n    pass\n"
        )
        results = run_tests(root, sandbox, environment, (), QUICK).results
        found = {test.rpartition("::")[2]: outcome for test, outcome in results.items()}
        assert found == {
            "test_free": "passed",
            "test_fee": "failed",
            "test_x": "skipped",
            "test_bad": "error",
            "test_s": "skipped",
        }

    def test_no_such_target_and_no_such_plugin_are_told_not_raised(
        self, root: Path, sandbox: Sandbox, environment: Environment
    ) -> None:
        report = run_tests(root, sandbox, environment, ["tests/nowhere.py"], QUICK)
        assert not report.passed
        assert "not found" in report.output
        (root / "pytest.ini").write_text("[pytest]\naddopts = --snapshot-update\n")
        report = run_tests(root, sandbox, environment, (), QUICK)
        assert not report.started
        assert "--snapshot-update" in advice(report.output)


def test_a_repository_whose_tests_do_not_start_is_told_at_once_with_what_to_do(
    sandbox: Sandbox, environment: Environment, tmp_path: Path
) -> None:
    made = History(tmp_path / "snap")
    made.commit("start", {"snap.py": "X = 0\n", "pytest.ini": "[pytest]\naddopts = --snapshot-update\n", "test_x.py": "# 0\n"})
    for number in range(1, 9):
        text = f"import snap\n\n\ndef test_x():\n    assert snap.X == {number}\n"
        made.commit(f"Count on and on to {number}", {"snap.py": f"X = {number}\n", "test_x.py": text})
    mirror = Mirrors(tmp_path / "mirrors").adopt("snap", made.folder)
    seen: list[str] = []
    with pytest.raises(EvalError, match=r"does not start .*--snapshot-update"):
        mine("snap", mirror, tmp_path / "s.json", sandbox, environment, None, QUICK, lambda e: seen.append(e.reason), now=NOW)
    assert len(seen) == 3
    free = environment.model_copy(update={"arguments": ("-o", "addopts=")})
    file = mine("snap", mirror, tmp_path / "s.json", sandbox, free, Options(tasks=1), QUICK, now=NOW)
    assert file is not None
    assert file.metadata["environment"]["arguments"] == ["-o", "addopts="]


class TestEnvironment:
    def test_an_interpreter_without_pytest_is_refused_before_anything_is_run(self, tmp_path: Path) -> None:
        for path in (tmp_path / "none", Path("/bin/true")):
            with pytest.raises(EvalError, match="give a Python"):
                Environment.at(path)

    def test_a_repositorys_own_environment_is_taken_if_there_is_one(self, tmp_path: Path) -> None:
        assert python_of(tmp_path) == Path(PYTHON)
        own = tmp_path / ".venv/bin/python"
        own.parent.mkdir(parents=True)
        own.symlink_to(PYTHON)
        assert python_of(tmp_path) == own

    def test_a_command_is_taken_apart_into_options_and_places(self, mirror: Mirror) -> None:
        assert split_command("pytest", mirror) == ((), ())
        assert split_command("python -m pytest -m 'not slow' tests/ -x", mirror) == (("-m", "not slow", "-x"), ("tests",))
        assert split_command("pytest tests/test_fees.py", mirror) == ((), ("tests/test_fees.py",))
        for odd in ("make test", "tox -e py", "pytest 'x", "", "FOO=1 pytest"):
            with pytest.raises(EvalError, match="--tests"):
                split_command(odd, mirror)

    def test_no_task_is_used_up_while_the_python_or_the_mirror_is_gone(
        self, history: History, mined: Path, environment: Environment, tmp_path: Path
    ) -> None:
        places, key = Places(tmp_path), key_of(history.folder)
        places.streams.mkdir()
        source = open_source(TasksConfig(source=f"repo:{history.folder}"), places)
        stream = places.streams / f"{key}.json"
        stream.write_text(mined.read_text())
        with pytest.raises(EvalError, match="tasks mine"):
            source.examine()
        Mirrors(places.mirrors).adopt(key, history.folder)
        (task,) = source.next(frozenset(), 1)
        stream.write_text(mined.read_text().replace(environment.packages, "0" * len(environment.packages)))
        for ask in (source.examine, lambda: source.next(frozenset(), 1)):
            with pytest.raises(EvalError, match="other packages than when its tasks were mined; mine the repository again"):
                ask()
        assert source.next({t.id for t in source.stream([task]).tasks()}, 1) == [], "nothing to play, nothing to complain about"

    def test_a_link_that_an_editable_install_left_is_no_installed_copy(self, mirror: Mirror, tmp_path: Path) -> None:
        made = tmp_path / "own"
        subprocess.run([PYTHON, "-m", "venv", "--without-pip", made], check=True, timeout=60)
        (site,) = made.glob("lib/*/site-packages")
        (site / "deps.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n")
        for name in ("shop.pth", "shop.egg-link"):
            (site / name).write_text(f"{tmp_path}\n")
        assert Environment.at(made / "bin/python", mirror).also_installed == ()
        (site / "shop.py").touch()
        assert Environment.at(made / "bin/python", mirror).also_installed == ("shop",)

    def test_what_pytest_itself_loads_is_known(self, mirror: Mirror, tmp_path: Path) -> None:
        assert not Environment.at(Path(PYTHON), mirror).under_test
        made = History(tmp_path / "pluggy")
        made.commit("start", {"src/pluggy/__init__.py": ""})
        assert Environment.at(Path(PYTHON), Mirrors(tmp_path / "m").adopt("pluggy", made.folder)).under_test


def test_reports_that_are_none_show_nothing() -> None:
    key = "k" * 32
    row = '["t.py::test_x", "call", "passed", false]'
    good = f'{key} {{"code": 0, "seconds": 1, "rows": {[row]!r}}}'.replace("'", '"').replace('"[', "'[").replace(']"', "]'")
    for said in ("", f"{key} ", f"{key} []", f"{key} {{}}", good + "\n" + good, f'{key} {{"code": 0, "rows": ["[1]"]}}'):
        report = _report(said, key, "", False, 1.0)
        assert (dict(report.results), report.sound, report.passed) == ({}, False, False)
