"""A night that broke off: what its gate decided, and what it put to work, stays."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from daemon.sleeping import close_broken
from memory.nights import Night, Verdict
from memory.store import Store

NOW = datetime(2026, 1, 2, tzinfo=UTC)
REFUSED = Verdict(promoted=False, why="it lost 5 of 60")
PASSED = Verdict(promoted=True, why="nothing got worse")


@pytest.mark.parametrize(
    ("judged", "published", "promoted", "why"),
    [
        (None, False, False, "the night broke off: woken"),
        (REFUSED, False, False, "it lost 5 of 60"),
        (PASSED, False, False, "the night broke off: woken"),
        (PASSED, True, True, "nothing got worse"),
    ],
)
def test_what_was_decided_and_put_to_work_stays(
    tmp_path: Path, judged: Verdict | None, published: bool, promoted: bool, why: str
) -> None:
    with Store(tmp_path / "store.db") as store:
        night = Night(id="n", started_at=NOW, strategy="naive", seed=0, config_hash="c")
        store.open_night(night)
        if judged is not None:
            store.record_step("n", "guards", {"verdict": judged.model_dump()})
        if published:
            store.record_step("n", "publish", {"live": {"bank": "a"}})
        closed = close_broken(store, night, "woken", NOW)
        assert store.nights() == [closed]
    assert closed.verdict is not None
    assert (closed.verdict.promoted, closed.verdict.why) == (promoted, why)
    assert (closed.adapter is not None) == published
