"""The status of a running daemon, gathered from its parts."""

from __future__ import annotations

import os

from consolidation.errors import AdapterError
from daemon.api import Status
from daemon.life import Life
from daemon.resources import free_mb, rss_mb
from daemon.schedule import NightSchedule
from daemon.space import space_of
from daemon.watching import told
from memory.knowledge.shelf import Shelf
from memory.trajectories import Outcome


def status_of(life: Life) -> Status:
    """What `sleepyctl status` shows."""
    nights = [night for night in life.store.nights() if night.ended_at is not None]
    try:
        live = life.publisher.live()
    except AdapterError as error:
        live = {"": str(error)}
    shelf = Shelf(life.store, space_of(life.config))
    return Status(
        state=life.state,
        since=life.since,
        why=life.why,
        pid=os.getpid(),
        worker_pid=life.worker.pid,
        started_at=life.started_at,
        home=str(life.home.root),
        version=life.version,
        config_hash=life.config.hash,
        config_problem=life.config_problem,
        holding=life.holding,
        doing=life.doing,
        tasks_ended=len(life.results),
        tasks_resolved=sum(r.outcome is Outcome.RESOLVED for r in life.results),
        tasks_since_night=life.tasks_since_night,
        nights=len(nights),
        last_night=nights[-1].id if nights else None,
        last_verdict=nights[-1].verdict if nights else None,
        next_night=NightSchedule(life.config.sleep).next(life.now()),
        night_deferred=life.deferred,
        live=live,
        taken_back=told(life.store, live),
        arm=life.config.arm,
        memories=shelf.count(),
        knowledge=str(shelf.version()),
        free_disk_mb=free_mb(life.home.root),
        rss_mb=rss_mb(),
    )
