"""One run of a candidate's tests: pytest in the sandbox, its results seen test by test."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import tempfile
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

from agent.repositories import Mirror, RepositoryError, apply, checkout
from agent.sandbox.base import Limits, Sandbox
from agent.workspace import Workspace
from eval.errors import EvalError
from eval.mining.history import Candidate, Refused

PASSED = "passed"
MAX_REPORT_BYTES = 16 * 2**20
_ASK = "import json, sys, pytest; print(json.dumps([sys.prefix, sys.base_prefix, sys.version.split()[0], pytest.__version__]))"


@dataclass(frozen=True)
class Interpreter:
    """A Python with pytest and what the repository needs; `mounts` are the folders that it lives in."""

    path: Path
    mounts: tuple[Path, ...]
    versions: str

    @classmethod
    def at(cls, path: Path) -> Interpreter:
        """Ask an interpreter where it lives.

        Raises:
            EvalError: it does not start, or has no pytest.
        """
        path = Path(os.path.normpath(path.absolute()))  # a virtual environment's link is kept
        try:
            asked = subprocess.run([path, "-I", "-c", _ASK], capture_output=True, timeout=60, check=True, cwd="/")
            prefix, base, python, pytest = json.loads(asked.stdout)
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            raise EvalError(f"{path} does not run pytest; give a Python that has it, and what the repository needs") from error
        homes = {Path(prefix), Path(base), Path(base).resolve()}
        mounts = sorted(home for home in homes if not home.is_relative_to("/usr") and home != Path("/"))
        if any(Path.home().is_relative_to(home) for home in mounts):
            raise EvalError(
                f"{path}: the sandbox would have to show your home folder; give a Python that is installed elsewhere"
            )
        return cls(path, tuple(mounts), f"python {python}, pytest {pytest}")


@dataclass(frozen=True)
class Laboratory:
    """Where candidates are tried."""

    mirror: Mirror
    sandbox: Sandbox
    interpreter: Interpreter
    limits: Limits
    plugins: bool = True

    def run(self, candidate: Candidate, fixed: bool, version: str) -> dict[str, str]:
        """Test id to `passed` or something else, for the candidate's tests without or with its fix.

        Every run has its own workspace. The report lies outside of the repository's tree; a test
        that it does not list has not been run.

        Raises:
            Refused: the patches do not apply, pytest took too long, or it left no report.
            SandboxError: the sandbox itself failed.
        """
        with tempfile.TemporaryDirectory(prefix="mine-") as name:
            box = Path(name).resolve() / "box"
            box.mkdir()
            made = checkout(self.mirror, candidate.base, Path(name).resolve() / "repo")
            try:
                apply(made, candidate.test_patch)
                if fixed:
                    apply(made, candidate.patch)
            except RepositoryError:
                raise Refused("patch does not apply") from None
            # The git directory stays behind: the sandbox gets the box and nothing around it.
            root = made.root.rename(box / "repo")
            report = box / f"{secrets.token_hex(8)}.xml"
            result = self.sandbox.run(self._command(candidate, root, report, version), self._workspace(box), self.limits)
            if result.timed_out:
                raise Refused("tests take too long")
            return _results(report)

    def _workspace(self, box: Path) -> Workspace:
        return Workspace(box, (), self.interpreter.mounts)

    def _command(self, candidate: Candidate, root: Path, report: Path, version: str) -> list[str]:
        paths = [str(root / "src"), str(root)] if (root / "src").is_dir() else [str(root)]
        plain = ("-p", "no:cacheprovider", "-p", "no:randomly", "-p", "no:xdist", "-q", "--tb=no", "-o", "junit_family=xunit1")
        return [
            *("/usr/bin/env", "-C", str(root)),
            f"PYTHONPATH={':'.join(paths)}",
            f"SETUPTOOLS_SCM_PRETEND_VERSION={version}",
            *([] if self.plugins else ["PYTEST_DISABLE_PLUGIN_AUTOLOAD=1"]),
            *(str(self.interpreter.path), "-m", "pytest", *plain, f"--rootdir={root}", f"--junit-xml={report}", "--"),
            *candidate.runnable,
        ]


def _results(report: Path) -> dict[str, str]:
    """The results of a JUnit report, by pytest's test ids; a test listed twice passed if it did each time."""
    try:
        handle = os.open(report, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            data = file.read(MAX_REPORT_BYTES + 1)
        if len(data) > MAX_REPORT_BYTES or b"<!DOCTYPE" in data or b"<!ENTITY" in data:
            raise Refused("tests leave no report")
        cases = list(ET.fromstring(data).iter("testcase"))
    except (OSError, ET.ParseError):
        raise Refused("tests leave no report") from None
    found: dict[str, str] = {}
    for case in cases:
        path, group, name = (case.get(key, "") for key in ("file", "classname", "name"))
        if not path or not name:  # a file that could not be collected
            continue
        module = path.removesuffix(".py").replace("/", ".")
        inner = group.removeprefix(module).removeprefix(".") if group.startswith(module) else ""
        identity = "::".join([path, *inner.split("."), name] if inner else [path, name])
        outcome = next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), PASSED)
        found[identity] = outcome if found.get(identity, PASSED) == PASSED else found[identity]
    return found
