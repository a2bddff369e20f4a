"""Exams: what became of one task when it was played only to measure, or when a day's attempt at it is counted."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from memory.nights import Utc
from memory.tasks import Text

ExamArm = Literal["live", "base", "frozen", "day"]


class Exam(BaseModel):
    """One row of an examination that the night `night_id` held at its end.

    `experience` is the id of the night before which the task was lived: a column of the matrix. `live` was played by what
    serves after the night; `base` by the bare base, once for each task and configuration; `frozen` by the bare base again;
    `day` is no new attempt but the one that decided the task by day. `fingerprint` is the hash of everything that decides
    what the bare base does ("" for a day's); only rows of the same one are compared. `body` counts the attempt, and quotes
    nothing of it. Rows never change; those of a task go when its owner has its attempt forgotten.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    night_id: Text
    arm: ExamArm
    experience: Text
    task_id: Text
    fingerprint: str = ""
    at: Utc
    body: dict[str, Any] = Field(min_length=1)
