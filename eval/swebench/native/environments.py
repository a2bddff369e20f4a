"""Locked Python environments for the tests of repositories: made once by uv, whole or not at all, used read-only.

The folder of an environment is named after what decides it. A virtual environment has absolute paths in it and cannot be
renamed into place; so it is finished when its `environment.json` is there, and anything without one is made anew. No package
runs code while it is installed, but for those that a recipe names as sources.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shutil
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from eval.errors import EvalError
from eval.swebench.native.recipes import Recipe
from memory.files import write_whole
from memory.hashing import content_hash

FORMAT = 1
UV_SECONDS = 1800.0
_MARK = "environment.json"
_ASK = "import json, sys; print(json.dumps([sys.base_prefix, sys.version.split()[0]]))"


class Facts(BaseModel):
    """What an environment is, for verdicts: the Python, and the hash of the exact versions of all packages."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    python: str
    lock: str


class _Mark(Facts):
    base: Path
    packages: tuple[str, ...]


@dataclass(frozen=True)
class Environment:
    """An environment that is there. `python` runs it; a sandbox must show `mounts`."""

    facts: Facts
    python: Path
    mounts: tuple[Path, ...]


class Environments:
    """The environments in one folder; safe for several threads and processes.

    uv's configuration files are not read; its variables (`UV_INDEX_URL` and the like) are.
    """

    def __init__(
        self, folder: Path, python: str | None = None, on_step: Callable[[str], None] = lambda step: None, uv: str | None = None
    ) -> None:
        """Args: `python` replaces the recipes' choice (a version or a path, as for uv); `on_step` is told what is made."""
        self.folder = Path(os.path.abspath(folder))  # noqa: PTH100 - links in it are the caller's
        self._python, self._on_step, self._uv = python, on_step, uv
        self._known: dict[str, Environment] = {}
        self._making: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def key(self, recipe: Recipe) -> str:
        """What the environment of a recipe is called: everything that decides it."""
        decides = recipe.model_dump(mode="json", include={"packages", "sources", "before", "dist"})
        machine = [sys.platform, platform.machine()]
        version = recipe.version if recipe.dist else None
        return content_hash([FORMAT, self._python or recipe.python, version, decides, machine])

    def get(self, recipe: Recipe) -> Environment:
        """The environment of a recipe, made now if it is not there.

        Raises:
            EvalError: uv is missing, has no such Python, or cannot get a package; the text says what to do.
        """
        key = self.key(recipe)
        with self._making[key]:
            if key not in self._known:
                self._known[key] = self._open(key) or self._make(key, recipe)
            return self._known[key]

    def _open(self, key: str) -> Environment | None:
        home = self.folder / key
        try:
            mark = _Mark.model_validate_json((home / _MARK).read_bytes())
        except (OSError, ValidationError):
            return None
        python = home / "venv" / "bin" / "python"
        if not python.exists():  # the Python behind it was removed
            return None
        mounts = [home / "venv", *(path for path in {mark.base, mark.base.resolve()} if not path.is_relative_to("/usr"))]
        return Environment(Facts(key=mark.key, python=mark.python, lock=mark.lock), python, tuple(sorted(mounts)))

    def _make(self, key: str, recipe: Recipe) -> Environment:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(self.folder / f".{key}.lock"):
            made = self._open(key)  # by another process, while this one waited
            if made is None:
                self._fill(key, recipe)
                made = self._open(key)
            if made is None:
                raise EvalError(f"{self.folder / key}: the new environment does not start; remove the folder and try again")
            return made

    def _fill(self, key: str, recipe: Recipe) -> None:
        home, what = self.folder / key, f"{recipe.repo} {recipe.version}"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(mode=0o700)
        venv, wanted = home / "venv", self._python or recipe.python
        self._on_step(f"environment of {what}: Python {wanted}, {len(recipe.packages)} packages")
        self._call("venv", "--quiet", "--no-project", "--python", wanted, str(venv), what=what)
        python = venv / "bin" / "python"
        base, version = json.loads(_said([str(python), "-I", "-c", _ASK], what))
        if Path.home().is_relative_to(base):
            raise EvalError(f"{base}: the sandbox would have to show your home folder; give a Python installed elsewhere")
        install = ["pip", "install", "--quiet", "--python", str(python), "--exclude-newer", recipe.before.isoformat()]
        install += ["--only-binary", ":all:", *(part for name in recipe.sources for part in ("--no-binary", name))]
        if recipe.packages:
            self._call(*install, "--", *recipe.packages, what=what)
        packages = tuple(sorted(self._call("pip", "freeze", "--python", str(python), what=what).split()))
        if recipe.dist is not None:
            _enter(venv, recipe.dist, recipe.version)
        mark = _Mark(key=key, python=version, lock=content_hash(packages), base=Path(base), packages=packages)
        write_whole(home / _MARK, mark.model_dump_json())

    def _call(self, *arguments: str, what: str) -> str:
        return _said([self._uv or _uv(), "--no-config", "--color", "never", *arguments], what)


def _uv() -> str:
    found = shutil.which("uv")
    if found is None:
        beside = Path(sys.prefix, "bin", "uv")
        found = str(beside) if beside.is_file() else None
    if found is None:
        raise EvalError("uv not found, which makes the environments that tests of real repositories need; pip install uv")
    return found


def _said(command: list[str], what: str) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=UV_SECONDS, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise EvalError(f"the environment of {what} cannot be made: {command[0]}: {error}") from error
    if done.returncode != 0:
        why = " ".join(done.stderr.split())[-600:] or f"exit code {done.returncode}"
        raise EvalError(f"the environment of {what} cannot be made: {why}")
    return done.stdout


def _enter(venv: Path, name: str, version: str) -> None:
    """Write down a repository as installed, for those who ask for its version; its code is found through PYTHONPATH."""
    site = next(venv.glob("lib/python*/site-packages"))
    folder = site / f"{name}-{version}.dist-info"
    folder.mkdir(exist_ok=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    (folder / "INSTALLER").write_text("sleepy\n", encoding="utf-8")
    (folder / "RECORD").write_text("", encoding="utf-8")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
