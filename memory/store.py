"""The store: one SQLite file that is the single source of truth for everything remembered.

A step is committed the moment it happened. What was committed survives the death of the process;
a power cut may cost the last moments but never damages the file (write-ahead log, synchronous=NORMAL).
No method takes a `TaskSecret`, and no column could hold one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence, Set
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from sqlalchemy import ColumnElement, Connection, column, delete, func, insert, literal_column, select, table, update

from memory.database import Database
from memory.errors import RecordError, StoreError
from memory.exams import Exam
from memory.files import written_whole
from memory.nights import Night
from memory.tasks import Task
from memory.trajectories import Outcome, Result, Step, Trajectory

# The columns are the fields of the types, so that a field without a migration fails its first test.
TASKS = table("tasks", column("number"), column("id"), column("body"))
TRAJECTORIES = table("trajectories", *(column(name) for name in Trajectory.model_fields if name != "steps"))
STEPS = table("steps", column("trajectory_id"), *(column(name) for name in Step.model_fields))
NIGHTS = table("nights", column("id"), column("started_at"), column("ended_at"), column("body"))
RESULTS = table("task_results", column("task_id"), column("trajectory_id"), column("number"))
NIGHT_STEPS = table("night_steps", *(column(name) for name in ("night_id", "name", "number", "ended_at", "result")))
NOTES = table("notes", column("name"), column("value"))
FORGOTTEN = table("forgotten", column("trajectory_id"), column("at"), column("task_id"))
KEPT = table("kept_pairs", *map(column, ("synthesiser", "trajectory_id", "format", "budget", "told", "failed", "body")))
EXAMS = table("exams", *map(column, Exam.model_fields))

BATCH = 500
INTERRUPTED = "interrupted"
IMPORTED = "imported-"
"""How the id of a task begins that is an imported session's own."""


