"""What it costs to have a daemon, and to ask it: measured on the real thing."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.running import daemon, run, sleepyctl, status, until, write_config

EMPTY = [sys.executable, "-c", "import typer\napp = typer.Typer()\n@app.command()\ndef main() -> None: ...\napp()"]
HEAVY = ("torch", "chromadb", "transformers", "peft", "sentence_transformers", "fastapi", "uvicorn", "sqlalchemy")
LOOKING = "import sys\nfrom daemon.cli import main\ntry:\n    main()\nfinally:\n    print([n for n in {} if n in sys.modules])"


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Path]:
    """A daemon in the middle of a long training."""
    write_config(tmp_path, count=4, after=0)
    config = tmp_path / "sleepyd.toml"
    config.write_text(config.read_text().replace("epochs = 4", "epochs = 400"))
    with daemon(tmp_path):
        until(lambda: status(tmp_path)["tasks_ended"] == 4, "four tasks")
        assert run("sleep-now", "--home", str(tmp_path)).returncode == 0
        until(lambda: status(tmp_path)["doing"]["progress"] != {}, "training")
        yield tmp_path


def seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def test_asking_for_the_status_loads_nothing_heavy(busy: Path) -> None:
    code = LOOKING.format(HEAVY)
    done = subprocess.run(
        [sys.executable, "-c", code, "status", "--home", str(busy)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_status_takes_at_most_150_ms_more_than_an_empty_typer_program_also_while_training_runs(busy: Path) -> None:
    asking = sleepyctl("status", "--home", str(busy))
    pairs = [(seconds(EMPTY), seconds(asking)) for _ in range(15)]
    assert "train" in status(busy)["doing"]["step"]
    empty, asked = (statistics.median(times) for times in zip(*pairs, strict=True))
    print(f"empty {empty * 1000:.0f} ms, status {asked * 1000:.0f} ms, medians of {len(pairs)} while training")
    assert asked - empty <= 0.150


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_it_costs_next_to_nothing_while_there_is_nothing_to_do(tmp_path: Path) -> None:
    write_config(tmp_path, count=4, after=0, more="[model]\nunload_after_minutes = 0.02\n")
    with daemon(tmp_path) as process:
        until(lambda: status(tmp_path)["tasks_ended"] == 4, "four tasks")
        until(lambda: status(tmp_path)["worker_pid"] is None, "the model to be unloaded")
        time.sleep(5)
        before, began = cpu_seconds(process.pid), time.monotonic()
        time.sleep(300)
        share = (cpu_seconds(process.pid) - before) / (time.monotonic() - began)
        memory = status(tmp_path)["rss_mb"]
        print(f"idle: {share:.4%} of a core over 300 s, {memory} MiB")
        assert share <= 0.002
        assert memory <= 100


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
