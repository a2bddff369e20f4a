"""The full toolkit on files that a test run made to harm it: what reaches out of the workspace, never ends, or breaks it."""

import random
import shutil
import time
from pathlib import Path

import pytest

from agent.errors import CallError
from agent.full.edits import Desk
from agent.full.map import overview
from agent.full.matching import match
from agent.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    root = tmp_path / "repo"
    root.mkdir()
    return Workspace(root)


def test_taking_a_new_file_back_removes_no_folder_behind_a_link(workspace: Workspace, tmp_path: Path) -> None:
    outside = tmp_path / "outside" / "empty"
    outside.mkdir(parents=True)
    desk = Desk(workspace)
    desk.create("made/empty/new.txt", "new")
    shutil.rmtree(workspace.root / "made")
    (workspace.root / "made").symlink_to(outside.parent)
    desk.undo()
    assert outside.is_dir()


def test_taking_a_new_file_back_removes_the_folders_made_for_it(workspace: Workspace) -> None:
    desk = Desk(workspace)
    desk.create("made/empty/new.txt", "new")
    desk.undo()
    assert not list(workspace.root.iterdir())


@pytest.mark.parametrize("base", ["+".join("1" * 400), f"{'-' * 900}1", f"x{'.y' * 900}"])
def test_a_base_class_too_deep_to_be_written_out_is_mapped(workspace: Workspace, base: str) -> None:
    (workspace.root / "deep.py").write_text(f"class Deep({base}):\n    def reach(self): ...\n")
    assert "1: class Deep(...)" in overview(workspace, "deep.py")


def test_long_lines_that_are_like_none_quoted_are_looked_at_no_further_than_their_beginning() -> None:
    letters = "".join(map(chr, range(33, 127)))
    rng = random.Random(0)
    lines = ["".join(rng.choices(letters, k=8_000)) for _ in range(61)]
    began = time.process_time()
    with pytest.raises(CallError):
        match(lines[1:], lines[:1], ["new"])
    assert time.process_time() - began < 5
