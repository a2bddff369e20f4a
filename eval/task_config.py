"""The `[tasks]` settings."""

from __future__ import annotations

import difflib
import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from eval.pocket.stream import REPOSITORIES
from eval.swebench.dataset import Order

POCKET, KOANS, SWE_BENCH_CL, OWN_HISTORY = "pocket", "koans", "swe-bench-cl", "repo:"
POCKET_REPOS = ("bank", "game")
_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}(/[A-Za-z0-9][A-Za-z0-9._-]{0,99})?")


class TasksConfig(BaseModel):
    """Where tasks come from."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    source: str = POCKET
    """The task stream: `pocket` is the endless pocket world, `koans` are Rust koans, `swe-bench-cl` the benchmark
    (`sleepyctl data fetch swe-bench-cl`), `repo:PATH` the history of a repository of your own (`sleepyctl tasks mine PATH`)."""
    seed: int = Field(default=0, ge=0)
    """Which pocket world."""
    repos: tuple[str, ...] = ()
    """Repositories that are worked on; empty for `bank` and `game` of the pocket world, and for all of any other stream."""
    count: int = Field(default=0, ge=0)
    """How many tasks of each pocket repository, or of any other stream in all; 0 means no limit."""
    order: Order = Order.DATASET
    """Order of the benchmark's tasks: `dataset` (by repository, difficulty, date) or `chronological`."""
    mirrors: str = ""
    """Folder of the bare mirrors of real repositories; empty for `mirrors` in the state directory."""
    grading: Literal["native", "docker"] = "native"
    """How the benchmark's tasks are run: in environments made here, or in containers of Docker images."""
    image: str = ""
    """With `grading = "docker"`: name of your own images, with `{id}` in it; empty for the benchmark's, or those built here."""
    missing_image: Literal["refuse", "pull", "build"] = "refuse"
    """What is done about a task's image that is not here; each is large, see `docs/tasks.md`."""

    @field_validator("source")
    @classmethod
    def _source(cls, source: str) -> str:
        if source not in (POCKET, KOANS, SWE_BENCH_CL) and not source.removeprefix(OWN_HISTORY) != source:
            raise ValueError(f"there is no {source!r}; valid is 'pocket', 'koans', 'swe-bench-cl' or 'repo:PATH'")
        if source == OWN_HISTORY:
            raise ValueError("repo: needs a path, as in repo:/home/me/project")
        return source

    @field_validator("image")
    @classmethod
    def _names_images(cls, template: str) -> str:
        from eval.swebench.docker.images import check_template

        return check_template(template)

    @field_validator("repos")
    @classmethod
    def _known(cls, repos: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if len(set(repos)) != len(repos):
            raise ValueError("name no repository twice")
        for repo in repos:
            if info.data.get("source", POCKET) == POCKET and repo not in REPOSITORIES:
                close = difflib.get_close_matches(repo, REPOSITORIES, 1)
                hint = f"did you mean {close[0]!r}?" if close else f"valid are {', '.join(REPOSITORIES)}"
                raise ValueError(f"no pocket repository {repo!r}; {hint}")
            if not _REPO.fullmatch(repo):
                raise ValueError(f"{repo!r} is no repository's name; write it as name or owner/name")
        return repos

    @property
    def pocket_repos(self) -> tuple[str, ...]:
        """Those of the pocket world, which is also where every night's guard looks."""
        return (self.repos or POCKET_REPOS) if self.source == POCKET else POCKET_REPOS
