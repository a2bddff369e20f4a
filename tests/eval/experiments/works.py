"""Work for executors: functions that compute something, so that what comes back can be compared; and how they can go wrong.

They are called in other processes, which import this file.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from eval.experiments.executor import Job
from eval.experiments.life import ExamRow, Life, LifeConfig, NightRow, SplitDesign
from eval.experiments.plan import Criterion, Experiment, Factor, Size, Variant
from eval.metrics.rows import Attempted
from memory.arms import Arm
from memory.trajectories import Outcome

MODEL = "model"


def config(seed: int = 0, repo: str = "r") -> LifeConfig:
    return LifeConfig(design=SplitDesign(repo=repo, nights=2), seed=seed)


def jobs(seeds: int) -> list[Job[LifeConfig]]:
    return [Job(config(seed).digest(MODEL), config(seed)) for seed in range(seeds)]


def experiment(**changes: object) -> Experiment:
    """Two variants (and, with a reference, a third) of two seeds at pocket size."""
    body = {
        "id": "exp99",
        "title": "A weight",
        "hypothesis": "It matters.",
        "expected": "More is better.",
        "references": (Variant(name="plain", settings={"night.strategy.kind": "naive"}),),
        "factors": (Factor(name="guards", setting="guards", levels=(True, False), centre=True),),
        "measures": ("acc",),
        "primary": "acc",
        "analysis": "paired",
        "criteria": (Criterion(name="c", text="t", measure="acc", operator=">=", threshold=0.1),),
        "limits": "none",
        "sizes": {"pocket": Size(seeds=2, design={"kind": "split", "repo": "r", "nights": 2}, minutes=1, machine="any")},
    }
    return Experiment.model_validate(body | changes)


def computed(given: LifeConfig) -> Life:
    """Rows that follow from the whole configuration, by hashing: equal only where it is."""
    digest = given.digest(MODEL)
    draws = [hashlib.sha256(f"{digest}/{number}".encode()).digest()[0] for number in range(8)]
    attempts = [
        Attempted(
            task_id=f"t{number}",
            repo="r",
            outcome=Outcome.RESOLVED if draw % 2 else Outcome.UNRESOLVED,
            steps=draw,
            seconds=draw / 7,
            errors=("e",) * (draw % 3),
            config_hash=digest,
        )
        for number, draw in enumerate(draws)
    ]
    return Life(
        digest=digest,
        model=MODEL,
        code="code",
        blocks=("train 1", "test"),
        learnt={"train 1": 1, "test": None},
        exams=tuple(ExamRow(arm=Arm.BASE, night=0, block="test", attempt=row) for row in attempts),
        nights=(NightRow(night=1, block="train 1", adapters={"r": digest}, loss_last=draws[0] / 3),),
        seconds=2.0,
    )


@dataclass(frozen=True)
class Fails:
    """Raises for some seeds, and writes to stdout."""

    seeds: tuple[int, ...]

    def __call__(self, given: LifeConfig) -> Life:
        print("a library's chatter")
        if given.seed in self.seeds:
            raise ValueError(f"seed {given.seed} is unlucky")
        return computed(given)


@dataclass(frozen=True)
class Dies:
    """Kills its own process at some seeds, so many times."""

    folder: Path
    times: dict[int, int]

    def __call__(self, given: LifeConfig) -> Life:
        before = len(list(self.folder.glob(f"died-{given.seed}-*")))
        if before < self.times.get(given.seed, 0):
            (self.folder / f"died-{given.seed}-{before}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)
        return computed(given)


@dataclass(frozen=True)
class Slow:
    """Leaves the PIDs of itself and of a process that it started, and takes long from seed `since` on."""

    folder: Path
    seconds: float
    since: int = 0

    def __call__(self, given: LifeConfig) -> Life:
        if given.seed >= self.since:
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
            try:
                (self.folder / f"pids-{given.seed}.part").write_text(f"{os.getpid()} {child.pid}")
                (self.folder / f"pids-{given.seed}.part").rename(self.folder / f"pids-{given.seed}")
                time.sleep(self.seconds)
            finally:
                child.kill()
                child.wait()
        return computed(given)


@dataclass(frozen=True)
class Waits:
    """Says that it began, and from seed `since` on goes on only when the file `go` is there."""

    folder: Path
    since: int = 0

    def __call__(self, given: LifeConfig) -> Life:
        if given.seed < self.since:
            return computed(given)
        (self.folder / f"began-{given.seed}-{os.getpid()}-{given.digest(MODEL)}").touch()
        while not (self.folder / "go").exists():
            time.sleep(0.02)
        return computed(given)


def threads(given: LifeConfig) -> Life:
    """Says in its code which number of threads libraries are told."""
    return computed(given).model_copy(update={"code": os.environ.get("OMP_NUM_THREADS", "") + str("numpy" in sys.modules)})


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(true: object, seconds: float = 20.0) -> None:
    """Wait until a function gives something true."""
    assert callable(true)
    patience = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < patience, "it did not happen in time"
        time.sleep(0.02)
