"""Koans run and graded in the sandbox, in a way that a submission cannot talk itself into.

Three runs: the submission is compiled alone, as a library (no program of its own is run); the hidden
cases are compiled against that library; the program of the cases is run with nothing but itself in
view. The cases print what the submission's functions *returned*, behind a marker drawn for each run.
What they should have returned never enters the sandbox: a submission that prints, exits, panics,
reads its own memory or executable, or guesses the marker still has to know the answers.

What remains possible: guessing an answer (each case takes one line; a second one spoils it), and
special treatment of the inputs, which the program does hold. Where the package is installed inside
the interpreter's own folder, a sandbox that shows that folder shows the answers too.
"""

from __future__ import annotations

import json
import secrets
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from agent.errors import SandboxError
from agent.sandbox.base import ExecResult, Sandbox
from agent.tools import TestRun
from agent.workplace import tree_diff
from agent.workspace import Workspace, remove_tree, write_tree
from eval.koans.book import ANSWERS, HARNESS, SOURCE
from eval.koans.signatures import signature
from eval.koans.toolchain import LIMITS, Rust
from memory.tasks import TaskSecret
from memory.trajectories import Outcome

GRADED_BY = (Path(__file__).resolve(),)
_NOT_STARTED = (126, 127)
_RUN_LIMITS = replace(LIMITS, seconds=10.0, processes=16, memory_bytes=512 * 2**20, file_bytes=2**20)
_LIBRARY = "libkoan.rlib"
_PROGRAM = "cases"


class KoanWorkplace:
    """One Rust file with its visible tests."""

    def __init__(self, root: Path, source: str, secret: TaskSecret, sandbox: Sandbox, rust: Rust) -> None:
        write_tree(root, {SOURCE: source})
        self.workspace = rust.workspace(root)
        self._source, self._secret, self._sandbox, self._rust = source, secret, sandbox, rust

    def test(self, targets: Sequence[str] = ()) -> TestRun:
        """See `Workplace`: the compiler's complaints, or the report of the visible tests, all of them."""
        result = _ran(self._sandbox, self.workspace.test_argv, self.workspace)
        if result.timed_out:
            return TestRun(False, f"the tests did not end within {LIMITS.seconds:g} s")
        return TestRun(result.returncode == 0, result.stdout.strip())

    def diff(self) -> str:
        """See `Workplace`; only the koan itself counts."""
        return tree_diff({SOURCE: self._source}, self._submitted())

    def grade(self) -> tuple[Outcome, str]:
        """See `Workplace`."""
        return grade(self._secret, self._submitted(), self._sandbox, self._rust)

    def close(self) -> None:
        """See `Workplace`."""
        with suppress(OSError):
            remove_tree(self.workspace.root)

    def _submitted(self) -> dict[str, str]:
        return {path: text for path, text in self.workspace.snapshot().items() if path == SOURCE}


def grade(secret: TaskSecret, files: Mapping[str, str], sandbox: Sandbox, rust: Rust) -> tuple[Outcome, str]:
    """The verdict on submitted files, of which only the koan itself counts, and what decided it."""
    if SOURCE not in files:
        return Outcome.UNRESOLVED, f"there is no {SOURCE}"
    with tempfile.TemporaryDirectory(prefix="grade-") as name:
        folder = Path(name).resolve()
        try:
            return _graded(secret, files[SOURCE], folder, sandbox, rust)
        except (SandboxError, OSError) as error:
            return Outcome.INFRASTRUCTURE_FAILURE, str(error)


def _graded(secret: TaskSecret, source: str, folder: Path, sandbox: Sandbox, rust: Rust) -> tuple[Outcome, str]:
    alone, against, away = folder / "alone", folder / "against", folder / "away"
    write_tree(alone, {SOURCE: source})
    library = rust.argv("--crate-name", "koan", "--crate-type", "rlib", "-o", _LIBRARY, SOURCE)
    built = _ran(sandbox, library, rust.workspace(alone))
    if not _is_made(built, alone / _LIBRARY):
        return Outcome.UNRESOLVED, f"{SOURCE} does not compile: {_why(built)}"
    write_tree(against, {"main.rs": secret.tests[HARNESS]})
    program = rust.argv("--crate-name", _PROGRAM, "--extern", f"koan={alone / _LIBRARY}", "-o", _PROGRAM, "main.rs")
    built = _ran(sandbox, program, rust.workspace(against, alone))
    if not _is_made(built, against / _PROGRAM):
        return Outcome.UNRESOLVED, f"the hidden tests do not compile against {SOURCE}: {_why(built)}"
    away.mkdir()
    marker = secrets.token_hex(16)
    executable = against / _PROGRAM
    result = sandbox.run((str(executable), marker), Workspace(away, (), (executable,)), _RUN_LIMITS)
    if result.timed_out:
        return Outcome.UNRESOLVED, f"the hidden tests did not end within {_RUN_LIMITS.seconds:g} s"
    returned = reported(result.stdout, marker)
    answers: dict[str, str] = json.loads(secret.tests[ANSWERS])
    needed = [test.partition("::")[2] for test in (*secret.fail_to_pass, *secret.pass_to_pass)]
    if missed := sum(returned.get(case) != answers[case] for case in needed):  # which ones is a secret
        return Outcome.UNRESOLVED, f"{missed} of {len(needed)} tests not seen to pass"
    if result.returncode != 0 or result.truncated:
        return Outcome.UNRESOLVED, "the hidden tests did not end well"
    return Outcome.RESOLVED, f"{len(needed)} tests passed"


def reported(output: str, marker: str) -> dict[str, str]:
    """Case to returned text, from lines behind the marker; a case that reports twice has reported nothing."""
    found: dict[str, str] = {}
    twice: set[str] = set()
    for line in output.split("\n"):
        words = line.split(" ")
        if len(words) != 3 or words[0] != marker:
            continue
        twice |= {words[1]} & found.keys()
        try:
            found[words[1]] = bytes.fromhex(words[2]).decode()
        except ValueError:
            twice.add(words[1])
    return {name: text for name, text in found.items() if name not in twice}


def _ran(sandbox: Sandbox, argv: tuple[str, ...], workspace: Workspace) -> ExecResult:
    result = sandbox.run(argv, workspace, LIMITS)
    if result.returncode in _NOT_STARTED or "error: linker `" in result.stdout:
        raise SandboxError(f"the Rust compiler does not run in the sandbox: {result.stdout.strip()[:300]}; install it again")
    return result


def _is_made(result: ExecResult, path: Path) -> bool:
    return result.returncode == 0 and path.is_file() and not path.is_symlink()


def _why(result: ExecResult) -> str:
    found = signature(result.stdout)
    return str(found) if found is not None else "the compiler was stopped" if result.timed_out else "no reason given"
