"""Benchmark files by the command line; with the real file where it is there."""

import json
import os
from pathlib import Path

import pytest

from tests.daemon.running import run

DATA = Path(os.environ.get("SLEEPYD_DATA") or Path(__file__).parents[3] / "shared" / "data") / "swe-bench-cl.json"


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    done = run("data", "fetch", "nope", "--home", str(tmp_path / "h"))
    assert done.returncode == 1
    assert "swe-bench-cl, humaneval, mbpp" in done.stderr


def test_a_copy_that_is_something_else_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    done = run("data", "fetch", "swe-bench-cl", "--from", str(tmp_path / "x.json"), "--home", str(tmp_path / "h"))
    assert done.returncode == 1
    assert "is not the published" in done.stderr
    assert not (tmp_path / "h" / "data" / "swe-bench-cl.json").exists()


@pytest.mark.skipif(not DATA.is_file(), reason="no benchmark data here; set SLEEPYD_DATA to its folder")
def test_the_rebuilt_benchmark_is_taken_when_that_is_said_and_has_the_published_contents(tmp_path: Path) -> None:
    options = ["--from", str(DATA), "--accept-rebuilt", "--home", str(tmp_path), "--json"]
    done = run("data", "fetch", "swe-bench-cl", *options)
    assert done.returncode == 0, done.stderr
    assert "rebuilt" in json.loads(done.stdout)["note"]
    shown = json.loads(run("data", "contents", str(tmp_path / "data" / "swe-bench-cl.json"), "--json").stdout)
    assert shown["as_published"]
    assert sum(row["tasks"] for row in shown["sequences"]) == 273
