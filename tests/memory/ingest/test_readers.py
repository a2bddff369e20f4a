"""The readers of other agents' sessions: what becomes of each shape, and that the same session is the same trajectory."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from memory.ingest.ingest import Bundle, FileReport, files, keep, new_of, read
from memory.knowledge.forgetting import forget
from memory.store import Store
from memory.trajectories import Outcome, Trajectory
from tests.memory.ingest.samples import claude_lines, mini, swe_agent, write


def only(path: Path, repo: str = "") -> tuple[FileReport, Trajectory]:
    report, found = read(path, repo)
    assert report.problem == ""
    assert len(found) == 1
    return report, found[0]


def call(trajectory: Trajectory, number: int) -> Any:
    return json.loads(trajectory.steps[number].said.splitlines()[-1])


def test_a_session_of_swe_agent_becomes_a_trajectory(tmp_path: Path) -> None:
    path = write(tmp_path / "x.traj", swe_agent())
    os.utime(path, (1_700_000_000, 1_700_000_000))
    report, got = only(path)
    assert (got.task_id, got.repo, got.prompt, got.model) == ("acme__bank-12", "acme/bank", "Fees are doubled", "gpt-4")
    assert (got.imported, got.config_hash, got.origin, got.system) == ("swe-agent/1", "imported", "agent", "")
    assert (got.outcome, got.reason) == (Outcome.UNRESOLVED, "imported: not graded here")
    assert [(step.tool, step.observation) for step in got.steps[:2]] == [
        ("bash", "fees.py\ntests/"),
        ("open", "1:def fee(): return 2"),
    ]
    assert got.steps[0].said.startswith("Look around first.\n\n")
    assert call(got, 0) == {"name": "bash", "arguments": {"command": "ls -F"}}
    assert call(got, 1) == {"name": "open", "arguments": {"path": "fees.py"}}
    assert (got.steps[2].tool, got.steps[2].said) == ("", "Hm.")
    assert got.started_at == datetime.fromtimestamp(1_700_000_000, UTC)
    assert any("says no time" in note for note in report.notes)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        ("submitted (exit_cost)", Outcome.OUT_OF_BUDGET),
        ("exit_context", Outcome.OUT_OF_BUDGET),
        ("exit_forfeit", Outcome.GAVE_UP),
        ("exit_environment_error", Outcome.GAVE_UP),
        ("resolved", Outcome.GAVE_UP),
    ],
)
def test_how_swe_agent_ended_is_kept_and_nothing_is_ever_resolved(tmp_path: Path, status: str, outcome: Outcome) -> None:
    assert only(write(tmp_path / "x.traj", swe_agent(status)))[1].outcome is outcome


def test_several_attempts_in_one_file_are_several_trajectories(tmp_path: Path) -> None:
    attempts = [swe_agent(), swe_agent("exit_cost")]
    attempts[1]["trajectory"].pop(0)
    report, found = read(write(tmp_path / "x.traj", {"attempts": attempts}))
    assert (report.sessions, len({one.id for one in found})) == (2, 2)


def test_a_session_of_mini_swe_agent_2_has_a_step_for_every_action_with_its_own_result(tmp_path: Path) -> None:
    _, got = only(write(tmp_path / "acme__bank-7.traj.json", mini()))
    assert (got.imported, got.task_id, got.repo, got.model) == ("mini-swe-agent/2", "acme__bank-7", "acme/bank", "openai/gpt-5")
    assert got.prompt == "Fees are doubled"
    assert [(step.tool, step.observation) for step in got.steps] == [
        ("bash", "fees.py"),
        ("bash", "def fee(): return 2"),
        ("", ""),
    ]
    assert [call(got, 0)["arguments"], call(got, 1)["arguments"]] == [{"command": "ls"}, {"command": "cat fees.py"}]
    assert got.started_at == datetime.fromtimestamp(1760000000.5, UTC)


@pytest.mark.parametrize("value", [mini("mini-swe-agent-1"), mini(None), mini(None)["messages"]])
def test_a_session_of_mini_swe_agent_1_has_its_commands_in_fences(tmp_path: Path, value: Any) -> None:
    _, got = only(write(tmp_path / "x.traj.json", value))
    assert got.imported == "mini-swe-agent/1"
    assert got.task_id.startswith("imported-")
    assert call(got, 0) == {"name": "bash", "arguments": {"command": "ls"}}
    assert got.steps[0].observation.endswith("fees.py")


def test_an_unknown_version_is_refused_by_name(tmp_path: Path) -> None:
    report, found = read(write(tmp_path / "x.traj.json", mini("mini-swe-agent-9")))
    assert not found
    assert "mini-swe-agent-9" in report.problem
    assert "mini-swe-agent-1.1" in report.problem


@pytest.mark.parametrize(
    ("status", "outcome"), [("LimitsExceeded", Outcome.OUT_OF_BUDGET), ("BadRequestError", Outcome.GAVE_UP)]
)
def test_how_mini_swe_agent_ended_is_kept(tmp_path: Path, status: str, outcome: Outcome) -> None:
    assert only(write(tmp_path / "x.traj.json", mini(exit_status=status)))[1].outcome is outcome


def test_a_session_of_claude_code_becomes_a_trajectory(tmp_path: Path) -> None:
    report, got = only(write(tmp_path / "s.jsonl", claude_lines()))
    assert (got.imported, got.repo, got.model, got.prompt) == (
        "claude-code/1",
        "bank",
        "claude-opus-4-5",
        "Fees are doubled, please fix",
    )
    assert got.started_at == datetime(2026, 1, 20, 11, 57, 1, 716000, UTC)
    assert [(step.tool, step.observation) for step in got.steps] == [
        ("Read", "     1→def fee(): return 2"),
        ("Bash", "1 failed\n[image]"),
        ("", "[user] yes"),
        ("Edit", "edited"),
        ("", ""),
    ]
    assert got.steps[0].said.startswith("I will look.\n\n{")
    assert call(got, 0)["arguments"] == {"file_path": "~/code/bank/fees.py"}
    assert [step.number for step in got.steps] == list(range(5))
    assert report.left_out == {
        "summary": 1,
        "file-history-snapshot": 1,
        "command": 1,
        "meta": 1,
        "side chain": 1,
        "repeated": 1,
        "brand-new-type": 1,
    }
    assert (report.malformed, report.steps) == (0, 5)


def test_two_sessions_in_one_file_are_two_and_one_of_side_chains_alone_is_none(tmp_path: Path) -> None:
    report, _ = read(write(tmp_path / "s.jsonl", claude_lines() + claude_lines("5f0c7e1a-0000-4000-8000-000000000002")))
    assert report.sessions == 2
    report, found = read(write(tmp_path / "agent-1.jsonl", [line | {"isSidechain": True} for line in claude_lines()]))
    assert (report.problem, found) == ("", [])
    assert report.notes


def test_the_repository_can_be_said(tmp_path: Path) -> None:
    assert only(write(tmp_path / "s.jsonl", claude_lines()), "acme/bank")[1].repo == "acme/bank"


def test_the_same_session_is_one_trajectory_wherever_its_file_lies_and_a_longer_one_continues_it(tmp_path: Path) -> None:
    lines = claude_lines()
    short, again, longer = (tmp_path / f"{name}.jsonl" for name in "abc")
    write(short, lines[:10]), write(again, lines[:10]), write(longer, lines)
    os.utime(again, (1, 1))
    with Store(tmp_path / "sleepy.db") as store:
        for path, known, continues in ((short, 0, False), (again, 1, False), (longer, 0, True)):
            report, found = read(path, "other" if path == again else "")
            new = new_of(found, store, report)
            keep(store, Bundle.of(new))
            assert (report.known, any("continues" in note for note in report.notes)) == (known, continues)
        assert len(store.trajectories()) == 2
        assert len(store.tasks()) == 1
        assert store.results() == []


def test_an_imported_session_of_a_benchmark_leaves_the_benchmarks_own_task_alone(tmp_path: Path) -> None:
    _, found = read(write(tmp_path / "x.traj", swe_agent()))
    with Store(tmp_path / "sleepy.db") as store:
        keep(store, Bundle.of(found))
        assert store.tasks() == []
        assert store.failures("acme__bank-12") == 0
        assert [one.imported for one in store.trajectories()] == ["swe-agent/1"]


def test_a_session_that_was_forgotten_is_not_imported_again(tmp_path: Path) -> None:
    report, found = read(write(tmp_path / "x.traj", swe_agent()))
    with Store(tmp_path / "sleepy.db") as store:
        keep(store, Bundle.of(found))
        forget(store, found[0].id)
        assert new_of(found, store, report) == []
        assert any("forgotten" in note for note in report.notes)


def test_a_longer_version_of_a_forgotten_session_is_not_imported_either(tmp_path: Path) -> None:
    short, longer = (tmp_path / f"{name}.jsonl" for name in "ab")
    write(short, claude_lines()[:10]), write(longer, claude_lines())
    _, found = read(short)
    with Store(tmp_path / "sleepy.db") as store:
        keep(store, Bundle.of(found))
        forget(store, found[0].id)
        report, found = read(longer)
        assert new_of(found, store, report) == []
        assert any("forgotten" in note for note in report.notes)


def test_after_a_kill_between_tasks_and_attempts_the_same_file_brings_the_rest(tmp_path: Path) -> None:
    report, found = read(write(tmp_path / "s.jsonl", claude_lines()))
    with Store(tmp_path / "sleepy.db") as store:
        store.add_tasks(Bundle.of(found).tasks)
        assert new_of(found, store, report) == found
        assert not report.notes
        keep(store, Bundle.of(found))
        assert [one.id for one in store.trajectories()] == [found[0].id]
        assert len(store.tasks()) == 1


def test_folders_are_searched_links_out_of_them_and_pipes_are_not_read(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    (inside / "deep").mkdir(parents=True)
    outside.mkdir()
    write(outside / "s.jsonl", claude_lines())
    write(inside / "deep" / "x.traj", swe_agent())
    (inside / "readme.md").write_text("x")
    (inside / "link.jsonl").symlink_to(outside / "s.jsonl")
    (inside / "loop.jsonl").symlink_to(inside / "loop.jsonl")
    (inside / "folder").symlink_to(outside)
    os.mkfifo(inside / "pipe.jsonl")
    found = dict(files([inside]))
    assert [path.name for path, report in found.items() if report is None] == ["x.traj"]
    assert {path.name for path, report in found.items() if report and not report.problem} >= {"link.jsonl", "pipe.jsonl"}
    assert read(inside / "pipe.jsonl")[0].problem == "no regular file"
    assert list(files([tmp_path / "inside" / "folder" / "none"])) == [(tmp_path / "inside" / "folder" / "none", None)]
    (inside / "x").mkdir()
    late = files([inside])
    next(late)
    (inside / "x").rmdir()
    assert {Path(report.file).name: report.problem for _, report in late if report}["x"] == "No such file or directory"
    assert read(tmp_path / "none.traj")[0].problem == "No such file or directory"