class Store(Database):
    """Tasks, trajectories and nights in the SQLite file `path`; made, or brought up to date, on opening."""

    def began(self, trajectory: Trajectory) -> None:
        """Record that an attempt began: all but its steps and outcome, which have their own calls.

        Raises `RecordError` where the id is taken.
        """
        head = trajectory.model_dump(exclude={"steps"})
        head |= {"started_at": _stamp(trajectory.started_at), "outcome": None, "reason": ""}
        with self.writing(f"attempt {trajectory.id}") as connection:
            connection.execute(insert(TRAJECTORIES).values(head))

    def stepped(self, trajectory: Trajectory, step: Step) -> None:
        """Record one step of an attempt that began and has not ended. Raises `RecordError` otherwise, or for a step twice."""
        with self.writing(f"step {step.number} of attempt {trajectory.id}") as connection:
            _refuse_ended(connection, trajectory.id)
            connection.execute(insert(STEPS).values(trajectory_id=trajectory.id, **step.model_dump()))

    def ended(self, trajectory: Trajectory, *, settles: bool = False) -> None:
        """Record the one outcome of an attempt, and why; if it `settles` its task, it is also the task's one result.

        Raises `RecordError` for a second outcome or result, or for none.
        """
        if trajectory.outcome is None:
            raise RecordError(f"{trajectory.id} has no outcome; set one before ending the attempt")
        with self.writing(f"the end of attempt {trajectory.id}") as connection:
            _refuse_ended(connection, trajectory.id)
            mine = TRAJECTORIES.c.id == trajectory.id
            connection.execute(update(TRAJECTORIES).where(mine).values(_end(trajectory)))
            if settles:
                if connection.execute(select(RESULTS.c.number).where(RESULTS.c.task_id == trajectory.task_id)).first():
                    raise RecordError(f"task {trajectory.task_id} has its one result already; another is not recorded")
                number = connection.execute(select(func.count()).select_from(RESULTS)).scalar_one()
                row = {"task_id": trajectory.task_id, "trajectory_id": trajectory.id, "number": number}
                connection.execute(insert(RESULTS).values(row))

    def import_trajectories(self, trajectories: Sequence[Trajectory], tasks: Sequence[Task] = ()) -> None:
        """Record attempts that ended elsewhere, and tasks not known yet, all or none.

        Raises `RecordError` for an attempt that is taken, open or forgotten, and for more of a forgotten session.
        """
        with self.writing("an imported attempt") as connection:
            known = set(connection.execute(select(TASKS.c.id).where(TASKS.c.id.in_([task.id for task in tasks]))).scalars())
            _add_tasks(connection, [task for task in tasks if task.id not in known])
            for trajectory in trajectories:
                if trajectory.outcome is None:
                    raise RecordError(f"attempt {trajectory.id} has no outcome; only ended attempts can be imported")
                if connection.execute(select(TRAJECTORIES.c.id).where(TRAJECTORIES.c.id == trajectory.id)).first():
                    raise RecordError(f"attempt {trajectory.id} is already recorded; only new ones can be imported")
                if connection.execute(select(FORGOTTEN.c.at).where(_forgotten(trajectory.id, trajectory.task_id))).first():
                    raise RecordError(f"attempt {trajectory.id} was forgotten; leave it out")
                head = trajectory.model_dump(exclude={"steps"}) | {"started_at": _stamp(trajectory.started_at)}
                connection.execute(insert(TRAJECTORIES).values(head | {"outcome": None, "reason": ""}))
                for step in trajectory.steps:
                    connection.execute(insert(STEPS).values(trajectory_id=trajectory.id, **step.model_dump()))
                connection.execute(update(TRAJECTORIES).where(TRAJECTORIES.c.id == trajectory.id).values(_end(trajectory)))

    def interrupted(self) -> int:
        """Close the attempts that a killed process left without an outcome; returns how many there were.

        Only for the owner of the store, and before it begins attempts of its own.
        """
        closed = update(TRAJECTORIES).where(TRAJECTORIES.c.outcome.is_(None))
        with self.writing() as connection:
            return connection.execute(closed.values(outcome=Outcome.INFRASTRUCTURE_FAILURE, reason=INTERRUPTED)).rowcount

    def add_task(self, task: Task) -> None:
        """Remember a task; again with the same content changes nothing, with another raises `RecordError`."""
        self.add_tasks([task])

    def add_tasks(self, tasks: Sequence[Task]) -> None:
        """Remember several tasks, all or none; see `add_task`. A task's place in its stream may move; the first one is kept."""
        with self.writing() as connection:
            _add_tasks(connection, tasks)

    def tasks(self) -> list[Task]:
        """Every task, in the order in which they were added."""
        with self.reading() as connection:
            bodies = connection.execute(select(TASKS.c.body).order_by(TASKS.c.number)).scalars()
            return [Task.model_validate_json(body) for body in bodies]

    def trajectory(self, trajectory_id: str) -> Trajectory:
        """One attempt as far as it is recorded. Raises `RecordError` where there is none."""
        with self.reading() as connection:
            found = list(_told(connection, TRAJECTORIES.c.id == trajectory_id))
        if not found:
            raise RecordError(f"no trajectory {trajectory_id} is recorded; look it up in the list of trajectories")
        return found[0]

    def trajectories(
        self,
        *,
        repo: str | None = None,
        outcome: Outcome | None = None,
        origin: Literal["agent", "merged_fix"] | None = None,
        adapter: str | None = None,
        since: datetime | None = None,
        last: int | None = None,
    ) -> list[Trajectory]:
        """Attempts for which everything given holds, by start; those still going on have no outcome.

        `adapter` "" selects what the bare base model did; `since` is the earliest start, inclusive; `last` keeps
        only so many of them, the latest.
        """
        columns = TRAJECTORIES.c
        exact = ((columns.repo, repo), (columns.outcome, outcome), (columns.origin, origin), (columns.adapter, adapter or None))
        where = [field == value for field, value in exact if value is not None]
        if adapter == "":
            where.append(columns.adapter.is_(None))
        if since is not None:
            where.append(columns.started_at >= _stamp(since))
        if last is not None:
            latest = select(columns.id).where(*where).order_by(columns.started_at.desc(), columns.id.desc()).limit(last)
            where = [columns.id.in_(latest)]
        with self.reading() as connection:
            return list(_told(connection, *where))

    def lived(self, arms: Sequence[str]) -> dict[str, str]:
        """The attempts that decided a task in one of these arms, and imported ones: id to task (empty for these), by start."""
        columns = TRAJECTORIES.c
        decided = columns.id.in_(select(RESULTS.c.trajectory_id)) & columns.arm.in_(list(arms))
        chosen = select(columns.id, columns.task_id, columns.imported).where(decided | (columns.imported != ""))
        with self.reading() as connection:
            rows = connection.execute(chosen.order_by(columns.started_at, columns.id)).all()
        return {row.id: "" if row.imported else row.task_id for row in rows}

    def is_forgotten(self, trajectory_id: str, task_id: str = "") -> bool:
        """Whether its owner had an attempt forgotten, or another version of the imported session that this task is."""
        with self.reading() as connection:
            known = select(FORGOTTEN.c.at).where(_forgotten(trajectory_id, task_id))
            return connection.execute(known).first() is not None

    def failures(self, task_id: str) -> int:
        """How many attempts at a task were lost to the infrastructure, interruptions aside."""
        failed = (TRAJECTORIES.c.task_id == task_id) & (TRAJECTORIES.c.outcome == Outcome.INFRASTRUCTURE_FAILURE)
        chosen = select(func.count()).select_from(TRAJECTORIES).where(failed, TRAJECTORIES.c.reason != INTERRUPTED)
        with self.reading() as connection:
            return int(connection.execute(chosen).scalar_one())

    def results(self, since: int = 0) -> list[Result]:
        """The one result of every task that is over, in the order in which they came; `since` skips the first ones."""
        attempt = TRAJECTORIES.c
        columns = (*RESULTS.c, attempt.outcome, attempt.repo, attempt.started_at)
        chosen = select(*columns).join_from(RESULTS, TRAJECTORIES, RESULTS.c.trajectory_id == TRAJECTORIES.c.id)
        with self.reading() as connection:
            rows = connection.execute(chosen.where(RESULTS.c.number >= since).order_by(RESULTS.c.number)).mappings()
            return [Result.model_validate(dict(row)) for row in rows]

    def forget_turns(self, max_bytes: int, keep: Set[str]) -> int:
        """Remove the turns of the oldest ended attempts until the store holds at most `max_bytes`; returns of how many.

        Attempts in `keep`, and everything but turns, stay. The space is used again; the file itself does not shrink.
        """
        ended = select(TRAJECTORIES.c.id).where(TRAJECTORIES.c.outcome.is_not(None))
        with_turns = ended.where(TRAJECTORIES.c.id.in_(select(STEPS.c.trajectory_id)))
        forgotten = 0
        with self.writing() as connection:
            if _used(connection) <= max_bytes:
                return 0
            for identity in connection.execute(with_turns.order_by(TRAJECTORIES.c.started_at)).scalars().all():
                if identity not in keep:
                    connection.execute(delete(STEPS).where(STEPS.c.trajectory_id == identity))
                    forgotten += 1
                    if _used(connection) <= max_bytes:
                        break
        return forgotten

    def note(self, name: str) -> str | None:
        """A small fact that outlives the process, or None."""
        with self.reading() as connection:
            return connection.execute(select(NOTES.c.value).where(NOTES.c.name == name)).scalar()

    def set_note(self, name: str, value: str) -> None:
        """Remember a small fact; it replaces what was noted under this name."""
        with self.writing(f"note {name}") as connection:
            connection.execute(delete(NOTES).where(NOTES.c.name == name))
            connection.execute(insert(NOTES).values(name=name, value=value))

    def kept_pairs(self, synthesiser: str, trajectory_id: str, how: str, budget: int, told: str) -> str | None:
        """Pairs (JSON) that a synthesiser made of an attempt, or None; `told` must be what they were made of."""
        where = _kept(synthesiser, trajectory_id, how, budget) & (KEPT.c.told == told)
        with self.reading() as connection:
            return connection.execute(select(KEPT.c.body).where(where)).scalar()

    def keep_pairs(
        self, synthesiser: str, trajectory_id: str, how: str, budget: int, told: str, failed: Sequence[str], body: str
    ) -> None:
        """Keep pairs (JSON), in place of any like them; `failed` are the other attempts that they tell of.

        Raises `RecordError` where one of the attempts was forgotten.
        """
        row = {"synthesiser": synthesiser, "trajectory_id": trajectory_id, "format": how, "budget": budget, "told": told}
        row |= {"failed": json.dumps(list(failed)), "body": body}
        with self.writing(f"pairs of attempt {trajectory_id}") as connection:
            gone = select(FORGOTTEN.c.trajectory_id).where(FORGOTTEN.c.trajectory_id.in_([trajectory_id, *failed]))
            if (one := connection.execute(gone).scalar()) is not None:
                raise RecordError(f"attempt {one} was forgotten; no pairs of it are kept")
            connection.execute(delete(KEPT).where(_kept(synthesiser, trajectory_id, how, budget)))
            connection.execute(insert(KEPT).values(row))

    def outcomes(self) -> dict[Outcome, int]:
        """How many attempts ended in each outcome, zeros included; merged fixes told as turns count too."""
        count = select(TRAJECTORIES.c.outcome, func.count()).where(TRAJECTORIES.c.outcome.is_not(None))
        with self.reading() as connection:
            found = connection.execute(count.group_by(TRAJECTORIES.c.outcome)).all()
        return dict.fromkeys(Outcome, 0) | {Outcome(outcome): number for outcome, number in found}

    def export_jsonl(self, path: Path) -> int:
        """Write every trajectory as one line of JSON, by start; returns how many.

        The file appears whole or not at all, and shows one moment even while attempts go on.
        """
        try:
            with written_whole(path) as file, self.reading() as connection:
                written = sum(1 for t in _told(connection) if file.write(t.model_dump_json() + "\n"))
        except OSError as error:
            raise StoreError(f"{path} could not be written: {error}; choose a folder that exists and has space") from error
        return written

    def open_night(self, night: Night) -> None:
        """Record that a night began. Raises `RecordError` where its id is taken or it has already ended."""
        row = _row(night)
        if night.ended_at is not None:
            raise RecordError(f"night {night.id} has already ended; open it before it ends")
        with self.writing(f"night {night.id}") as connection:
            connection.execute(insert(NIGHTS).values(row))

    def close_night(self, night: Night) -> None:
        """Record what came of an open night; it replaces what was known. Raises `RecordError` unless it was open."""
        row = _row(night)
        if night.ended_at is None:
            raise RecordError(f"night {night.id} has no end; set ended_at before closing it")
        still_open = (NIGHTS.c.id == night.id) & NIGHTS.c.ended_at.is_(None)
        with self.writing() as connection:
            if connection.execute(update(NIGHTS).where(still_open).values(row)).rowcount != 1:
                raise RecordError(f"no night {night.id} is open; a night is opened first, and closed once")

    def open_night_now(self) -> Night | None:
        """The night that has not ended, if there is one; the first of several that an older version left open."""
        first = select(NIGHTS.c.body).where(NIGHTS.c.ended_at.is_(None)).order_by(NIGHTS.c.started_at, NIGHTS.c.id)
        with self.reading() as connection:
            body = connection.execute(first).scalar()
            return None if body is None else Night.model_validate_json(body)

    def abandon_night(self, why: str) -> bool:
        """Close what is open of nights, if anything is, without a verdict; says whether something was."""
        abandoned = False
        while (night := self.open_night_now()) is not None:
            self.close_night(night.model_copy(update={"ended_at": datetime.now(UTC), "error": why}))
            abandoned = True
        return abandoned

    def step_result(self, night_id: str, name: str) -> dict[str, Any] | None:
        """What a finished step of a night gave, or None if it has yet to be done."""
        where = (NIGHT_STEPS.c.night_id == night_id) & (NIGHT_STEPS.c.name == name)
        with self.reading() as connection:
            found = connection.execute(select(NIGHT_STEPS.c.result).where(where)).scalar()
        return None if found is None else dict(json.loads(found))

    def step_results(self, night_id: str) -> list[dict[str, Any]]:
        """What the finished steps of a night gave, in order."""
        chosen = select(NIGHT_STEPS.c.result).where(NIGHT_STEPS.c.night_id == night_id).order_by(NIGHT_STEPS.c.number)
        with self.reading() as connection:
            return [dict(json.loads(body)) for body in connection.execute(chosen).scalars()]

    def steps_named(self, prefix: str) -> list[dict[str, Any]]:
        """What the finished steps of all nights gave whose names begin so, in the order in which they ended."""
        chosen = select(NIGHT_STEPS.c.result).where(NIGHT_STEPS.c.name.startswith(prefix, autoescape=True))
        with self.reading() as connection:
            rows = connection.execute(chosen.order_by(NIGHT_STEPS.c.ended_at, NIGHT_STEPS.c.number)).scalars()
            return [dict(json.loads(body)) for body in rows]

    def record_step(self, night_id: str, name: str, result: Mapping[str, Any]) -> None:
        """Record that a step of an open night is finished. Raises `RecordError` the second time."""
        body = json.dumps(result, sort_keys=True)
        mine = select(func.count()).where(NIGHT_STEPS.c.night_id == night_id)
        with self.writing(f"step {name} of night {night_id}") as connection:
            number = connection.execute(mine).scalar_one()
            row = {"night_id": night_id, "name": name, "number": number, "ended_at": _stamp(datetime.now(UTC)), "result": body}
            connection.execute(insert(NIGHT_STEPS).values(row))

    def steps_of_night(self, night_id: str) -> list[tuple[str, str]]:
        """Names and ends (UTC, ISO 8601) of the finished steps of a night, in order."""
        chosen = select(NIGHT_STEPS.c.name, NIGHT_STEPS.c.ended_at).where(NIGHT_STEPS.c.night_id == night_id)
        with self.reading() as connection:
            return [(row.name, row.ended_at) for row in connection.execute(chosen.order_by(NIGHT_STEPS.c.number))]

    def nights(self) -> list[Night]:
        """Every night, by start; an open one has no `ended_at`."""
        with self.reading() as connection:
            bodies = connection.execute(select(NIGHTS.c.body).order_by(NIGHTS.c.started_at, NIGHTS.c.id)).scalars()
            return [Night.model_validate_json(body) for body in bodies]

    def add_exams(self, exams: Sequence[Exam]) -> None:
        """Record what an open night measured, all rows or none. Raises `RecordError` for a row twice, or where it is closed."""
        rows = [exam.model_dump() | {"at": _stamp(exam.at), "body": json.dumps(exam.body, sort_keys=True)} for exam in exams]
        if rows:
            with self.writing(f"an exam of night {rows[0]['night_id']}") as connection:
                connection.execute(insert(EXAMS), rows)

    def exams(self, night_id: str | None = None) -> list[Exam]:
        """What one night measured, or all of them, in the order in which it was recorded."""
        chosen = select(EXAMS) if night_id is None else select(EXAMS).where(EXAMS.c.night_id == night_id)
        with self.reading() as connection:
            rows = connection.execute(chosen.order_by(EXAMS.c.at, literal_column("rowid"))).mappings()
            return [Exam.model_validate({**row, "body": json.loads(row["body"])}) for row in rows]

    def forgotten_tasks(self) -> set[str]:
        """Ids of the tasks of which an attempt was forgotten that had decided them."""
        chosen = select(TRAJECTORIES.c.task_id).join_from(
            FORGOTTEN, TRAJECTORIES, TRAJECTORIES.c.id == FORGOTTEN.c.trajectory_id
        )
        with self.reading() as connection:
            return set(connection.execute(chosen).scalars())


