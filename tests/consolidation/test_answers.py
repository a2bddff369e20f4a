"""Kept answers: of one guard and one artefact, whole, and checked when they are read."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from consolidation.answers import FILE, Answers
from consolidation.errors import ConsolidationError
from tests.consolidation.exam import right

KILLED = """
import sys
from pathlib import Path
from consolidation.answers import Answers
from consolidation.guards import Answer
answers = Answers(Path(sys.argv[1]))
for block in range(50):
    answers.keep("g", "a", {f"{block}/{i}": Answer(score=1, said="x") for i in range(20)})
    print(block, flush=True)
"""


def test_blocks_survive_kill_9_whole_or_not_at_all(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    with child.stdout:
        told = [int(child.stdout.readline()) for _ in range(3)][-1]
        child.kill()
        child.wait(timeout=30)
    found = Answers(tmp_path).known("g", "a", [f"{block}/{i}" for block in range(50) for i in range(20)])
    blocks = [sum(item.startswith(f"{block}/") for item in found) for block in range(50)]
    assert set(blocks) <= {0, 20}
    assert blocks[: told + 1] == [20] * (told + 1)


def test_kept_answers_are_of_one_guard_and_one_artefact_and_checked(tmp_path: Path) -> None:
    answers = Answers(tmp_path)
    answers.keep("g", "a", {"1": right("x", 1), "2": right("x", 2)})
    assert not answers.known("g", "b", ["1"])
    assert not answers.known("h", "a", ["1"])
    with sqlite3.connect(tmp_path / FILE) as database:
        database.execute("UPDATE answers SET answer = ? WHERE item = '1'", ('{"score": 7, "said": ""}',))
    database.close()
    assert set(answers.known("g", "a", ["1", "2", "3"])) == {"2"}
    assert answers.forget(["h"]) == 2
    (tmp_path / FILE).write_bytes(b"no database at all" * 100)
    with pytest.raises(ConsolidationError, match="delete the file"):
        answers.known("g", "a", ["2"])
