"""Nights by the command line: the list, and the sheet of a night's pairs there and back, without a daemon."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.model import Role
from consolidation.pairs import Pair
from daemon.cli.nights import found_night
from daemon.errors import DaemonError
from daemon.home import Home
from memory.nights import Night, Verdict
from memory.store import Store
from tests.daemon.running import run

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
IDS = ("aaaa", "1234567890123456", "2")


def pair(night: str, number: int) -> Pair:
    said: tuple[tuple[Role, str], ...] = (("user", f"issue {night} {number}"), ("assistant", "=1+1"))
    return Pair(task_id=f"t{number}", repo="r", trajectory_id=f"{number}", source="agent", messages=said)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three nights, of which the first was promoted and the last is open; the pairs of the second were removed."""
    root = tmp_path_factory.mktemp("home")
    place = Home.at(root)
    with Store(place.store) as store:
        for number, identity in enumerate(IDS):
            night = Night(id=identity, started_at=BEGAN + timedelta(days=number), strategy="s", seed=0, config_hash="c")
            store.open_night(night)
            if number < 2:
                verdict = Verdict(promoted=not number, why="proven" if not number else "worse")
                store.close_night(night.model_copy(update={"ended_at": night.started_at, "verdict": verdict}))
    for identity in (IDS[0], IDS[2]):
        folder = place.nights / identity
        folder.mkdir(parents=True)
        (folder / "pairs.jsonl").write_text("".join(f"{pair(identity, n).model_dump_json()}\n" for n in range(5)))
    return root


def test_the_list_is_numbered_and_its_json_is_as_ever(home: Path) -> None:
    shown = run("nights", "--home", str(home)).stdout
    assert [line.split()[:2] for line in shown.splitlines()[1:]] == [[str(n), identity] for n, identity in enumerate(IDS, 1)]
    assert "proven" in shown
    last = run("nights", "--last", "1", "--home", str(home)).stdout
    assert last.splitlines()[1].split()[:2] == ["3", "2"]
    rows = json.loads(run("nights", "--home", str(home), "--json", "-n", "2").stdout)
    assert [(row["id"], row["promoted"]) for row in rows] == [(IDS[1], False), (IDS[2], None)]


@pytest.mark.parametrize(("name", "night"), [("1", "aaaa"), ("aaaa", "aaaa"), ("last", "2"), ("3", "2"), ("2", "2")])
def test_a_night_is_named_by_its_number_its_id_or_as_the_last(home: Path, name: str, night: str) -> None:
    assert found_night(home, name)["id"] == night


@pytest.mark.parametrize("name", ["0", "4", "-1", "bbbb", "9" * 40])
def test_another_is_refused(home: Path, name: str) -> None:
    with pytest.raises(DaemonError, match="there are 1 to 3"):
        found_night(home, name)


def test_a_sheet_is_drawn_filled_in_and_scored(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheet.csv"
    assert run("nights", "--home", str(home), "sheet", "1", "--out", str(out), "--pairs", "4").returncode == 0
    rows = list(csv.DictReader(io.StringIO(out.read_text(encoding="utf-8-sig"), newline="")))
    assert len(rows) == 4
    assert {row["taught"] for row in rows} == {"1. =1+1"}
    for row, answer in zip(rows, ("yes", "no", "yes", ""), strict=True):
        row["correct"] = answer
    saved = io.StringIO()
    writer = csv.DictWriter(saved, rows[0], delimiter=";")
    writer.writeheader()
    writer.writerows(rows)
    out.write_text(saved.getvalue(), encoding="utf-8-sig")
    found = json.loads(run("nights", "score", str(out), "--home", str(home), "--json").stdout)
    assert (found["all"]["scored"], found["all"]["wrong"], found["unscored"]) == (3, 1, 1)
    shown = run("nights", "score", str(out), "--home", str(home)).stdout
    assert "33.3%" in shown
    assert "1 not scored" in shown


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("sheet", IDS[1], "--out", "x.csv"), "removed to save space"),
        (("sheet", "1", "--out", "no/such/folder/x.csv"), "name a file in a folder that is there"),
        (("score", "none.csv"), "cannot be read"),
        (("score", "odd.csv"), "no such pair"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(home: Path, tmp_path: Path, words: tuple[str, ...], why: str) -> None:
    (tmp_path / "odd.csv").write_text("id,correct\np-1,yes\n")
    named = [str(tmp_path / word) if word.endswith(".csv") else word for word in words]
    done = run("nights", *named, "--home", str(home))
    assert done.returncode == 1
    assert why in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "x.csv").exists()
