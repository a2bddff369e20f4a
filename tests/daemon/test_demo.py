"""The main job, end to end: day, night, day; through the real command line."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from consolidation.adapters import AdapterStore
from memory.errors import StoreVersionError
from memory.store import Store
from memory.trajectories import Outcome

SMALL = """
[tasks]
repos = ["bank"]
[guard]
tasks = 12
format_seeds = 1
[night]
threads = 1
[night.lora]
epochs = 2
batch_size = 2
[night.gate]
min_tasks = 8
margin = 0.9
limit = 0.99
chance = 1000
[night.gate.format]
margin = 0.9
limit = 0.99
chance = 1000
"""


def sleepyctl(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from daemon.cli import main; main()", *arguments]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(sleepyctl(*arguments), capture_output=True, text=True, timeout=500, check=False)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def result(home: Path) -> dict:  # type: ignore[type-arg]
    (home / "small.toml").write_text(SMALL)
    done = run(
        "demo",
        "--json",
        "--arms",
        "--seed",
        "1",
        "--tasks-per-day",
        "16",
        "--home",
        str(home / "h"),
        "--config",
        str(home / "small.toml"),
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip().splitlines()) == 1
    return json.loads(done.stdout)


def test_one_json_object_says_everything(result: dict) -> None:  # type: ignore[type-arg]
    assert result["seed"] == 1
    assert result["day1"]["tasks"] == result["day2"]["tasks"] == 16
    night = result["night"]
    assert night["pairs"] == sum(night["sources"].values()) > 0
    assert set(night["sources"]) <= {"agent", "merged_fix"}
    assert night["loss_first"] > night["loss_last"] > 0
    assert night["verdict"] in {"promoted", "rejected"}
    assert night["why"]
    for side in ("base", "adapted"):
        kinds = result["day2"][side]["by_kind"]
        assert sum(k["tasks"] for k in kinds.values()) == 16
        assert sum(k["resolved"] for k in kinds.values()) == result["day2"][side]["resolved"]
        assert kinds["convention"]["tasks"] == 8
    assert result["config_hash"]


def test_the_arms_differ_in_what_they_are_told_and_served_and_in_nothing_else(result: dict, home: Path) -> None:  # type: ignore[type-arg]
    arms = {row["arm"]: row for row in result["arms"]}
    assert list(arms) == ["base", "knowledge", "skill", "both", "frozen"]
    assert arms["base"]["day"] == result["day2"]["base"]
    assert arms["frozen"]["day"] == arms["base"]["day"]  # greedy play: chance has no part in it
    assert (arms["frozen"]["change"], arms["frozen"]["config_hash"]) == (0, arms["base"]["config_hash"])
    assert arms["skill"]["day"] == result["day2"]["adapted"]
    assert arms["knowledge"]["told"] == arms["both"]["told"] > 0
    assert all(arms[name]["told"] == 0 for name in ("base", "skill", "frozen"))
    assert arms["knowledge"]["memories"] == arms["both"]["memories"] > 0
    assert arms["knowledge"]["config_hash"] != arms["base"]["config_hash"]
    with Store(home / "h" / "sleepy.db", read_only=True) as store:
        recorded = Counter(t.arm for t in store.trajectories(origin="agent"))
        assert recorded == {"": 48, "knowledge": 16, "skill": 16, "both": 16, "frozen": 16}
        told = {t.knowledge for t in store.trajectories(origin="agent") if t.arm == "both"}
        assert len(told) == 1


def test_every_number_can_be_traced_to_a_row(result: dict, home: Path) -> None:  # type: ignore[type-arg]
    with Store(home / "h" / "sleepy.db", read_only=True) as store:
        played = store.trajectories(origin="agent")
        assert len(played) == 7 * 16  # day 1, day 2 twice, and four arms more
        assert all(t.outcome in set(Outcome) and t.config_hash and t.steps for t in played)
        first = played[:16]
        assert sum(t.resolved for t in first) == result["day1"]["resolved"]
        (night,) = store.nights()
        assert night.verdict is not None
        assert night.verdict.promoted == (result["night"]["verdict"] == "promoted")
        assert night.pairs == result["night"]["pairs"]
        secrets = ("FAIL_TO_PASS", "fail_to_pass", "TaskSecret")
        assert not any(word in t.model_dump_json() for t in played for word in secrets)
    adapters = AdapterStore(home / "h" / "adapters").list()
    assert [a.manifest.scope for a in adapters] == [("bank",)]
    if result["night"]["verdict"] == "promoted":
        assert any(t.adapter == adapters[0].id for t in played)
        assert json.loads((home / "h" / "live" / "live.json").read_text())["live"] == {"bank": adapters[0].id}


def test_trajectories_can_be_read_as_jsonl(result: dict, home: Path, tmp_path: Path) -> None:  # type: ignore[type-arg]
    done = run("trajectories", "--home", str(home / "h"), "--out", str(tmp_path / "t.jsonl"))
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert len(rows) >= 3 * 16
    assert all(row["outcome"] for row in rows)


def test_an_interrupted_demo_leaves_a_store_that_the_next_run_reads(tmp_path: Path) -> None:
    command = sleepyctl("demo", "--tasks-per-day", "64", "--home", str(tmp_path / "h"))
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    database = tmp_path / "h" / "sleepy.db"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if database.exists():
            with contextlib.suppress(StoreVersionError), Store(database, read_only=True) as store:  # it may be half made
                if any(t.steps for t in store.trajectories()):
                    break
        time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert len(errors.strip().splitlines()) <= 2
    with Store(database) as store:
        store.interrupted()
        assert all(t.outcome is not None for t in store.trajectories())


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("demo", "--sed", "1"), 2, "--seed"),
        (("dmo",), 2, "demo"),
        (("demo", "--tasks-per-day", "1"), 2, "4"),
        (("demo", "--config", "/nonexistent.toml"), 1, "/nonexistent.toml"),
        (("trajectories", "--home", "/nonexistent"), 1, "/nonexistent"),
    ],
)
def test_mistakes_get_one_answer_with_the_next_step(arguments: tuple[str, ...], code: int, message: str) -> None:
    done = run(*arguments)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_corrupt_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "sleepy.db").write_bytes(b"this is not a database" * 100)
    done = run("demo", "--home", str(tmp_path), "--tasks-per-day", "4")
    assert done.returncode == 1
    assert str(tmp_path / "sleepy.db") in done.stderr
    assert "Traceback" not in done.stderr


def test_help_needs_no_heavy_library() -> None:
    code = "import sys; import daemon.cli; print(sorted({'torch', 'transformers', 'peft', 'chromadb'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    assert done.stdout.strip() == "[]"
