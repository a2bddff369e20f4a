"""An attempt that the infrastructure lost is tried again, as often as the owner says; then that is the task's outcome."""

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from daemon.config import Config, DayConfig
from daemon.events import Event
from daemon.patience import BACKOFF_SECONDS
from daemon.recording import DayRecorder
from daemon.work import Work
from memory.store import Store
from memory.tasks import Task
from memory.trajectories import Outcome, Trajectory


def attempt(number: int, outcome: Outcome) -> Trajectory:
    fields: dict[str, Any] = {"task_id": "t", "repo": "bank", "prompt": "p", "model": "m", "config_hash": "c", "reason": "why"}
    return Trajectory(id=f"a{number}", started_at=datetime.now(UTC), outcome=outcome, **fields)


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_a_task_is_given_up_after_so_many_retries_and_has_one_result(tmp_path: Path, retries: int) -> None:
    told: list[str] = []
    with Store(tmp_path / "s.db") as store:
        store.add_task(Task(id="t", repo="bank", issue="i", created_at=datetime.now(UTC), position=0, difficulty="<15 min fix"))
        work = SimpleNamespace(
            store=store,
            config=Config(day=DayConfig(retries=retries)),
            emit=lambda event, **fields: told.append(event),
            checkpoint=lambda: None,
        )
        recorder = DayRecorder(cast(Work, work))
        for number in range(retries + 1):
            assert store.results() == []
            lost = attempt(number, Outcome.INFRASTRUCTURE_FAILURE)
            recorder.began(lost.model_copy(update={"outcome": None}))
            recorder.ended(lost)
        assert [r.outcome for r in store.results()] == [Outcome.INFRASTRUCTURE_FAILURE]
    assert told.count(Event.TASK_RETRIED) == retries
    assert told[-1] == Event.TASK_ENDED


def test_the_waits_are_those_of_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "daemon.md").read_text(encoding="utf-8")
    assert f"it waits {', '.join(f'{seconds:g}' for seconds in BACKOFF_SECONDS)} s between batches" in text
