"""The `Guard` seam: examinations of which the gate asks answers, item by item, for the base and for a candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

Routes = Mapping[str, Path]
"""Repository to the adapter folder that serves it; every other repository gets the bare base."""
Role = Literal["capability", "format", "retention", "behaviour"]


class Answer(BaseModel):
    """What came of one item. `score` is 1 for right, 0 for wrong, 0.5 where half of it can be right; `said` identifies the
    words, so that a candidate that says the very same everywhere is found out. `facts` are what else was measured of it
    (steps, tests run, edits, time-outs, format errors), `seconds` how long it took.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    score: float = Field(ge=0, le=1)
    said: str
    facts: dict[str, float] = {}
    seconds: float = 0.0


class Guard(Protocol):
    """A fixed examination. Base and candidate are asked the same items in the same order, greedily or with the same seeds.

    `claim` names what it is evidence of: guards of one claim are judged together (two programming benchmarks are both `code`).
    `digest` changes whenever an answer might come out differently for the same artefact: items, prompts, limits, grading
    code, model. Answers are kept by digest and artefact.
    """

    @property
    def name(self) -> str:
        """As it is told to people."""
        ...

    @property
    def claim(self) -> str:
        """What it is evidence of."""
        ...

    @property
    def role(self) -> Role:
        """What kind of evidence."""
        ...

    @property
    def digest(self) -> str:
        """Hash of all that decides an answer, but for the artefact."""
        ...

    def items(self, routes: Routes) -> Sequence[str]:
        """The items on which these routes are examined, and no others: the gate gives those that are new, so that what stays
        as it is dilutes nothing. With {} all items."""
        ...

    def category(self, item: str) -> str:
        """The group in which an item is reported; empty for none."""
        ...

    def repo(self, item: str) -> str:
        """The repository whose adapter answers an item; empty if it belongs to none."""
        ...

    def answer(self, items: Sequence[str], routes: Routes) -> Mapping[str, Answer]:
        """The answers of what these routes serve ({} is the bare base), exactly one for each item.

        Raises:
            EvalError, AgentError: the examination could not be held; nothing is known of these items.
        """
        ...
