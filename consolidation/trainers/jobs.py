"""A job on disk: how it comes to the child process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from consolidation.errors import ConsolidationError
from consolidation.trainers.base import Example, Item, Job, Preference
from memory.files import write_whole

JOB_FILE = "job.json"
DATA_FILE = "examples.jsonl"


def write_job(folder: Path, job: Job, examples: Sequence[Item]) -> None:
    """Lay a job out for the child process."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / JOB_FILE, job.model_dump_json(indent=2))
    write_whole(folder / DATA_FILE, "".join(e.model_dump_json() + "\n" for e in examples))


def read_job(folder: Path) -> tuple[Job, list[Item]]:
    """Read what `write_job` wrote.

    Raises:
        ConsolidationError: it is not there, or damaged.
    """
    try:
        job = Job.model_validate_json((folder / JOB_FILE).read_text(encoding="utf-8"))
        lines = [json.loads(line) for line in (folder / DATA_FILE).read_text(encoding="utf-8").splitlines()]
        return job, [(Preference if "chosen" in line else Example).model_validate(line) for line in lines]
    except (OSError, ValueError, TypeError) as error:
        raise ConsolidationError(f"{folder}: no readable job ({str(error)[:300]}); write it again") from error
