"""Which image a task is run in: the benchmark's own, one that was built here, or the owner's."""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from agent.repositories import Mirrors
from eval.errors import EvalError
from eval.swebench.dataset import Dataset
from eval.swebench.docker.dockerfiles import layers, local_name
from eval.swebench.docker.engine import Engine

OFFICIAL = "swebench/sweb.eval.{arch}.{hub_id}:latest"
ONE_EACH = ("{id}", "{hub_id}")
_FIELD = re.compile(r"\{[^{}]*\}|[{}]")
_REFERENCE = re.compile(r"[a-z0-9][A-Za-z0-9._:/@-]{0,255}")

Missing = Literal["refuse", "pull", "build"]
"""What is done about an image that is not here."""


@dataclass(frozen=True)
class Image:
    """An image that is here; `identity` is its content hash (`sha256:...`)."""

    name: str
    identity: str


def check_template(template: str) -> str:
    """A user's way of naming images, as it was given; empty for none.

    Raises:
        ValueError: it does not name one image for each task.
    """
    if not template:
        return template
    fields = set(_FIELD.findall(template))
    one_each = fields <= {*ONE_EACH, "{arch}"} and not fields.isdisjoint(ONE_EACH)
    if not one_each or not _REFERENCE.fullmatch(named(template, "a__b-1", "arm64")):
        raise ValueError(f"{template!r} must be an image's name with {{id}} or {{hub_id}} in it, as in {OFFICIAL!r}")
    return template


def named(template: str, task_id: str, arch: str) -> str:
    """The name of a task's image; `{hub_id}` is the id as registries allow it (`__` becomes `_1776_`)."""
    lower = task_id.lower()
    values = {"{id}": lower, "{hub_id}": lower.replace("__", "_1776_"), "{arch}": arch}
    return _FIELD.sub(lambda found: values.get(found.group(), found.group()), template)


@dataclass
class Images:
    """The images of a dataset's tasks; safe for several threads. `template` is as `named` takes it, empty for the default."""

    engine: Engine
    dataset: Dataset
    mirrors: Mirrors
    template: str = ""
    missing: Missing = "refuse"
    on_step: Callable[[str], None] = lambda step: None
    _making: defaultdict[str, threading.Lock] = field(default_factory=lambda: defaultdict(threading.Lock))

    @cached_property
    def arch(self) -> str:
        """The engine's."""
        return self.engine.arch()

    def names(self, task_id: str) -> tuple[str, ...]:
        """Where the image of a task is looked for, in this order; the last is the one that would be pulled."""
        if self.template:
            return (named(self.template, task_id, self.arch),)
        return local_name(task_id, self.arch), named(OFFICIAL, task_id, self.arch)

    def get(self, task_id: str) -> Image:
        """The image of a task, pulled or built now where that is wanted.

        Raises:
            EvalError: it is not here, or cannot be had; the text says what to do.
            RepositoryError: the mirror that building reads from is missing.
        """
        with self._making[task_id]:
            if (found := self._here(task_id)) is not None:
                return found
            names = self.names(task_id)
            if self.missing == "refuse":
                raise EvalError(
                    f"no image for {task_id}: docker pull {names[-1]}, or set tasks.missing_image to pull or build "
                    f"(looked for {', '.join(names)})"
                )
            if self.missing == "pull":
                self.on_step(f"pulling {names[-1]}")
                self.engine.pull(names[-1])
            else:
                self._build(task_id)
            if (found := self._here(task_id)) is None:
                raise EvalError(f"{names[0]} is not there after the {self.missing}; give the image another name (tasks.image)")
            return found

    def _here(self, task_id: str) -> Image | None:
        for name in self.names(task_id):
            if (identity := self.engine.identity(name)) is not None:
                return Image(name, identity)
        return None

    def _build(self, task_id: str) -> None:
        if self.template:
            raise EvalError("tasks.image names images of your own, which are not built here; leave it empty to build")
        repo, base = self.dataset.repo(task_id), self.dataset.base(task_id)
        mirror = self.mirrors.get(repo)
        for layer in layers(task_id, repo, base.version, base.commit, self.arch, lambda path: mirror.text(base.commit, path)):
            with self._making[layer.tag]:
                if self.engine.identity(layer.tag) is None:
                    self.on_step(f"building {layer.tag}")
                    self.engine.build(layer)
