"""`sleepyctl doctor`: what the daemon needs, checked by trying it, and for each failure what to do."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from pydantic import BaseModel

from daemon.config import Config
from daemon.errors import DaemonError
from daemon.home import Home, daemon_in
from daemon.resources import free_mb

PACKAGES = (
    "fastapi",
    "uvicorn",
    "structlog",
    "torch",
    "transformers",
    "peft",
    "tokenizers",
    "safetensors",
    "sqlalchemy",
    "pydantic",
    "apscheduler",
    "watchdog",
    "chromadb",
    "sentence-transformers",
)
EARLIEST = datetime(2026, 1, 1, tzinfo=UTC)
DAMAGED = "see docs/daemon.md, When the store is damaged"


class Check(BaseModel):
    """One thing looked at. A warning does not keep the daemon from working."""

    name: str
    verdict: Literal["ok", "warning", "failed"]
    found: str
    advice: str = ""


def examine(home: Home) -> list[Check]:
    """Every check, in the order in which a failure would matter."""
    checks = [_directory(home), _configuration(home)]
    config = _config(home)
    works: tuple[Callable[[Home, Config], Check], ...] = (_sandbox, _tasks, _model, _guards, _knowledge)
    asked = (_disk, _store, _owner, *works, _clock, _versions)
    return checks + [check(home, config) for check in asked]


def _config(home: Home) -> Config:
    from daemon.run import read_config

    try:
        return read_config(home)
    except DaemonError:
        return Config()


def _directory(home: Home) -> Check:
    name = "state directory"
    if home.is_too_long():
        return Check(
            name=name, verdict="failed", found=f"{home.root} is too long for a socket in it", advice="choose a shorter --home"
        )
    if not home.root.exists():
        return Check(name=name, verdict="warning", found=f"{home.root} is not there", advice="sleepyctl init makes it")
    if not home.root.is_dir():
        return Check(name=name, verdict="failed", found=f"{home.root} is no directory", advice="move it away, or choose --home")
    if (stranger := home.stranger()) is not None:
        found, advice = f"{home.root} belongs to user {stranger}", "run as that user, or choose --home"
        return Check(name=name, verdict="failed", found=found, advice=advice)
    if not os.access(home.root, os.W_OK):
        return Check(
            name=name, verdict="failed", found=f"{home.root} cannot be written", advice="run as its owner, or choose --home"
        )
    if not home.is_private():
        return Check(name=name, verdict="warning", found=f"others can look into {home.root}", advice=f"chmod 700 {home.root}")
    return Check(name=name, verdict="ok", found=str(home.root))


def _configuration(home: Home) -> Check:
    from daemon.run import read_config

    try:
        config = read_config(home)
    except DaemonError as error:
        return Check(name="configuration", verdict="failed", found=str(error), advice="correct the file or variable it names")
    source = home.config if home.config.exists() else "defaults, no file"
    return Check(name="configuration", verdict="ok", found=f"{source} ({config.hash})")


def _disk(home: Home, config: Config) -> Check:
    place = next(path for path in (home.root, *home.root.parents) if path.exists())
    free, floor = free_mb(place), config.resources.free_disk_mb
    if free < floor:
        return Check(
            name="disk", verdict="failed", found=f"{free} MiB free", advice=f"free some space: it needs {floor} MiB to work"
        )
    return Check(name="disk", verdict="ok", found=f"{free} MiB free, {floor} needed")


def _store(home: Home, config: Config) -> Check:
    from memory.errors import StoreError, UnreadableStoreError
    from memory.store import Store

    if not home.store.is_file():
        return Check(name="store", verdict="ok", found="none yet")
    try:
        with Store(home.store, read_only=True) as store:
            problem = store.check()
            found = f"{len(store.results())} tasks ended, {len(store.nights())} nights"
    except UnreadableStoreError as error:
        return Check(name="store", verdict="failed", found=str(error), advice=DAMAGED)
    except StoreError as error:  # it ends with what to do
        found, _, advice = str(error).rpartition("; ")
        return Check(name="store", verdict="failed", found=found, advice=advice)
    if problem:
        return Check(name="store", verdict="failed", found=problem, advice=DAMAGED)
    return Check(name="store", verdict="ok", found=found)


def _owner(home: Home, config: Config) -> Check:
    try:
        pid = daemon_in(home)
    except DaemonError as error:
        return Check(name="daemon", verdict="failed", found=str(error), advice="run as the daemon's user")
    return Check(name="daemon", verdict="ok", found="does not run" if pid is None else f"runs, PID {pid}")


def _sandbox(home: Home, config: Config) -> Check:
    from agent.errors import SandboxError
    from agent.sandbox.ladder import probe

    try:
        return Check(name="sandbox", verdict="ok", found=probe(trusted_generated=False).name)
    except SandboxError as error:
        advice = "tasks of the pocket world run in a limited process; for tasks of your own install bubblewrap"
        return Check(name="sandbox", verdict="warning", found=str(error).split(":")[0], advice=advice)


def _tasks(home: Home, config: Config) -> Check:
    from agent.errors import AgentError
    from eval.errors import EvalError
    from eval.sources import open_source

    source = open_source(config.tasks, home.places)
    try:
        found = source.examine()
        source.sandbox()
    except (EvalError, AgentError) as error:
        found, _, advice = str(error).rpartition("; ")
        return Check(name="tasks", verdict="failed", found=found or advice, advice=advice)
    return Check(name="tasks", verdict="ok", found=found)


def _model(home: Home, config: Config) -> Check:
    from agent.errors import AgentError

    pocket = config.model.engine.kind == "pocket"
    advice = "install the package again, or run make pocket" if pocket else "see docs/models.md"
    try:
        from agent.model import Message, Sampling
        from agent.models.engines import open_model

        model = open_model(config.model, 1)
        if config.model.engine.kind == "anthropic":  # an answer would cost money
            return Check(name="engine", verdict="ok", found=f"{model.name}, not asked")
        began = time.monotonic()
        model.complete([[Message("user", "issue in bank\n`get_fee` always gives None.")]], Sampling(max_tokens=8), ["doctor"])
        found = f"{model.name} {model.fingerprint} answers in {time.monotonic() - began:.2f} s"
    except (AgentError, ImportError) as error:
        return Check(name="engine", verdict="failed", found=str(error), advice=advice)
    return Check(name="engine", verdict="ok", found=found)


def _guards(home: Home, config: Config) -> Check:
    from agent.pocket import WEIGHTS
    from eval.coding.problems import data_folder, has
    from eval.open_guards import BENCHMARKS

    weights = config.model.weights
    if weights is None or not config.arm.adapts:
        return Check(name="guards", verdict="ok", found="none needed, nights train no adapter")
    if weights == WEIGHTS:
        return Check(name="guards", verdict="ok", found="the pocket world's own")
    folder = data_folder(home.places)
    missing = [name for name in BENCHMARKS if not has(name, folder)]
    if not missing:
        return Check(name="guards", verdict="ok", found=f"{', '.join(BENCHMARKS)} in {folder}")
    found = f"no {' and no '.join(missing)} in {folder}"
    if len(missing) == len(BENCHMARKS):
        found += ": no night can be promoted"
    advice = "; ".join(f"sleepyctl data fetch {name}" for name in missing)
    return Check(name="guards", verdict="warning", found=found, advice=advice)


def _knowledge(home: Home, config: Config) -> Check:
    from memory.errors import KnowledgeError
    from memory.knowledge.embedders import open_embedder
    from memory.knowledge.index import ChromaIndex

    if not config.arm.recalls:
        return Check(name="knowledge", verdict="ok", found=f"none, the arm is {config.arm}")
    try:
        embedder, why = open_embedder(config.knowledge.embedder)
        with TemporaryDirectory() as folder:
            index = ChromaIndex("doctor", embedder, Path(folder) / "chroma", config.knowledge.url)
            try:
                index.sync({}, lambda numbers: {})
            finally:
                index.close()
    except (KnowledgeError, ImportError) as error:
        found, _, advice = str(error).rpartition("; ")
        return Check(name="knowledge", verdict="failed", found=found or advice, advice=advice or "make setup")
    return Check(name="knowledge", verdict="ok", found=f"Chroma {config.knowledge.url or 'embedded'}, {why}")


def _clock(home: Home, config: Config) -> Check:
    now = datetime.now(UTC)
    newest = max((path.stat().st_mtime for path in (home.store, home.lock) if path.exists()), default=0.0)
    if now < EARLIEST or newest > now.timestamp() + 60:
        return Check(
            name="clock", verdict="failed", found=f"it says {now.isoformat()}", advice="set the clock; nights go by it"
        )
    zone = config.sleep.timezone or "the machine's time zone"
    return Check(
        name="clock",
        verdict="ok",
        found=f"{now.isoformat(timespec='seconds')}, window {config.sleep.window or 'none'} in {zone}",
    )


def _versions(home: Home, config: Config) -> Check:
    found, missing = [f"Python {platform.python_version()}"], []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            missing.append(package)
    if missing or not (3, 11) <= sys.version_info[:2] < (3, 14):
        problem = f"missing: {', '.join(missing)}" if missing else f"Python {platform.python_version()}"
        return Check(name="versions", verdict="failed", found=problem, advice="make setup, with Python 3.11 to 3.13")
    return Check(name="versions", verdict="ok", found=", ".join(found))
