"""How the benchmark's images are built here (for arm64, or without its registry): swebench 4.1.0's own texts, unchanged.

Three layers, as in its harness: a system with conda; the environment of a version; the repository at a commit, installed.
swebench reads requirements from the repository's web pages; here they are read from the mirror, at the same commit.
Building needs a network for apt, conda, pip and the repository.
"""

from __future__ import annotations

import hashlib
import importlib
import posixpath
import threading
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import util
from pathlib import Path
from typing import Any

from agent.repositories import RepositoryError
from eval.errors import EvalError
from eval.swebench.native.tables import LOADING, stood_in, tables

PLATFORMS = {"x86_64": "linux/x86_64", "arm64": "linux/arm64/v8"}
_NAME, _FOLDER = "testbed", "/testbed"
_HEAD = "#!/bin/bash\nset -euxo pipefail\n"
_reading = threading.Lock()


@dataclass(frozen=True)
class Layer:
    """One image: its name, what it is built from, and file name to text of the scripts beside the Dockerfile."""

    tag: str
    dockerfile: str
    scripts: Mapping[str, str]
    platform: str


def local_name(task_id: str, arch: str) -> str:
    """What swebench's harness calls an image that it built here."""
    return f"sweb.eval.{arch}.{task_id.lower()}:latest"


def layers(
    task_id: str, repo: str, version: str | None, commit: str, arch: str, read: Callable[[str], str]
) -> tuple[Layer, Layer, Layer]:
    """The images of a task, each on top of the one before.

    Args:
        task_id: as in the dataset.
        repo: owner/name.
        version: as swebench's tables call it.
        commit: the full SHA that the task starts from.
        arch: `x86_64` or `arm64`.
        read: the text of a file of the repository in that commit; raises `RepositoryError` if there is none.

    Raises:
        EvalError: the tables do not have the version, or the commit lacks what they look for.
    """
    specs = tables().specs.get(repo, {}).get(version or "")
    if specs is None:
        raise EvalError(f"swebench's tables have no version {version!r} of {repo}; the tasks' metadata.version must be theirs")
    python, dockerfiles, constants = _texts()
    instance = {"instance_id": task_id, "repo": repo, "version": version, "base_commit": commit}
    platform, kind = PLATFORMS[arch], "py"
    with _reading:
        python.requests = types.SimpleNamespace(get=_Pages(f"{constants.SWE_BENCH_URL_RAW}{repo}/{commit}/", read))
        try:
            environment = python.make_env_script_list_py(instance, specs, _NAME)
        except ValueError as error:  # its own word for a page that is not there
            raise EvalError(f"{task_id}: no image can be built: {error}") from error
    repository = python.make_repo_script_list_py(specs, repo, _FOLDER, commit, _NAME)
    defaults = {**constants.DEFAULT_DOCKER_SPECS, **specs.get("docker_specs", {})}
    bottom = dockerfiles.get_dockerfile_base(platform, arch, kind, **defaults)
    below = Layer(f"sweb.base.{kind}.{arch}:{_hash(bottom)}", bottom, {}, platform)
    set_up = {"setup_env.sh": _script(environment)}
    middle = dockerfiles.get_dockerfile_env(platform, arch, kind, below.tag, **defaults)
    between = Layer(f"sweb.env.{kind}.{arch}.{_hash(middle, *set_up.values())}:latest", middle, set_up, platform)
    top = dockerfiles.get_dockerfile_instance(platform, kind, between.tag)
    return below, between, Layer(local_name(task_id, arch), top, {"setup_repo.sh": _script(repository)}, platform)


def _script(commands: list[str]) -> str:
    return _HEAD + "\n".join(commands) + "\n"


def _hash(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:22]


class _Pages:
    """Stands where swebench asks for a page of the repository at the commit."""

    def __init__(self, before: str, read: Callable[[str], str]) -> None:
        self._before, self._read = before, read

    def __call__(self, url: str, headers: Mapping[str, str]) -> types.SimpleNamespace:
        try:
            text = self._read(posixpath.normpath(url.removeprefix(self._before)))
        except RepositoryError:
            return types.SimpleNamespace(status_code=404, text="")
        return types.SimpleNamespace(status_code=200, text=text)


@cache
def _texts() -> tuple[Any, Any, Any]:
    """swebench's modules `test_spec.python`, `dockerfiles` and `constants`, in copies of our own."""
    tables()
    spec = util.find_spec("swebench")
    assert spec is not None
    assert spec.submodule_search_locations
    with LOADING, stood_in(Path(spec.submodule_search_locations[0])):
        python = importlib.import_module("swebench.harness.test_spec.python")
        dockerfiles = importlib.import_module("swebench.harness.dockerfiles")
        constants = importlib.import_module("swebench.harness.constants")
    python.load_cached_environment_yml = lambda task_id: None  # type: ignore[attr-defined] # the package has none
    return python, dockerfiles, constants
