"""The loop: budgets, outcomes, bad output, and that every step is recorded as it happens."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.errors import ChangeError, SandboxError, WorkplaceError
from agent.loop import MALFORMED, Attempt, Budget, NoRecorder, conversation, run
from agent.model import Completion, Message
from agent.models.scripted import ScriptedModel
from agent.tools import TestRun
from agent.workplace import tree_diff
from agent.workspace import Workspace, write_tree
from memory.store import Store
from memory.trajectories import Outcome, Step, Trajectory

FILES = {"pkg/mod.py": "def f(x):\n    return x\n"}
FIX = ["search f", "view pkg/mod.py", "edit pkg/mod.py 2\n    return x + 1", "test", "submit"]


def passes(workspace: Workspace) -> TestRun:
    good = "x + 1" in workspace.read("pkg/mod.py")
    return TestRun(good, "0 failed, 1 passed" if good else "1 failed, 0 passed")


class Place:
    """A workplace whose tests and grades are looks at one file."""

    def __init__(self, root: Path, tests: Callable[[Workspace], TestRun] = passes) -> None:
        write_tree(root, FILES)
        self.workspace, self.tests, self.closed = Workspace(root), tests, False

    def test(self, targets: Sequence[str] = ()) -> TestRun:
        return self.tests(self.workspace)

    def diff(self) -> str:
        return tree_diff(FILES, self.workspace.snapshot())

    def grade(self) -> tuple[Outcome, str]:
        return (Outcome.RESOLVED if passes(self.workspace).passed else Outcome.UNRESOLVED), "looked"

    def close(self) -> None:
        self.closed = True


def attempt(
    root: Path, name: str = "t", budget: Budget | None = None, tests: Callable[[Workspace], TestRun] = passes
) -> Attempt:
    trajectory = Trajectory(
        id=name,
        task_id="task-" + name,
        repo="pkg",
        prompt="issue in pkg\n`f` is too small.",
        model="scripted",
        started_at=datetime.now(UTC),
        config_hash="0",
    )
    return Attempt(trajectory, lambda: Place(root / name, tests), budget or Budget())


def play(root: Path, lines: list[str], budget: Budget | None = None, store: Store | None = None) -> Trajectory:
    return next(iter(run([attempt(root, budget=budget)], ScriptedModel(lines), store or NoRecorder())))


def test_a_fix_is_resolved_and_told_whole(tmp_path: Path) -> None:
    trajectory = play(tmp_path, FIX)
    assert trajectory.outcome is Outcome.RESOLVED
    assert [step.tool for step in trajectory.steps] == ["search", "view", "edit", "test", "submit"]
    assert [step.tests_passed for step in trajectory.steps] == [None, None, None, True, None]
    messages = conversation(trajectory)
    assert [m.content for m in messages if m.role == "assistant"] == FIX
    assert messages[-1] == Message("assistant", "submit")
    assert messages[4] == Message("tool", "1|def f(x):\n2|    return x")


@pytest.mark.parametrize(
    ("lines", "outcome"),
    [
        (["submit"], Outcome.GAVE_UP),
        (["hello", "what", "help"], Outcome.GAVE_UP),
        (["edit pkg/mod.py 2\n    return 7", "submit"], Outcome.UNRESOLVED),
        (["test"] * 50, Outcome.OUT_OF_BUDGET),
    ],
)
def test_every_ending_has_its_outcome(tmp_path: Path, lines: list[str], outcome: Outcome) -> None:
    assert play(tmp_path, lines).outcome is outcome


@pytest.mark.parametrize(
    "said",
    [
        "rm -rf /",
        "",
        "view ../../etc/passwd",
        "view /etc/passwd",
        "edit ../x.py 1\nboom",
        "edit pkg/mod.py 99\nboom",
        "delete pkg/mod.py",
        "view " + "a" * 5000,
        "y" * 300_000,
        "\x00\ud800",
    ],
)
def test_bad_output_is_answered_counted_and_survived(tmp_path: Path, said: str) -> None:
    trajectory = play(tmp_path, [said, *FIX])
    assert trajectory.outcome is Outcome.RESOLVED
    first = trajectory.steps[0]
    assert first.observation
    assert len(first.observation) < 9_000
    assert len(first.said) <= 20_000
    assert not (tmp_path / "x.py").exists()


def test_malformed_turns_are_counted_as_such(tmp_path: Path) -> None:
    trajectory = play(tmp_path, ["please fix it", *FIX])
    assert [step.tool == MALFORMED for step in trajectory.steps] == [step.malformed for step in trajectory.steps]
    assert sum(step.malformed for step in trajectory.steps) == 1


def test_megabytes_of_test_output_are_bounded(tmp_path: Path) -> None:
    trajectory = next(
        iter(run([attempt(tmp_path, tests=lambda w: TestRun(True, "x" * 5_000_000))], ScriptedModel(FIX), NoRecorder()))
    )
    assert max(len(step.observation) for step in trajectory.steps) < 9_000


@pytest.mark.parametrize(("budget", "reason"), [(Budget(steps=2), "2 steps"), (Budget(seconds=1e-9), "1e-09 seconds")])
def test_limits_end_an_attempt_and_say_which(tmp_path: Path, budget: Budget, reason: str) -> None:
    trajectory = play(tmp_path, FIX, budget)
    assert (trajectory.outcome, trajectory.reason) == (Outcome.OUT_OF_BUDGET, reason)


class Chatty(ScriptedModel):
    """Says it used many tokens."""

    def complete(self, conversations, sampling, keys=()):  # type: ignore[no-untyped-def]
        return [Completion(c.text, 5_000, 10, 4_000) for c in super().complete(conversations, sampling, keys)]


def test_only_computed_tokens_count(tmp_path: Path) -> None:
    trajectory = next(iter(run([attempt(tmp_path, budget=Budget(tokens=2_500))], Chatty(FIX), NoRecorder())))
    assert trajectory.reason == "2500 tokens"
    assert len(trajectory.steps) == 3


def test_a_broken_sandbox_ends_only_its_own_attempt_as_infrastructure_failure(tmp_path: Path) -> None:
    def breaks(workspace: Workspace) -> TestRun:
        if workspace.root.name == "bad":
            raise SandboxError("no sandbox")
        return passes(workspace)

    attempts = [attempt(tmp_path, name, tests=breaks) for name in ("good", "bad", "other")]
    ended = {t.id: t.outcome for t in run(attempts, ScriptedModel(FIX), NoRecorder())}
    assert ended == {"good": Outcome.RESOLVED, "bad": Outcome.INFRASTRUCTURE_FAILURE, "other": Outcome.RESOLVED}


def test_a_workplace_that_cannot_be_made_ends_only_its_own_attempt(tmp_path: Path) -> None:
    def impossible() -> Place:
        raise WorkplaceError("no mirror of pkg; clone it")

    lost = Attempt(attempt(tmp_path, "lost").trajectory, impossible, Budget())
    ended = {t.id: t for t in run([lost, attempt(tmp_path)], ScriptedModel(FIX), NoRecorder())}
    assert (ended["lost"].outcome, ended["lost"].reason) == (Outcome.INFRASTRUCTURE_FAILURE, "no mirror of pkg; clone it")
    assert ended["t"].resolved


def test_workplaces_are_closed_when_their_attempt_has_ended(tmp_path: Path) -> None:
    made: list[Place] = []

    def place(name: str) -> Place:
        made.append(Place(tmp_path / name))
        return made[-1]

    attempts = (Attempt(attempt(tmp_path, n).trajectory, lambda n=n: place(n), Budget()) for n in "abc")  # type: ignore[misc]
    for number, _ in enumerate(run(attempts, ScriptedModel(FIX), NoRecorder(), width=1), start=1):
        assert [p.closed for p in made] == [True] * number


def test_more_attempts_than_places_all_end_once(tmp_path: Path) -> None:
    attempts = (attempt(tmp_path, f"t{i}") for i in range(9))
    ended = [t.id for t in run(attempts, ScriptedModel(FIX), NoRecorder(), width=2)]
    assert sorted(ended) == [f"t{i}" for i in range(9)]


def test_an_attempt_does_not_see_another_ones_workspace(tmp_path: Path) -> None:
    scripts = {"one": FIX, "two": ["view pkg/mod.py", "submit"]}
    ended = {
        t.id: t for t in run([attempt(tmp_path, "one"), attempt(tmp_path, "two")], ScriptedModel(scripts=scripts), NoRecorder())
    }
    assert ended["one"].resolved
    assert "x + 1" not in ended["two"].steps[0].observation


def test_steps_are_in_the_store_before_the_next_one_is_asked_for(tmp_path: Path) -> None:
    seen: list[int] = []
    with Store(tmp_path / "s.db") as store:

        class Watching(ScriptedModel):
            def complete(self, conversations, sampling, keys=()):  # type: ignore[no-untyped-def]
                seen.append(len(store.trajectory("t").steps))
                return super().complete(conversations, sampling, keys)

        list(run([attempt(tmp_path)], Watching(FIX), store))
        assert seen == [0, 1, 2, 3, 4]
        assert store.trajectory("t").outcome is Outcome.RESOLVED
        assert isinstance(store.trajectory("t").steps[0], Step)


def test_a_change_that_cannot_be_one_is_the_agents_failure_and_no_others(tmp_path: Path) -> None:
    class Swollen(Place):
        def diff(self) -> str:
            raise ChangeError("the change is too large")

    swollen = Attempt(attempt(tmp_path, "swollen").trajectory, lambda: Swollen(tmp_path / "swollen"), Budget())
    ended = {t.id: t for t in run([swollen, attempt(tmp_path)], ScriptedModel(FIX), NoRecorder())}
    assert (ended["swollen"].outcome, ended["swollen"].reason) == (Outcome.UNRESOLVED, "the change is too large")
    assert ended["t"].resolved
