"""Memories of a finished attempt by rule: no model, the same every time, whatever the attempt said or saw.

Nothing of how it was graded comes in but the outcome: a grading's reason may name hidden tests.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from agent.distil.actions import Action, work
from agent.distil.facts import commands, conventions
from agent.distil.net import MAX_WHERE, Change, below, body, diff, net_of, places_of, root_of, shape_of, trimmed
from agent.full.files import rank
from agent.recalled import plain
from memory.knowledge.memories import Kind, Memory, Origin
from memory.tasks import MergedFix, Task
from memory.trajectories import Outcome, Trajectory

DISTILLER = "offline/1"
MAX_SYMPTOM, MAX_CHANGE, MAX_TRIED = 600, 1_200, 300
MOST_TRIED = 4
_ERROR = re.compile(r"\s*(?:[\w.]{0,80}(?:Error|Exception|Warning|Failure)\b(?:: ?\S|$)|E {2,}\S|error(?:\[\w+\])?: )")
_FAILING = tuple(
    re.compile(pattern)
    for pattern in (
        r"E {2,}\S",
        r"FAILED \S+.*(?: - |: )",
        r"\s*[\w.]{1,80}(?:Error|Exception|Failure)\b: ?\S",
        r"(?:FAIL|ERROR): |--- FAIL|\s*thread '.*panicked|error(?:\[\w+\])?: ",
        r"FAILED|.*\b[1-9]\d* failed\b",
    )
)
_ENDS = {
    Outcome.RESOLVED: "",
    Outcome.UNRESOLVED: "this was submitted, and did not resolve the issue",
    Outcome.GAVE_UP: "the attempt was given up",
    Outcome.OUT_OF_BUDGET: "the budget ran out before anything was submitted",
}


def distil(trajectory: Trajectory, task: Task, fix: MergedFix | None = None) -> list[Memory]:
    """What a finished attempt at `task` taught: a case or a warning, then facts; with `fix` the merged one as a case.

    Nothing for an attempt that has not ended or is of another task. An infrastructure failure says nothing about the
    task, so that only the merged fix is told. Never raises for what it reads.
    """
    if trajectory.task_id != task.id or not trajectory.id or (trajectory.outcome is None and not trajectory.imported):
        return []
    teller = _Teller(trajectory, task)
    memories = [] if trajectory.outcome is Outcome.INFRASTRUCTURE_FAILURE else teller.attempt()
    if fix is not None and fix.task_id == task.id and not trajectory.resolved:
        memories += teller.merged(fix)
    return memories


class _Teller:
    def __init__(self, trajectory: Trajectory, task: Task) -> None:
        self._trajectory, self._task = trajectory, task
        self._terse = not trajectory.system and not trajectory.imported
        self._outcome = trajectory.outcome or Outcome.UNRESOLVED
        self._symptom = plain(task.issue, MAX_SYMPTOM) if self._terse else heart(task.issue)

    def attempt(self) -> list[Memory]:
        """The case or the warning, and facts where the attempt was worth it."""
        work_ = work(self._trajectory)
        root = root_of(work_.done) if self._trajectory.imported else ""
        net = net_of(work_, root)
        if not self._solved(work_.done, net):
            return self._warning(work_.done, net, root)
        verified = self._trajectory.resolved and not self._trajectory.imported
        tried = _tried(work_.done, net, root)
        case = self._memory(Kind.CASE, verified, places_of(net), self._change(net), shape_of(net), tried=tried)
        sources = [change.path for change in net if rank(change.path) == 0]
        told = [] if self._terse else commands(work_.done, sources, bool(self._trajectory.imported))
        facts = [self._memory(Kind.COMMAND, verified, fact=fact) for fact in told]
        if verified:
            seen = [action.path for action in work_.done] + [
                t for a in work_.done if a.kind == "test" for t in a.command.split()
            ]
            facts += self._conventions(net, seen)
        return [case, *facts]

    def merged(self, fix: MergedFix) -> list[Memory]:
        """What upstream merged, as a case, and what it shows of the house."""
        change = Change(plain(fix.path, 200), fix.before.splitlines(), fix.after.splitlines())
        if change.before == change.after:
            return []
        places = (f"{change.path}:{plain(fix.symbol, 80)}",)
        text = body(change)
        if not self._terse and len(text) > MAX_CHANGE:
            text = diff([change])
        told = plain(text, MAX_CHANGE)
        case = self._memory(Kind.CASE, True, places, told, shape_of([change]), origin="merged_fix")
        return [case, *self._conventions([change], (), "merged_fix")]

    def _solved(self, done: Sequence[Action], net: Sequence[Change]) -> bool:
        if self._trajectory.resolved or not self._trajectory.imported:
            return self._trajectory.resolved and bool(net)
        last = next((action.ok for action in reversed(done) if action.kind == "test"), True)
        return self._outcome is Outcome.UNRESOLVED and last and bool(net)  # nobody graded it

    def _warning(self, done: Sequence[Action], net: Sequence[Change], root: str) -> list[Memory]:
        looked = [below(action.path, root) for action in done if action.kind == "look" and action.ok and action.path]
        changed = {change.path for change in net}
        only_seen = dict.fromkeys(plain(path, 200) for path in looked if path not in changed)
        where = (*places_of(net), *only_seen)[:MAX_WHERE]
        ungraded = bool(self._trajectory.imported) and self._outcome is Outcome.UNRESOLVED
        if not where or self._trajectory.resolved or (ungraded and not net):
            return []
        last = max((at for at, action in enumerate(done) if action.kind == "test"), default=-1)
        passed = last >= 0 and done[last].ok and not any(action.kind in _CHANGING for action in done[last:])
        end = "the tests that it ran passed, and it did not resolve the issue" if passed else _ENDS[self._outcome]
        end = "its last tests were not seen to pass" if ungraded else end
        tried = _tried(done, (), root)
        if net and self._outcome is Outcome.UNRESOLVED:
            change = net[0]
            end = plain(f"changed {change.path} ({shape_of(net)}): {end}", MAX_TRIED)
        return [self._memory(Kind.WARNING, False, where, shape=shape_of(net), tried=(*tried[-MOST_TRIED + 1 :], end))]

    def _conventions(self, net: Sequence[Change], seen: Iterable[str], origin: Origin | None = None) -> list[Memory]:
        seen = list(seen)
        facts = {fact: change.path for change in net for fact in conventions(change.path, change.before, change.after, seen)}
        return [
            self._memory(Kind.CONVENTION, True, (path,), fact=fact, origin=origin) for fact, path in list(facts.items())[:3]
        ]

    def _change(self, net: Sequence[Change]) -> str:
        text = "\n".join(body(change) for change in net) if self._terse else diff(net)
        return plain(text, MAX_CHANGE)

    def _memory(
        self,
        kind: Kind,
        verified: bool,
        where: tuple[str, ...] = (),
        change: str = "",
        shape: str = "",
        tried: tuple[str, ...] = (),
        fact: str = "",
        origin: Origin | None = None,
    ) -> Memory:
        trajectory, task = self._trajectory, self._task
        seconds = sum(step.seconds for step in trajectory.steps if math.isfinite(step.seconds) and step.seconds > 0)
        return Memory(
            kind=kind,
            repo=plain(task.repo) or "?",
            task_id=plain(task.id) or "?",
            trajectory_id=plain(trajectory.id) or "?",
            outcome=self._outcome,
            verified=verified,
            origin=origin or ("imported" if trajectory.imported else trajectory.origin),
            created_at=_utc(task.created_at),
            recorded_at=_later(_utc(trajectory.started_at), seconds),
            distiller=DISTILLER,
            symptom=self._symptom if kind in (Kind.CASE, Kind.WARNING) else "",
            where=where,
            change=change,
            shape=shape,
            tried=tried,
            fact=fact,
        )


_CHANGING = frozenset({"edit", "create", "delete"})


def heart(issue: str) -> str:
    """The heart of an issue: its first lines, then those that carry an error."""
    lines = [line.strip()[:300] for line in plain(issue).split("\n")]
    told = [line for line in lines if line and not line.startswith(("```", "<!--", "---", "===", "Traceback ("))]
    errors = [line for line in told[3:] if _ERROR.match(line)][-3:]
    return plain("\n".join(dict.fromkeys([*(line[:200] for line in told[:3]), *errors, *told[3:6]])), MAX_SYMPTOM)


def failing(observation: str) -> str:
    """The line of a test run that says best what failed."""
    lines = [line[:400] for line in observation.split("\n") if line.strip()]
    for pattern in _FAILING:
        for line in lines:
            if pattern.match(line):
                return " ".join(line.removeprefix("E ").split())
    return " ".join(lines[-1].split()) if lines else "no output"


def _tried(done: Sequence[Action], kept: Sequence[Change], root: str) -> tuple[str, ...]:
    """Edits of sources that a failing test run followed, and that are no part of what was kept, oldest first."""
    left = {change.path: "\n".join([*change.after, *(new for _, new in change.loose)]) for change in kept}
    found: list[str] = []
    edit: Action | None = None
    for action in done:
        if action.kind in ("edit", "create") and action.ok and rank(action.path) == 0:
            edit = action
        elif action.kind == "test" and edit is not None:
            path = below(edit.path, root)
            if not action.ok and not (edit.new and edit.new in left.get(path, "")):
                what = f"{_told(edit)} in {plain(path, 120)}"
                found.append(plain(f"{what}: {failing(action.observation)}", MAX_TRIED))
            edit = None
    return tuple(dict.fromkeys(found))[-MOST_TRIED:]


def _told(edit: Action) -> str:
    gone, come = (_short(lines) for lines in trimmed(edit.old, edit.new))
    if gone and come:
        return f"changed {gone} to {come}"
    return f"added {come}" if come else f"removed {gone or 'lines'}"


def _short(lines: Sequence[str]) -> str:
    text = " ".join(" ".join(lines[:4]).split())
    return f"`{plain(text, 70)}`" if text else ""


def _utc(when: datetime) -> datetime:
    try:
        return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    except OverflowError:
        return when.replace(tzinfo=UTC)


def _later(when: datetime, seconds: float) -> datetime:
    try:
        return when + timedelta(seconds=seconds)
    except OverflowError:
        return when
