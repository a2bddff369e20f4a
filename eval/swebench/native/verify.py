"""Does a task's official verdict come out on this machine: does it fail as it is, and pass with its own fix?

Only tasks that verify may count against an agent. What was found out is kept, one file each, under everything that decides
it: the task, its recipe, the Python that is asked for, and the code of the grading; a run that was cut off goes on.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from eval.errors import EvalError
from eval.swebench.dataset import Dataset, SweBenchSecret
from eval.swebench.native import runs
from eval.swebench.native.grader import Verdict
from memory.files import write_whole
from memory.hashing import content_hash, source_hash
from memory.trajectories import Outcome

_HERE = Path(__file__).resolve().parent
DECIDES = tuple(_HERE / name for name in ("runs.py", "grader.py", "verify.py", "shims"))
JOIN_SECONDS = 0.2
PASSING_BEFORE = 0.95


class Grader(Protocol):
    """What gives verdicts."""

    def decides(self, task_id: str) -> str:
        """Hash of all that a verdict depends on, but for the code of this package."""
        ...

    def grade(self, task_id: str, patch: str) -> Verdict:
        """The verdict on a patch."""
        ...


class Finding(BaseModel):
    """What a task came to: both directions, wall seconds of both runs together, and why not, if one is false.

    `infrastructure` marks what says nothing about the task: it is asked again next time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_fails: bool
    gold_resolves: bool
    seconds: float
    why: str
    python: str = ""
    lock: str = ""
    infrastructure: bool = False

    @property
    def verified(self) -> bool:
        """Whether the task may count."""
        return self.base_fails and self.gold_resolves


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid")

    decides: str
    finding: Finding


def verify(
    grader: Grader,
    dataset: Dataset,
    ids: Iterable[str],
    folder: Path,
    jobs: int = 1,
    on_done: Callable[[str, Finding, int, int], None] = lambda identity, finding, done, total: None,
) -> dict[str, Finding]:
    """Verify tasks, at most `jobs` at a time; each costs two test runs unless `folder` knows the answer.

    `on_done` is told task, finding, and how many of how many are done. An interrupt (KeyboardInterrupt) loses only what is
    being run: the threads are not waited for, and their sandboxes die with the process.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    wanted = list(dict.fromkeys(ids))
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    answers: queue.SimpleQueue[tuple[str, Finding | BaseException]] = queue.SimpleQueue()
    for identity in wanted:
        waiting.put(identity)

    def work() -> None:
        while True:
            try:
                identity = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                answers.put((identity, _known_or_found(grader, dataset, identity, folder)))
            except BaseException as error:  # noqa: BLE001 - raised again by the caller's thread
                answers.put((identity, error))

    for _ in range(min(jobs, len(wanted))):
        threading.Thread(target=work, daemon=True, name="verify").start()
    found: dict[str, Finding] = {}
    while len(found) < len(wanted):
        try:
            identity, answer = answers.get(timeout=JOIN_SECONDS)
        except queue.Empty:  # so that an interrupt is heard
            continue
        if isinstance(answer, BaseException):
            raise answer
        found[identity] = answer
        on_done(identity, answer, len(found), len(wanted))
    return {identity: found[identity] for identity in wanted}


def kept(grader: Grader, ids: Iterable[str], folder: Path) -> dict[str, Finding]:
    """What `verify` would not have to find out again; nothing is run."""
    found = {identity: _kept(grader, identity, folder)[1] for identity in dict.fromkeys(ids)}
    return {identity: finding for identity, finding in found.items() if finding is not None}


def _kept(grader: Grader, identity: str, folder: Path) -> tuple[str, Finding | None]:
    """All that decides a finding, as a hash, and the finding that is kept under it."""
    try:
        decides = content_hash([source_hash(DECIDES), grader.decides(identity)])
    except EvalError as error:  # there is no way to run it here
        return "", Finding(base_fails=False, gold_resolves=False, seconds=0.0, why=str(error), infrastructure=True)
    try:
        file = _Record.model_validate_json((folder / f"{identity}.json").read_bytes())
    except (OSError, ValidationError):
        return decides, None
    return decides, file.finding if file.decides == decides and not file.finding.infrastructure else None


def _known_or_found(grader: Grader, dataset: Dataset, identity: str, folder: Path) -> Finding:
    decides, known = _kept(grader, identity, folder)
    if known is not None:
        return known
    finding = _find(grader, dataset.secret(identity))
    write_whole(folder / f"{identity}.json", _Record(decides=decides, finding=finding).model_dump_json())
    return finding


def _find(grader: Grader, secret: SweBenchSecret) -> Finding:
    gold = grader.grade(secret.task_id, secret.patch)
    if gold.outcome is Outcome.INFRASTRUCTURE_FAILURE:
        return Finding(base_fails=False, gold_resolves=False, seconds=gold.seconds, why=gold.why, infrastructure=True)
    base = grader.grade(secret.task_id, "")
    why = [f"with the fix: {gold.why}"] if gold.outcome is not Outcome.RESOLVED else []
    why += [f"without the fix: {fault}" for fault in (_not_failing(base, secret),) if fault]
    return Finding(
        base_fails=not _not_failing(base, secret),
        gold_resolves=gold.outcome is Outcome.RESOLVED,
        seconds=round(gold.seconds + base.seconds, 1),
        why="; ".join(why),
        python=base.environment.python if base.environment else "",
        lock=base.environment.lock if base.environment else "",
        infrastructure=base.outcome is Outcome.INFRASTRUCTURE_FAILURE,
    )


def _not_failing(base: Verdict, secret: SweBenchSecret) -> str:
    """Why a run without the fix does not show that the task is unsolved; nothing if it does.

    Where PASS_TO_PASS tests fail as well, the failure is vacuous: perhaps no test was run. In an environment that is not
    the official one a few of them may fail without the fix, and a few FAIL_TO_PASS tests pass; with it, all have to pass.
    """
    if base.outcome is Outcome.INFRASTRUCTURE_FAILURE:
        return base.why
    if base.outcome is Outcome.RESOLVED:
        return "all tests pass"
    failing = sum(base.results.get(test) not in runs.PASSED for test in secret.pass_to_pass)
    if failing > (1 - PASSING_BEFORE) * len(secret.pass_to_pass):
        return f"{failing} of {len(secret.pass_to_pass)} tests that should pass do not"
    return ""
