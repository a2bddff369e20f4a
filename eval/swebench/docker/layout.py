"""How tests run in an image that is laid out like the benchmark's own: what its harness runs, as one command without a shell.

What the harness does besides is left out: it installs the repository again after a patch (no fix of the benchmark changes
what is compiled or installed), generates locales as root (the images have them all), and goes through tox for sphinx, which
would hide the run from the witness: what tox would start is started itself.
"""

from __future__ import annotations

import re
import shlex
from datetime import date
from pathlib import Path
from typing import Any, Literal

from agent.workspace import Workspace
from eval.errors import EvalError
from eval.swebench.native import runs
from eval.swebench.native.recipes import Recipe, known
from eval.swebench.native.recipes import recipe as native
from eval.swebench.native.tables import tables

REPOSITORY = "/testbed"
CONDA = "/opt/miniconda3"
ENVIRONMENT = f"{CONDA}/envs/testbed"
PYTHON = f"{ENVIRONMENT}/bin/python"
OLDEST = (3, 6)
"""The oldest Python that the witness runs on."""
_ASSIGNED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_TOX = ("python", "-X", "dev", "-m", "pytest", "-rA", "--durations", "25")
_WITNESSES: dict[str, Literal["unittest", "sympy"]] = {"django/django": "unittest", "sympy/sympy": "sympy"}
_PROTECTED = {"sympy/sympy": ("bin/test", "sympy/testing/", "sympy/utilities/runtests.py")}


def recipe(repo: str, version: str | None) -> Recipe:
    """How the tests of a version are run; nothing in it is of an environment of our own.

    Raises:
        EvalError: swebench's tables have no such version.
    """
    spec = tables().specs.get(repo, {}).get(version or "")
    if version is None or spec is None:
        raise EvalError(f"swebench's tables have no version {version!r} of {repo}; the tasks' metadata.version must be theirs")
    command, variables = words(spec)
    protected = native(repo, version).protected if repo in known() else _PROTECTED.get(repo, ())
    return Recipe(
        repo=repo,
        version=version,
        python=str(spec["python"]),
        packages=(),
        sources=(),
        before=date.max,
        dist=None,
        run=command,
        paths=(),
        witness=_WITNESSES.get(repo, "pytest"),
        compat=(),
        files={},
        env=variables,
        protected=protected,
    )


def words(spec: Any) -> tuple[tuple[str, ...], dict[str, str]]:
    """The test command of a specification without its targets, and the variables it gets."""
    variables: dict[str, str] = {}
    for line in spec.get("eval_commands", ()):
        found = shlex.split(line)
        if found[:1] == ["export"]:
            variables.update({pair[1]: pair[2] for word in found[1:] if (pair := _ASSIGNED.fullmatch(word))})
    command = shlex.split(spec["test_cmd"])
    while command and (assigned := _ASSIGNED.fullmatch(command[0])):
        variables[assigned[1]] = assigned[2]
        del command[0]
    return _TOX if command[:1] == ["tox"] else tuple(command), variables


def workspace(how: Recipe, root: Path) -> Workspace:
    """The workspace at `root`, which the container shows at `REPOSITORY`; `test_argv` lacks the tests to be run."""
    variables = {
        "PATH": f"{ENVIRONMENT}/bin:{CONDA}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "CONDA_PREFIX": ENVIRONMENT,
        "CONDA_DEFAULT_ENV": "testbed",
        "PYTHONPATH": str(runs.SHIMS),
        "USER": "nobody",  # the image need not know the number that it is run as
        "TMPDIR": "/tmp",
        **how.env,
    }
    return Workspace(root, how.run, (runs.SHIMS,), variables)