def _kept(synthesiser: str, trajectory_id: str, how: str, budget: int) -> ColumnElement[bool]:
    mine = (KEPT.c.synthesiser == synthesiser) & (KEPT.c.trajectory_id == trajectory_id)
    return mine & (KEPT.c.format == how) & (KEPT.c.budget == budget)


def _used(connection: Connection) -> int:
    """Bytes of the pages that hold something."""
    size, pages, free = (
        int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()) for name in ("page_size", "page_count", "freelist_count")
    )
    return size * (pages - free)


def _told(connection: Connection, *where: ColumnElement[bool]) -> Iterator[Trajectory]:
    """Trajectories with their steps, by start; only a batch of them is in memory at a time."""
    heads = select(TRAJECTORIES).where(*where).order_by(TRAJECTORIES.c.started_at, TRAJECTORIES.c.id)
    for batch in connection.execute(heads).mappings().partitions(BATCH):
        steps: dict[str, list[dict[str, object]]] = {head["id"]: [] for head in batch}
        taken = select(STEPS).where(STEPS.c.trajectory_id.in_(steps)).order_by(STEPS.c.number)
        for row in connection.execute(taken).mappings():
            step = dict(row)
            steps[str(step.pop("trajectory_id"))].append(step)
        for head in batch:
            yield Trajectory.model_validate({**head, "steps": steps[head["id"]]})


