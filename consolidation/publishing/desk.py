"""What a publisher remembers between two publishes, and the lock that keeps others from its desk."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from consolidation.publishing import PublishError
from memory.files import write_whole
from memory.hashing import content_hash

Route = Literal["create", "pull", "merge"]
STATE, LOCK = "ollama.json", "ollama.lock"
LONGEST = 60


class Entry(BaseModel):
    """A published tag: its route (`fused` is a whole model), digests of its manifest, its adapter, and its base's manifest."""

    model_config = ConfigDict(extra="forbid")

    route: Route | Literal["fused"]
    digest: str
    adapter: str
    base: str


class State(BaseModel):
    """Scopes to tags, tags to what they are, versions of Ollama to the route that worked, the base's canary answers.

    `wanted` are flips that were begun, `begun` the names under which models are built.
    """

    model_config = ConfigDict(extra="forbid")

    live: dict[str, str] = Field(default_factory=dict)
    previous: dict[str, str] = Field(default_factory=dict)
    wanted: dict[str, str] = Field(default_factory=dict)
    begun: set[str] = Field(default_factory=set)
    published: dict[str, Entry] = Field(default_factory=dict)
    routes: dict[str, Route] = Field(default_factory=dict)
    answers: dict[str, list[str]] = Field(default_factory=dict)


class Desk:
    """A folder with the state and its lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock as long as the block runs; the kernel lets go of it however the process ends.

        Raises:
            PublishError: somebody else holds it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                owner = os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
                raise PublishError(f"process {owner} is publishing now; wait until it is done") from error
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(handle)

    def load(self) -> State:
        """What is remembered; nothing in an empty folder.

        Raises:
            PublishError: the file is damaged.
        """
        path = self.folder / STATE
        try:
            return State.model_validate_json(path.read_bytes()) if path.exists() else State()
        except (OSError, ValidationError) as error:
            raise PublishError(f"{path}: not readable ({str(error)[:200]}); delete it, and publish again") from error

    def save(self, state: State) -> None:
        """Remember, whole or not at all."""
        write_whole(self.folder / STATE, state.model_dump_json(indent=2))


def slug(text: str) -> str:
    """A part of a model's name (letters, digits, `_`, `.`, `-`) for any text; only `:` and `-` are taken for one another."""
    plain = re.sub(r"[^A-Za-z0-9_.-]", "-", text).lstrip(".-")[:LONGEST]
    same = plain and plain.replace("-", ":") == text.replace("-", ":")
    return plain if same else f"{plain or 'x'}-{content_hash(text)[:8]}"
