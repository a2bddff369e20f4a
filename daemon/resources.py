"""What the daemon uses, and the clean-up that keeps it within its budget.

Nothing that is live, previous, pinned or referenced by an open night is ever removed, and every
removal is an event in the log.
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
from collections.abc import Set
from pathlib import Path

from consolidation.errors import AdapterError
from consolidation.skill import Publisher
from daemon.config import ResourceConfig
from daemon.events import Event
from daemon.home import Home
from daemon.logs import Logger
from memory.store import Store

PINNED = "adapters.pinned"
DISCARDED = ".discarded-"


def free_mb(folder: Path) -> int:
    """Free space (MiB) where the folder lies."""
    return shutil.disk_usage(folder).free >> 20


def rss_mb() -> float:
    """Resident memory of this process (MiB); on systems without /proc the largest it ever was."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return round(pages * resource.getpagesize() / 2**20, 1)
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return round(peak / 2**20 if sys.platform == "darwin" else peak / 2**10, 1)


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def pinned(store: Store) -> set[str]:
    """Ids of the adapters that are kept for ever."""
    return set(json.loads(store.note(PINNED) or "[]"))


def pin(store: Store, adapter: str, keep: bool) -> None:
    """Keep an adapter for ever, or no longer."""
    chosen = pinned(store) | {adapter} if keep else pinned(store) - {adapter}
    store.set_note(PINNED, json.dumps(sorted(chosen)))


def clean_up(
    home: Home, config: ResourceConfig, publisher: Publisher, store: Store, log: Logger, replayed: Set[str] = frozenset()
) -> list[Path]:
    """Remove what is over budget, oldest first; returns the folders that were removed.

    Of trajectories only the turns go, and not those of the `replayed` ones; their outcomes and the results of their
    tasks stay.
    """
    if forgotten := store.forget_turns(config.trajectories_mb << 20, replayed):
        log.info(Event.CLEANUP_REMOVED, path=home.store, trajectories=forgotten)
    night = store.open_night_now()
    open_nights = {night.id} if night is not None else set()
    keep = pinned(store)
    try:
        keep |= set(publisher.live().values()) | set(publisher.previous().values())
    except AdapterError:
        log.warning(Event.DAEMON_ERROR, where="clean-up", error="what is live cannot be read, so no adapter is removed")
        return []
    if night is not None:
        for result in store.step_results(night.id):
            keep |= {str(identity) for identity in result.get("adapters", [result["adapter"]] if "adapter" in result else [])}
    return _shrink(home.nights, config.nights_mb, open_nights, log) + _shrink(home.adapters, config.adapters_mb, keep, log)


def _shrink(root: Path, budget_mb: int, keep: set[str], log: Logger) -> list[Path]:
    for left in root.glob(f"{DISCARDED}*"):
        shutil.rmtree(left, ignore_errors=True)
    folders = [path for path in root.iterdir() if path.is_dir() and not path.is_symlink()] if root.is_dir() else []
    folders = [path for path in folders if path.name not in keep and not path.name.startswith(DISCARDED)]
    folders.sort(key=lambda path: path.stat().st_mtime)
    sizes = {path: size_of(path) for path in folders}
    total = sum(sizes.values())
    removed = []
    for path in folders:
        if total <= budget_mb << 20:
            break
        discarded = root / f"{DISCARDED}{path.name}"
        try:
            path.rename(discarded)  # half a folder must never be found under its name
            shutil.rmtree(discarded)
        except OSError as error:
            log.error(Event.DAEMON_ERROR, where="clean-up", path=path, error=error)
        if path.exists():
            continue
        total -= sizes[path]
        removed.append(path)
        log.info(Event.CLEANUP_REMOVED, path=path, bytes=sizes[path])
    return removed
