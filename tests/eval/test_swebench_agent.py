"""The agent on real tasks, end to end: known fixes played through the real tools in the real sandbox, and no secret told.

Where mirrors and data come from, and SLEEPY_TASKS, is told in `tests.eval.test_native_real`.
"""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest

from agent.distil import distil
from agent.full import FULL
from agent.loop import Budget
from agent.repositories import Mirrors
from agent.sandbox.bubblewrap import Bubblewrap
from agent.turns import Call, render_full
from eval.play import Player
from eval.swebench.dataset import Dataset, SweBenchSecret
from eval.swebench.native.grader import NativeGrader
from eval.swebench.stream import SweBenchStream
from memory.store import Store
from memory.tasks import Task
from memory.trajectories import Outcome, Trajectory
from tests.eval.gold import ByIssue, gold_turns
from tests.eval.test_native_real import chosen, dataset, grader, pytestmark  # noqa: F401 - fixtures

BUDGET = Budget(steps=80, tokens=10**8, seconds=3600.0, turn_tokens=4096)
SHORTEST_SECRET = 24


def added(patch: str) -> set[str]:
    """Lines that a patch adds, long enough to be told from others."""
    lines = {line[1:].strip() for line in patch.split("\n") if line.startswith("+") and not line.startswith("+++")}
    return {line for line in lines if len(line) >= SHORTEST_SECRET}


def hidden(secret: SweBenchSecret, tree: str) -> set[str]:
    """What the hidden tests and the official discussion say that the tree an agent starts from does not."""
    names = {name for test in secret.fail_to_pass for name in re.findall(r"\w+", test) if name.startswith("test_")}
    values = added(secret.test_patch) | names | {line.strip() for line in secret.hints.split("\n")}
    # Some discussions show the fix itself, which the scripted agent says.
    return {value for value in values if len(value) >= 12 and value not in tree and value.lstrip("+- ") not in secret.patch}


def text_of(root: Path) -> str:
    files = [path for path in root.rglob("*") if path.is_file()]
    texts = (path.read_text(encoding="utf-8", errors="replace") for path in files if path.suffix == ".py")
    return "\n".join([*map(str, files), *texts])


@pytest.fixture(scope="module")
def stream(dataset: Dataset, grader: NativeGrader) -> SweBenchStream:  # noqa: F811
    return SweBenchStream(dataset, chosen(), lambda sandbox: grader)


def curious(task: Task, secret: SweBenchSecret) -> list[str]:
    """An agent that looks where an answer might lie: git, the hidden tests' names, files that only the fix makes."""
    name = re.findall(r"\w+", secret.fail_to_pass[0])[-1]
    paths = re.findall(r"^diff --git a/\S+ b/(\S+)$", secret.test_patch, re.MULTILINE)
    calls = [
        Call("map"),
        Call("search", name),
        Call("search", task.id.rpartition("-")[2]),
        Call("view", ".git/HEAD"),
        Call("view", f"../{task.id}.git/HEAD"),
        Call("view", paths[0]),
        Call("test", targets=(paths[0],)),
        Call("create", "a_note.py", body="x = 1"),
        Call("submit"),
        Call("submit"),
    ]
    return [render_full(call) for call in calls]


def test_known_fixes_are_resolved_through_the_tools_and_no_secret_is_told(
    stream: SweBenchStream,
    dataset: Dataset,  # noqa: F811
    grader: NativeGrader,  # noqa: F811
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    tasks, secrets, unknown, scripts = stream.tasks(), {}, {}, {}
    for task in tasks:
        secret = secrets[task.id] = dataset.secret(task.id)
        made = grader.checkout(task.id, tmp_path / "looked" / task.id)
        unknown[task.id] = hidden(secret, text_of(made.root) + task.issue)
        scripts[task.issue] = gold_turns(made, secret.patch)
        made.remove()
    model = ByIssue(scripts)
    with Store(tmp_path / "s.db") as store:
        played = list(Player(model, Bubblewrap(), store, BUDGET, width=2).play(stream, tasks))
        kept = {t.id: store.trajectory(t.id).model_dump_json() for t in played}
    by_id = {task.id: task for task in tasks}
    for trajectory in played:
        memories = distil(trajectory, by_id[trajectory.task_id])
        assert memories[0].verified
        kept[trajectory.id] += "".join(memory.model_dump_json() for memory in memories)
    assert {t.task_id: (t.outcome, t.reason) for t in played if not t.resolved} == {}
    assert sorted(t.task_id for t in played) == sorted(task.id for task in tasks)
    for trajectory in played:
        issue = next(task.issue for task in tasks if task.id == trajectory.task_id)
        _tells_nothing(
            trajectory, issue, unknown[trajectory.task_id], secrets[trajectory.task_id], caplog.text, kept[trajectory.id]
        )
    assert all(FULL.system in trajectory.system for trajectory in played)


def _tells_nothing(trajectory: Trajectory, issue: str, unknown: set[str], secret: SweBenchSecret, log: str, kept: str) -> None:
    seen = "\n".join([trajectory.system, trajectory.prompt, *(step.observation for step in trajectory.steps)])
    own = json.dumps("\n".join(step.said for step in trajectory.steps))
    told = [value for value in unknown if value in seen and json.dumps(value)[1:-1] not in own]
    told += [value for value in unknown if value in trajectory.reason or value in log]
    told += [value for value in unknown if json.dumps(value)[1:-1] in kept and json.dumps(value)[1:-1] not in own]
    assert told == []
    of_its_own = added(secret.patch) - {line for line in added(secret.patch) if line in issue}  # some issues give it away
    assert not [line for line in of_its_own if line in trajectory.system + trajectory.prompt + log]


def test_an_agent_that_looks_for_the_answer_finds_none(
    stream: SweBenchStream,
    dataset: Dataset,  # noqa: F811
    grader: NativeGrader,  # noqa: F811
    tmp_path: Path,
) -> None:
    tasks = stream.tasks()[:4]
    scripts = {task.issue: curious(task, dataset.secret(task.id)) for task in tasks}
    played = list(Player(ByIssue(scripts), Bubblewrap(), budget=BUDGET, width=2).play(stream, tasks))
    for trajectory in played:
        secret = dataset.secret(trajectory.task_id)
        made = grader.checkout(trajectory.task_id, tmp_path / trajectory.task_id)
        unknown = {value for value in hidden(secret, text_of(made.root)) if "test_" in value} | added(secret.patch)
        unknown = {value for value in unknown if value not in text_of(made.root)}
        observed = "\n".join(step.observation for step in trajectory.steps if step.tool != "search")
        assert [value for value in unknown if value in observed] == []
        assert trajectory.outcome is Outcome.UNRESOLVED
        assert {step.observation[:40] for step in trajectory.steps if step.tool == "test"}, "its own tests run"
        made.remove()


def test_a_mirror_is_never_in_the_sandbox(stream: SweBenchStream, grader: NativeGrader, tmp_path: Path) -> None:  # noqa: F811
    place = stream.open(stream.tasks()[0], tmp_path / "work", Bubblewrap())
    try:
        mounts = [str(path) for path in place.workspace.mounts]
        assert not [mount for mount in mounts if mount.endswith(".git") or "mirror" in mount]
        assert not (place.workspace.root / ".git").exists()
        assert isinstance(grader._mirrors, Mirrors)
    finally:
        place.close()
