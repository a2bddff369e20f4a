"""One run of a task's tests in the sandbox, seen twice: in the log, as the official parser reads it, and by a witness.

The log is what the official verdict is made of, but code under test prints to it as well. So a plugin of ours, loaded before
any code of the repository, reports each test past the log, behind a key drawn for the run (`shims/sleepy_witness.py` says
what that cannot stop). A test has passed only if both say so, and never the one without the other.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.sandbox.base import ExecResult, Limits, Sandbox
from agent.tools import TestRun
from agent.workspace import Workspace
from eval.swebench.native.environments import Environment
from eval.swebench.native.recipes import Recipe
from eval.swebench.native.tables import tables

SHIMS = Path(__file__).resolve().parent / "shims"
LIMITS = Limits(
    seconds=600.0,
    memory_bytes=4 * 2**30,
    processes=256,
    file_bytes=512 * 2**20,
    output_bytes=32 * 2**20,
    disk_bytes=4 * 2**30,
    entries=200_000,
)
REPORT_BYTES = 64 * 2**20
PASSED = ("PASSED", "XFAIL")
"""What swebench counts as a pass; never seen is neither."""
_WORST = ("SKIPPED", "PASSED", "XFAIL", "XPASS", "FAILED", "ERROR")
"""Two tests can share an id (subclasses in Django); one that is skipped beside one that passes is no failure."""
_UNITTEST = {"PASSED": "ok", "SKIPPED": "skipped 'it'", "FAILED": "FAIL", "ERROR": "ERROR"}
_SYMPY = {"PASSED": "ok", "FAILED": "F", "ERROR": "E"}


@dataclass(frozen=True)
class Run:
    """How a run ended, and test id to status of whatever the log tells of; a pass that no witness saw is `FAILED`."""

    result: ExecResult
    statuses: Mapping[str, str]
    witnessed: int


def workspace(recipe: Recipe, environment: Environment, root: Path) -> Workspace:
    """The workspace at `root` with what the tests of its repository need; `test_argv` lacks the tests to be run."""
    paths = [SHIMS, *(root / path for path in recipe.paths)]
    variables = {
        "PATH": f"{environment.python.parent}:/usr/local/bin:/usr/bin:/bin",
        "VIRTUAL_ENV": str(environment.python.parent.parent),
        "PYTHONPATH": os.pathsep.join(str(path) for path in paths),
        "TMPDIR": "/tmp",
        **({"SLEEPY_COMPAT": ",".join(recipe.compat)} if recipe.compat else {}),
        **recipe.env,
    }
    return Workspace(root, (str(environment.python), *recipe.run), (SHIMS, *environment.mounts), variables)


def build(recipe: Recipe, root: Path, version: str) -> None:
    """Write what the repository's own build would have written; `version` is what its package calls itself."""
    for path, text in recipe.files.items():
        target = root / path
        if target.parent.is_dir() and target.parent.resolve().is_relative_to(root.resolve()) and not target.is_symlink():
            target.write_text(text.replace("{version}", version), encoding="utf-8")


def run(recipe: Recipe, place: Workspace, targets: Sequence[str], sandbox: Sandbox, limits: Limits = LIMITS) -> Run:
    """Run some tests and say what became of each.

    Raises:
        SandboxError: the sandbox failed.
    """
    key = secrets.token_hex(32)
    report = place.root / f".{secrets.token_hex(8)}"
    report.write_text(f"{recipe.witness} {key}", encoding="ascii")
    plugin = ("-p", "sleepy_pytest") if recipe.witness == "pytest" else ()
    watched = Workspace(place.root, place.test_argv, place.mounts, {**place.env, "SLEEPY_WITNESS": str(report)})
    try:
        result = sandbox.run((*place.test_argv, *plugin, *targets), watched, limits)
        told = _told(report, key)
    finally:
        report.unlink(missing_ok=True)
    parse = tables().parsers[recipe.repo]
    seen = _seen(recipe.witness, told, lambda line: parse(line, None))
    log = {} if result.truncated or result.timed_out else parse(result.stdout, None)
    places = tuple(f"{target}::" for target in targets)
    # The official lists have ids in them that stand in the logs of pytest's own tests, and are tests of no file that was run.
    foreign = {test for test in log if recipe.witness == "pytest" and not test.startswith(places) and test not in seen}
    statuses = {
        test: status if status not in PASSED or test in foreign or seen.get(test) in PASSED else "FAILED"
        for test, status in log.items()
    }
    return Run(result, statuses, len(told))


def told_to_the_agent(result: ExecResult, limits: Limits) -> TestRun:
    """A test run of the agent's own, as it is shown; passed only if its exit code says so."""
    if result.timed_out:
        return TestRun(False, f"the tests did not end within {limits.seconds:g} s\n{result.stdout.strip()}")
    return TestRun(result.returncode == 0, result.stdout.strip())


def _told(report: Path, key: str) -> list[tuple[str, str]]:
    """The lines of the report that carry the key: test and status. A program may have put anything in its place."""
    try:
        handle = os.open(report, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            data = file.read(REPORT_BYTES + 1)
    except OSError:
        return []
    if len(data) > REPORT_BYTES:
        return []
    found = []
    for line in data.decode("utf-8", "replace").split("\n"):
        if not line.startswith(f"{key} "):
            continue
        try:
            test, status = json.loads(line.removeprefix(f"{key} "))
        except (ValueError, TypeError):
            return []
        found.append((str(test), str(status)))
    return found


def _seen(witness: str, told: Sequence[tuple[str, str]], parse: Callable[[str], Mapping[str, str]]) -> dict[str, str]:
    """Test id, as the official parser would have it, to the worst that was told of it."""
    found: dict[str, str] = {}
    for test, status in told:
        line = _line(witness, test, status)
        for identity in parse(line) if line else ():
            found[identity] = max(found.get(identity, status), status, key=_WORST.index if status in _WORST else lambda _: 0)
    return found


def _line(witness: str, test: str, status: str) -> str:
    """What the framework itself would have logged."""
    if status not in _WORST:
        return ""
    if witness == "unittest":
        return f"{test.splitlines()[-1] if test else ''} ... {_UNITTEST.get(status, 'FAIL')}"
    if witness == "sympy":
        return f"{test} {_SYMPY[status]}" if status in _SYMPY else ""
    # The parsers know no other words, and XPASS is none of theirs.
    return f"{status if status != 'XPASS' else 'FAILED'} {test}"
