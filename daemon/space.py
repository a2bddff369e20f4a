"""Which knowledge is a daemon's, and how it goes back together with the skill. Needs no model and no index."""

from __future__ import annotations

from collections.abc import Mapping

from consolidation.skill import skill_id
from daemon.config import Config
from eval.task_config import POCKET
from memory.errors import RecordError
from memory.hashing import content_hash
from memory.knowledge.shelf import Shelf
from memory.knowledge.states import Version
from memory.store import Store

WITH_SKILL = "knowledge.with."
"""Note of the version of the knowledge that a skill was last live with; the skill's id follows."""


def space_of(config: Config) -> str:
    """The space of the configured arm. Another arm, stream or way to make memories has another one."""
    tasks = config.tasks
    stream = [tasks.source, tasks.seed] if tasks.source == POCKET else [tasks.source]
    made = content_hash([*stream, config.knowledge.merged_fixes, config.knowledge.distiller, config.knowledge.space])
    return f"{config.arm}-{made[:8]}"


def pair(store: Store, shelf: Shelf, live: Mapping[str, str]) -> None:
    """Note that this skill works with the knowledge as it is now."""
    store.set_note(_with(shelf, live), str(shelf.version().number))


def roll_back(store: Store, shelf: Shelf, before: Mapping[str, str], after: Mapping[str, str]) -> Version | None:
    """The skill went from `before` back to `after`: have what was known then active again. It can be undone the same way.

    None if nothing was known with that skill, or the two are the same; then the knowledge stays as it is.
    """
    if dict(before) == dict(after):
        return None
    then = store.note(_with(shelf, after))
    pair(store, shelf, before)
    try:
        return None if then is None else shelf.restore(int(then), "rolled back together with the skill")
    except (ValueError, RecordError):  # the note is of a store that was exchanged
        return None


def _with(shelf: Shelf, live: Mapping[str, str]) -> str:
    return f"{WITH_SKILL}{shelf.space}.{skill_id(live)}"
