"""How the tests of one version of a repository are run: swebench's tables, and `recipes.toml` for what those leave open."""

from __future__ import annotations

import re
import tomllib
from datetime import date
from functools import cache
from importlib import resources
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from eval.errors import EvalError
from eval.swebench.native.tables import tables

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Part(_Data):
    """What a version may say for itself."""

    python: str | None = None
    pins: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    before: date | None = None
    files: dict[str, str] = Field(default_factory=dict)
    env: dict[str, str] = Field(default_factory=dict)


class _Whole(_Part):
    run: tuple[str, ...]
    paths: tuple[str, ...]
    witness: Literal["pytest", "unittest", "sympy"]
    spec_pins: bool = False
    compat: tuple[str, ...] = ()
    dist: str | None = None
    protected: tuple[str, ...] = ()
    versions: dict[str, _Part] = Field(default_factory=dict)
    tasks: dict[str, str] = Field(default_factory=dict)


class Recipe(_Data):
    """How to make the environment of a repository's version, and how to run tests in it.

    What decides the environment is `python`, `packages`, `sources`, `before` and `dist`; the rest is about runs.
    See `recipes.toml` for what each says.
    """

    repo: str
    version: str
    python: str
    packages: tuple[str, ...]
    sources: tuple[str, ...]
    before: date
    dist: str | None
    run: tuple[str, ...]
    paths: tuple[str, ...]
    witness: Literal["pytest", "unittest", "sympy"]
    compat: tuple[str, ...]
    files: dict[str, str]
    env: dict[str, str]
    protected: tuple[str, ...]


@cache
def _book() -> dict[str, _Whole]:
    text = resources.files("eval.swebench.native").joinpath("recipes.toml").read_text(encoding="utf-8")
    return {repo: _Whole.model_validate(entry) for repo, entry in tomllib.loads(text).items()}


def known() -> tuple[str, ...]:
    """The repositories (owner/name) that have a recipe."""
    return tuple(_book())


def recipe(repo: str, version: str | None, task_id: str = "") -> Recipe:
    """The recipe for a version as swebench's tables call it, or for one task of it that has a Python of its own.

    Raises:
        EvalError: there is none, or the task does not say its version.
    """
    whole = _book().get(repo)
    if whole is None:
        raise EvalError(f"no native environment for {repo}, only for {', '.join(known())}; grade it with Docker")
    spec = tables().specs.get(repo, {}).get(version or "")
    if version is None or spec is None:
        raise EvalError(f"swebench's tables have no version {version!r} of {repo}; the tasks' metadata.version must be theirs")
    part = whole.versions.get(version, _Part())
    before = part.before or whole.before
    if before is None:
        raise EvalError(f"recipes.toml: {repo} {version}: `before` is missing")
    return Recipe(
        repo=repo,
        version=version,
        python=whole.tasks.get(task_id) or part.python or whole.python or str(spec["python"]),
        packages=_packages(whole, part, spec),
        sources=(*whole.sources, *part.sources),
        before=before,
        dist=whole.dist,
        run=whole.run,
        paths=whole.paths,
        witness=whole.witness,
        compat=whole.compat,
        files={**whole.files, **part.files},
        env={**whole.env, **part.env},
        protected=whole.protected,
    )


def _packages(whole: _Whole, part: _Part, spec: Any) -> tuple[str, ...]:
    """Requirements by name, the later ones in place of the earlier ones."""
    named: dict[str, str] = {}
    for requirement in (*(spec.get("pip_packages", ()) if whole.spec_pins else ()), *whole.pins, *part.pins):
        named[_named(requirement)] = requirement
    for name in (*whole.drop, *part.drop):
        named.pop(_canonical(name), None)
    return tuple(named.values())


def _named(requirement: str) -> str:
    found = _NAME.match(requirement)
    if found is None:
        raise EvalError(f"recipes.toml: {requirement!r} names no package")
    return _canonical(found.group())


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
