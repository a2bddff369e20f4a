"""The Python that a repository's tests run in; it is recorded in the stream file, so that playing and grading use the same."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from agent.repositories import Mirror
from agent.sandbox.base import PYTHON
from eval.errors import EvalError
from eval.mining.schema import StreamFile
from memory.hashing import content_hash

VENVS = (".venv", "venv", "env")
_ASK = """
import json, os, sys, sysconfig
from importlib import metadata
import pytest
found = list(metadata.distributions())
plugins = [point for one in found for point in one.entry_points if point.group == "pytest11"]
modules = [*sys.modules, *(point.value.partition(":")[0] for point in plugins)]
print(json.dumps({
    "prefix": sys.prefix, "base": sys.base_prefix,
    "versions": "python %s, pytest %s" % (sys.version.split()[0], pytest.__version__),
    "packages": sorted({"%s %s" % (one.metadata["Name"], one.version) for one in found}),
    "plugins": sorted({point.name for point in plugins}),
    "installed": sorted({
        name.partition(".")[0]
        for name in os.listdir(sysconfig.get_paths()["purelib"])
        if not name.endswith((".pth", ".egg-link"))  # they lead to the repository itself
    }),
    "loaded": sorted({name.partition(".")[0] for name in modules}),
}))
"""


class Environment(BaseModel):
    """An interpreter with pytest and what the repository needs, and how pytest is called."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    python: Path
    """The interpreter; the link of a virtual environment is kept."""
    mounts: tuple[Path, ...]
    """Folders that it lives in: what a sandbox must show, read-only."""
    versions: str
    """Of Python and pytest, for people."""
    packages: str
    """Hash of all that is installed, names and versions."""
    plugins: tuple[str, ...] = ()
    """Installed pytest plugins, by their entry points."""
    autoload: bool = True
    """Whether pytest loads those by itself; without them runs are faster and more alike."""
    arguments: tuple[str, ...] = ()
    """Given to pytest after the repository's own `addopts`."""
    under_test: bool = False
    """Whether the repository provides modules that pytest itself loads, and so must come before the installed ones."""
    also_installed: tuple[str, ...] = ()
    """Modules of the repository that are installed there too: an agent's tests could read a later version of them."""

    @classmethod
    def at(
        cls, path: Path = Path(PYTHON), mirror: Mirror | None = None, arguments: tuple[str, ...] = (), autoload: bool = True
    ) -> Environment:
        """Ask an interpreter where it lives and what it has; `mirror` is the repository that will be tested.

        Raises:
            EvalError: it does not start, has no pytest, or cannot be shown to a sandbox.
        """
        path = Path(os.path.normpath(path.expanduser().absolute()))
        told = _asked(path)
        homes = {Path(told["prefix"]), Path(told["base"]), Path(told["base"]).resolve()}
        mounts = sorted(home for home in homes if not home.is_relative_to("/usr") and home != Path("/"))
        if any(Path.home().is_relative_to(home) for home in mounts):
            raise EvalError(
                f"{path}: the sandbox would have to show your home folder; give a Python that is installed elsewhere"
            )
        own = _provides(mirror) if mirror is not None else set[str]()
        return cls(
            python=path,
            mounts=tuple(mounts),
            versions=told["versions"],
            packages=content_hash(told["packages"]),
            plugins=tuple(told["plugins"]) if autoload else (),
            autoload=autoload,
            arguments=arguments,
            under_test=bool(own & set(told["loaded"])),
            also_installed=tuple(sorted(own & set(told["installed"]))),
        )

    def verified(self) -> Environment:
        """This environment, after it was seen to be still what it was.

        Raises:
            EvalError: it is gone, or other packages are installed now.
        """
        now = Environment.at(self.python, None, self.arguments, self.autoload)
        if (now.versions, now.packages) != (self.versions, self.packages):
            raise EvalError(f"{self.python} has other packages than when its tasks were mined; mine the repository again")
        return self


def _asked(path: Path) -> dict[str, Any]:
    try:
        asked = subprocess.run([path, "-I", "-c", _ASK], capture_output=True, timeout=60, check=True, cwd="/")
        return dict(json.loads(asked.stdout))
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        told = getattr(error, "stderr", None) or b""
        last = told.decode("utf-8", "replace").strip().split("\n")[-1][:200] or getattr(error, "strerror", None)
        why = f" ({last})" if last else ""
        raise EvalError(
            f"{path} does not run pytest{why}; give a Python (3.8 or newer) that has it, and what the repository needs"
        ) from error


def _provides(mirror: Mirror) -> set[str]:
    """Names that can be imported from the top folder of HEAD's tree, or its `src`."""
    listed = mirror.git("ls-tree", "-z", "--name-only", "HEAD", ".", "src/").decode("utf-8", "replace").split("\0")
    return {name.rpartition("/")[2].removesuffix(".py") for name in listed} - {"", "tests", "test", "docs", "src", "bin"}


def python_of(repository: Path) -> Path:
    """The interpreter of a repository's own virtual environment, or else this one."""
    found = (repository / name / "bin" / "python" for name in VENVS)
    return next((path for path in found if path.exists()), Path(PYTHON))


def environment_of(file: StreamFile) -> Environment:
    """The environment that a stream's tasks were proven in.

    Raises:
        EvalError: the file does not say.
    """
    try:
        return Environment.model_validate(file.metadata.get("environment"))
    except ValidationError as error:
        raise EvalError("the stream file does not say what its tests run in; mine the repository again") from error


def split_command(command: str, exists: Mirror) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Arguments of pytest, and paths of the repository, out of a command line such as `pytest -m "not slow" tests/unit`.

    Raises:
        EvalError: it is no call of pytest.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise EvalError(f"--tests: {error}; write it as on the command line") from error
    start = next((n for n, word in enumerate(words) if Path(word).name in ("pytest", "py.test")), None)
    if start is None or words[:start] not in ([], ["python", "-m"], ["python3", "-m"]):
        raise EvalError("--tests: only pytest is understood, such as 'pytest -m \"not slow\" tests/unit'")
    names = set(exists.git("ls-tree", "-r", "-t", "-z", "--name-only", "HEAD").decode("utf-8", "replace").split("\0"))
    rest = words[start + 1 :]
    paths = tuple(word.rstrip("/") for word in rest if word.rstrip("/") in names)
    return tuple(word for word in rest if word.rstrip("/") not in names), paths