def _add_tasks(connection: Connection, tasks: Sequence[Task]) -> None:
    for task in tasks:
        body = task.model_copy(update={"created_at": _aware(task.created_at)}).model_dump_json()
        known = connection.execute(select(TASKS.c.body).where(TASKS.c.id == task.id)).scalar()
        if known is None:
            connection.execute(insert(TASKS).values(id=task.id, body=body))
        elif Task.model_validate_json(known).model_copy(update={"position": task.position}) != task:
            raise RecordError(f"task {task.id} is already recorded with other content; give the changed task a new id")


def _forgotten(trajectory_id: str, task_id: str) -> ColumnElement[bool]:
    same = FORGOTTEN.c.trajectory_id == trajectory_id
    return same | (FORGOTTEN.c.task_id == task_id) if task_id.startswith(IMPORTED) else same


def _refuse_ended(connection: Connection, trajectory_id: str) -> None:
    row = connection.execute(select(TRAJECTORIES.c.outcome).where(TRAJECTORIES.c.id == trajectory_id)).first()
    if row is None:
        raise RecordError(f"attempt {trajectory_id} never began; record its beginning first")
    if row.outcome is not None:
        raise RecordError(f"attempt {trajectory_id} has already ended ({row.outcome}); begin a new attempt under a new id")


def _end(trajectory: Trajectory) -> dict[str, str | None]:
    # A reason may quote an operating system's file name, which Python lets contain half characters that SQLite refuses.
    return {"outcome": trajectory.outcome, "reason": trajectory.reason.encode(errors="backslashreplace").decode()}


def _row(night: Night) -> dict[str, str | None]:
    # Validated again, because a copy with changes is not.
    try:
        night = Night.model_validate(dict(night))
    except ValidationError as error:
        raise RecordError(f"night {night.id} does not fit the store ({error}); correct it") from error
    ended_at = _stamp(night.ended_at) if night.ended_at is not None else None
    return {"id": night.id, "started_at": _stamp(night.started_at), "ended_at": ended_at, "body": night.model_dump_json()}


def _aware(when: datetime) -> datetime:
    if when.utcoffset() is None:
        raise RecordError(f"{when.isoformat()} has no time zone; give times in UTC")
    return when.astimezone(UTC)


def _stamp(when: datetime) -> str:
    # Always of the same length, so that the order of the texts is the order of the times.
    return _aware(when).isoformat(timespec="microseconds")
