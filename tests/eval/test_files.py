"""Tasks of the owner's own: nothing in a file leads out of its repository, and what was saved is what is played."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from agent.sandbox.process import ProcessSandbox
from agent.workspace import write_tree
from eval.errors import EvalError
from eval.files import FileStream, FileTask, save, unfixed
from eval.grading import grade
from eval.pocket.stream import PocketStream
from eval.streams import TaskStream
from memory.trajectories import Outcome

SECRET = "the-hidden-test"
BEFORE, AFTER = "def fee(n):\n    return n - 1\n", "def fee(n):\n    return n\n"


def told(**changes: Any) -> dict[str, Any]:
    """A task file as its owner writes it; keys of `task` are given as `task_id` and so on."""
    task = {"id": "fees-1", "repo": "fees", "issue": "one too few", "position": 0, "difficulty": "easy"}
    task["created_at"] = "2026-03-01T12:00:00Z"
    task |= {name.removeprefix("task_"): changes.pop(name) for name in list(changes) if name.startswith("task_")}
    return {
        "task": task,
        "files": {"fees/__init__.py": "", "fees/core.py": BEFORE},
        "tests": {"tests/test_core.py": f"from fees.core import fee\n\ndef test_fee():\n    assert fee(5) == 5  # {SECRET}\n"},
        "fail_to_pass": ["test_core.py::test_fee"],
        **changes,
    }


def fix(**changes: Any) -> dict[str, Any]:
    return {"task_id": "fees-1", "symbol": "fee", "path": "fees/core.py", "before": BEFORE, "after": AFTER, **changes}


def task(**changes: Any) -> FileTask:
    return FileTask.model_validate_json(json.dumps(told(**changes)))


def refused(**changes: Any) -> str:
    with pytest.raises(ValidationError) as error:
        task(**changes)
    return str(error.value)


# What a file may say

ESCAPES = [
    "/etc/passwd",
    "//etc/passwd",
    "../outside.py",
    "fees/../../outside.py",
    "fees/..",
    "..",
    "fees\\..\\..\\outside.py",
    "C:\\outside.py",
    ".git/hooks/post-checkout",
    ".GIT/config",
    "vendor/.git/config",
    "a\0b.py",
    "a\nb.py",
    "",
    ".",
    "./fees.py",
    "fees//core.py",
    "fees/",
    "fees/./core.py",
    "n" * 300 + ".py",
]


@pytest.mark.parametrize("path", ESCAPES)
def test_a_file_outside_its_repository_is_refused(path: str) -> None:
    assert f"{path!r} is no path inside a repository" in refused(files={path: ""})


@pytest.mark.parametrize(
    "path", ["test_core.py", "/tests/test_a.py", "tests/../fees/core.py", "tests/", "tests", "a/tests/test_a.py"]
)
def test_a_hidden_test_outside_of_the_tests_is_refused(path: str) -> None:
    message = refused(tests={path: "", "tests/test_core.py": ""})
    refusals = ("is no path inside a repository", "hidden tests lie in tests/", "cannot be a file and a folder")
    assert any(refusal in message for refusal in refusals)


@pytest.mark.parametrize(
    "path", ["fees.py", "a/b/c/d.py", "fees/übung 🦉.py", ".hidden", "..fees/a..py", ".gitignore", "-rf", "~/x"]
)
def test_odd_but_harmless_paths_are_taken_and_can_be_written(path: str, tmp_path: Path) -> None:
    found = task(files={path: "text"})
    root = tmp_path / "outer" / "workspace"
    write_tree(root, {**found.files, **found.tests})
    assert (root / path).read_text() == "text"
    assert [entry.name for entry in (tmp_path / "outer").iterdir()] == ["workspace"]


@pytest.mark.parametrize(
    ("files", "both"),
    [
        ({"fees": "", "fees/core.py": ""}, "fees"),
        ({"a/b": "", "a/b/c/d": ""}, "a/b"),
        ({"tests": ""}, "tests"),
        ({"tests/test_core.py/a": ""}, "tests/test_core.py"),
    ],
)
def test_a_file_that_would_have_to_be_a_folder_too_is_refused(files: dict[str, str], both: str) -> None:
    assert f"{both!r} cannot be a file and a folder" in refused(files=files)


def test_a_visible_test_may_have_the_hidden_ones_name() -> None:
    assert task(files={"fees/core.py": BEFORE, "tests/test_core.py": "def test(): pass"})


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        "../x",
        "a/b",
        ".hidden",
        "-x",
        "a b",
        "ü",
        "a\n",
        "a" * 101,
        "bank-stream-0-7",
        "x-held_out-3-1",
        "a-pretrain-0-0",
    ],
)
def test_what_cannot_be_a_files_name_or_is_a_pocket_tasks_cannot_be_an_id(name: str) -> None:
    message = refused(task_id=name)
    assert "cannot be a task's id" in message or "task.id" in message


@pytest.mark.parametrize("name", ["a", "FEES-1", "0", "django__django-11099", "a.b", "bank-stream-0", "stream-0-7x", "a" * 100])
def test_ids_of_every_sensible_kind_are_taken(name: str, tmp_path: Path) -> None:
    save(tmp_path, task(task_id=name))
    assert [one.id for one in FileStream(tmp_path, [name]).tasks()] == [name]


def test_every_pocket_tasks_id_is_refused_here() -> None:
    for one in PocketStream(count=2).tasks():
        assert "unlike a pocket task's" in refused(task_id=one.id)


@pytest.mark.parametrize("name", ["", "..", "../../outside", "/etc", "a/b/c", "a/..", "a/", "a\\b", ".git", "a b", "a\0"])
def test_a_repository_whose_name_leads_elsewhere_is_refused(name: str) -> None:
    message = refused(task_repo=name)
    assert "cannot be a repository's name" in message or "task.repo" in message


@pytest.mark.parametrize("name", ["fees", "owner/name", "django.contrib", "a_b-c"])
def test_repositories_may_have_an_owner(name: str) -> None:
    assert task(task_repo=name).task.repo == name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task_created_at": "2026-03-01T12:00:00"}, "task.created_at needs a time zone"),
        ({"files": {}}, "files"),
        ({"tests": {}}, "tests"),
        ({"fail_to_pass": []}, "fail_to_pass"),
        ({"unknown": 1}, "unknown"),
        ({"fail_to_pass": ["test_fee"]}, "'test_fee' is in none of the tests; it would read test_file.py::test_name"),
        ({"fail_to_pass": ["test_other.py::test_fee"]}, "'test_other.py::test_fee' is in none of the tests"),
        ({"pass_to_pass": ["test_other.py::test_fee"]}, "'test_other.py::test_fee' is in none of the tests"),
        ({"fix": fix(path="fees/other.py")}, "fix: it must name this task and one of its files"),
        ({"fix": fix(path="../../outside.py")}, "fix: it must name this task and one of its files"),
        ({"fix": fix(before="something else")}, "with the text that the file has"),
        ({"fix": fix(task_id="fees-2")}, "fix: it must name this task"),
        ({"fix": fix(after=BEFORE)}, "fix: it changes nothing"),
        ({"fix": fix(after=BEFORE.rstrip("\n"))}, "fix: it changes nothing"),
    ],
)
def test_what_could_never_be_solved_or_learnt_from_is_refused_at_once(changes: dict[str, Any], message: str) -> None:
    assert message in refused(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"files": {"../x": SECRET}},
        {"tests": {"tests/test_core.py": {"oops": SECRET}}},
        {"fix": SECRET},
        {SECRET[:3]: SECRET},
        {"fail_to_pass": SECRET},
    ],
)
def test_a_refusal_does_not_quote_what_is_hidden(changes: dict[str, Any]) -> None:
    assert SECRET not in refused(**changes)


def test_what_grading_needs_shows_nothing_of_itself() -> None:
    assert SECRET not in f"{task().secret} {task().secret!r}"


# What is saved


def test_what_was_saved_is_what_is_played(tmp_path: Path) -> None:
    first, second = task(fix=fix()), task(task_id="fees-2", pass_to_pass=["test_core.py::test_fee"])
    for one in (first, second):
        save(tmp_path / "tasks", one)
    stream: TaskStream = FileStream(tmp_path / "tasks", ["fees-2", "fees-1"])
    assert stream.tasks() == [second.task, first.task]
    assert stream.checkout(first.task) == {"fees/__init__.py": "", "fees/core.py": BEFORE}
    assert stream.merged_fix(first.task) == first.fix
    assert stream.merged_fix(second.task) is None
    secret = stream.secret(second.task)
    assert (secret.task_id, secret.kind, secret.fix) == ("fees-2", "own", None)
    assert (secret.fail_to_pass, secret.pass_to_pass) == (("test_core.py::test_fee",), ("test_core.py::test_fee",))
    assert secret.tests == second.tests


def test_what_the_agent_may_see_holds_nothing_hidden(tmp_path: Path) -> None:
    save(tmp_path, task(fix=fix()))
    stream = FileStream(tmp_path, ["fees-1"])
    (one,) = stream.tasks()
    assert SECRET not in one.model_dump_json() + json.dumps(dict(stream.checkout(one)))
    assert AFTER not in json.dumps(dict(stream.checkout(one)))


def test_a_task_can_be_graded(tmp_path: Path) -> None:
    save(tmp_path, task())
    stream = FileStream(tmp_path, ["fees-1"])
    (one,) = stream.tasks()
    files = stream.checkout(one)
    assert grade(stream.secret(one), files, ProcessSandbox())[0] is Outcome.UNRESOLVED
    assert grade(stream.secret(one), {**files, "fees/core.py": AFTER}, ProcessSandbox())[0] is Outcome.RESOLVED


def test_it_is_saved_for_the_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        save(tmp_path / "tasks", task())
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "tasks").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "tasks" / "fees-1.json").stat().st_mode) == 0o600


def test_saving_again_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    save(tmp_path, task())
    save(tmp_path, task(task_issue="it is quite wrong"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["fees-1.json"]
    assert FileStream(tmp_path, ["fees-1"]).tasks()[0].issue == "it is quite wrong"


def test_saving_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "fees-1.json").mkdir()
    with pytest.raises(OSError, match="directory"):
        save(tmp_path, task())
    assert [entry.name for entry in tmp_path.iterdir()] == ["fees-1.json"]


# What is damaged


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff\xfe", b"null", json.dumps(told())[:-20].encode()])
def test_a_damaged_file_is_named_with_what_to_do_and_without_what_is_hidden(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "fees-1.json").write_bytes(damage)
    with pytest.raises(EvalError, match=r"fees-1\.json: the task cannot be read .*put its file into the inbox again") as error:
        FileStream(tmp_path, ["fees-1"])
    assert SECRET not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_was_edited_into_an_escape_is_refused(tmp_path: Path) -> None:
    save(tmp_path, task())
    path = tmp_path / "fees-1.json"
    path.write_text(path.read_text().replace("fees/core.py", "../core.py"))
    with pytest.raises(EvalError, match=r"fees-1\.json.*is no path inside a repository"):
        FileStream(tmp_path, ["fees-1"])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    save(tmp_path, task())
    with pytest.raises(EvalError, match=r"fees-2\.json: the task cannot be read"):
        FileStream(tmp_path, ["fees-1", "fees-2"])


def test_another_tasks_file_is_not_taken_for_it(tmp_path: Path) -> None:
    save(tmp_path, task())
    (tmp_path / "fees-1.json").rename(tmp_path / "Fees-1.json")  # one and the same, where capitals do not count
    with pytest.raises(EvalError, match=r"Fees-1\.json holds task fees-1"):
        FileStream(tmp_path, ["Fees-1"])


def test_no_ids_are_no_tasks(tmp_path: Path) -> None:
    assert FileStream(tmp_path / "nowhere", []).tasks() == []


def test_only_pocket_tasks_and_own_ones_with_a_fix_are_counted_on_to_teach_a_merged_fix(tmp_path: Path) -> None:
    assert unfixed(tmp_path, ["bank-stream-0-1", "django__django-1", "koan-borrow-x"]) == {"django__django-1", "koan-borrow-x"}
