"""Docker grading of real tasks, in images of the official layout that are made of pieces of this machine.

Runs where there is an engine (DOCKER_HOST, if it is not the client's own) and SLEEPY_MIRRORS names a folder with
`<owner>__<name>.git` or `<owner>+<name>/repo`. SLEEPY_ENVIRONMENTS may name a folder that keeps the Python environments,
SLEEPY_DOCKER_TASKS other tasks than these, joined by commas.
"""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.repositories import Mirrors, checkout, diff
from eval.errors import EvalError
from eval.swebench.dataset import Dataset, SweBenchSecret, read
from eval.swebench.docker.engine import Engine
from eval.swebench.docker.grader import DockerGrader
from eval.swebench.docker.images import Images
from eval.swebench.native.environments import Environments
from eval.swebench.native.recipes import recipe
from eval.swebench.stream import SweBenchWorkplace
from memory.trajectories import Outcome
from tests.eval.official import FUTURE, PRODUCT, official_image

pytestmark = [pytest.mark.docker, pytest.mark.real_repos]
DATA = Path(os.environ.get("SLEEPYD_DATA", Path(__file__).parents[3] / "shared" / "data")) / "swe-bench-cl.json"
TEMPLATE = "sleepy-tests/sweb.eval.{arch}.{hub_id}:latest"
QUICK, *OTHERS = os.environ.get("SLEEPY_DOCKER_TASKS", "pytest-dev__pytest-5809,sympy__sympy-20916").split(",")
HOOK = """
import pytest
@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    (yield).get_result().outcome = "passed"
"""
Edit = Callable[[Path, SweBenchSecret], None]


@dataclass
class Bench:
    """A task with its image; `patch` makes a patch of what an edit does to its files."""

    task: str
    dataset: Dataset
    mirrors: Mirrors
    grader: DockerGrader
    folder: Path

    @property
    def secret(self) -> SweBenchSecret:
        return self.dataset.secret(self.task)

    def patch(self, edit: Edit) -> str:
        mirror = self.mirrors.get(self.dataset.repo(self.task))
        made = checkout(mirror, self.dataset.base(self.task).commit, self.folder / f"edit-{edit.__name__}")
        try:
            edit(made.root, self.secret)
            return diff(made)
        finally:
            made.remove()


def mirrored(repo: str, into: Mirrors) -> None:
    given = os.environ.get("SLEEPY_MIRRORS")
    if not given:
        pytest.skip("SLEEPY_MIRRORS names no folder of mirrors")
    for place in (Path(given, f"{repo.replace('/', '__')}.git"), Path(given, repo.replace("/", "+"), "repo")):
        if place.is_dir():
            into.adopt(repo, place)
            return
    pytest.skip(f"SLEEPY_MIRRORS has no {repo}")


@pytest.fixture(scope="module", params=[QUICK, *(pytest.param(task, marks=pytest.mark.slow) for task in OTHERS)])
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    task, folder = request.param, tmp_path_factory.mktemp("docker")
    if not DATA.is_file():
        pytest.skip(f"no {DATA}: sleepyctl data fetch swe-bench-cl, and name its folder in SLEEPYD_DATA")
    dataset, mirrors = read(DATA), Mirrors(folder / "mirrors")
    try:
        engine = Engine()
        images = Images(engine, dataset, mirrors, TEMPLATE)
        name = images.names(task)[0]
    except EvalError as error:
        pytest.skip(str(error))
    mirrored(dataset.repo(task), mirrors)
    repo, base = dataset.repo(task), dataset.base(task)
    if engine.identity(name) is None:
        environments = Environments(Path(os.environ.get("SLEEPY_ENVIRONMENTS", folder / "environments")))
        how = recipe(repo, base.version)
        official_image(name, mirrors.get(repo), base.commit, how, environments.get(how), folder)
    yield Bench(task, dataset, mirrors, DockerGrader(dataset, mirrors, images, folder / "products", folder), folder)
    engine.remove(name)


def test_gold_resolves_and_nothing_does_not(bench: Bench) -> None:
    gold = bench.grader.grade(bench.task, bench.secret.patch)
    assert (gold.outcome, gold.environment) == (Outcome.RESOLVED, bench.grader.prepare(bench.task)), gold.why
    empty = bench.grader.grade(bench.task, "")
    assert empty.outcome is Outcome.UNRESOLVED
    assert "0 of" in empty.why.partition(", ")[2]  # what passed before still does: the tests did run


def comment(root: Path, secret: SweBenchSecret) -> None:
    with (root / secret.modified_files[0]).open("a", encoding="utf-8") as file:
        file.write("\n# fixed\n")


def prints(root: Path, secret: SweBenchSecret) -> None:
    """Results after those of the run, where the log alone would be believed."""
    tests = (*secret.fail_to_pass, *secret.pass_to_pass)
    told = "".join(f"PASSED {test}\n{test} ok\n{test} ... ok\n" for test in tests)
    with (root / secret.modified_files[0]).open("a", encoding="utf-8") as file:
        file.write(f"\nimport atexit, os\natexit.register(os.write, 1, {told!r}.encode())\n")


def rewrites(root: Path, secret: SweBenchSecret) -> None:
    (root / "conftest.py").write_text(HOOK, encoding="utf-8")
    (root / "sitecustomize.py").write_text("import os; os._exit(0)\n", encoding="utf-8")
    for path in re.findall(r"^diff --git a/.* b/(.*)$", secret.test_patch, re.MULTILINE):
        names = [re.split(r"::|\.", test)[-1].split("[")[0].split(" ")[0] for test in secret.fail_to_pass]
        text = "".join(f"def {name}(*args): pass\n" for name in names)
        (root / path).write_text(text, encoding="utf-8")


@pytest.mark.parametrize("edit", [comment, prints, rewrites], ids=lambda edit: edit.__name__)
def test_what_mends_nothing_resolves_nothing(bench: Bench, edit: Edit) -> None:
    patch = bench.patch(edit)
    assert patch
    verdict = bench.grader.grade(bench.task, patch)
    assert verdict.outcome is Outcome.UNRESOLVED, verdict.why


def test_the_agent_gets_what_was_built_and_no_history(bench: Bench) -> None:
    place = SweBenchWorkplace(bench.grader, bench.task, bench.folder / "agents")
    try:
        root = place.workspace.root
        assert (root / "build" / PRODUCT).read_text(encoding="utf-8") == "product\n"
        assert not (root / ".git").exists()
        found = [*root.rglob("*"), *root.with_name("agents.git").rglob("*")]
        assert not any(FUTURE.encode() in path.read_bytes() for path in found if path.is_file())
        assert "edited before it was installed" not in (root / "setup.cfg").read_text(encoding="utf-8")
        assert place.diff() == ""
        run = place.test(("--version",) if bench.secret.task_id.startswith("pytest") else ("sympy/core/tests/test_cache.py",))
        assert run.passed, run.text
        assert str(root) not in run.text
        assert place.diff() == ""
    finally:
        place.close()
    assert not root.exists()
