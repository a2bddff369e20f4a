"""`sleepyctl memory forget`: an attempt leaves the store, the knowledge, past nights' files, and, if asked, what serves."""

from __future__ import annotations

import shutil
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict

from consolidation.lessons import TRAIN, taught_to
from consolidation.night_files import PAIRS
from consolidation.pairs import Pair
from consolidation.skill import Publisher
from daemon.errors import DaemonError, RefusedError
from daemon.home import Home
from memory.errors import RecordError
from memory.knowledge import forgetting
from memory.knowledge.seam import SCRUB
from memory.store import Store


class Forgotten(BaseModel):
    """What became of a forgotten attempt. `adapters` had learnt from it; those `retired` serve no longer."""

    model_config = ConfigDict(extra="forbid")

    trajectory: str
    memories: int
    nights: list[str]
    """Nights whose working files were removed, because they held it."""
    adapters: list[str]
    retired: list[str]


def forget(home: Home, store: Store, publisher: Publisher, identity: str, retire: bool = False) -> Forgotten:
    """Forget an attempt for good; with `retire`, adapters trained on it give way to the bare base.

    Raises:
        RefusedError: a night is open, the attempt is still going on, or nothing is known of it.
    """
    if store.open_night_now() is not None:
        raise RefusedError(
            "a night is open and may be learning from it; `sleepyctl wake-now` breaks it off, or wait for its end"
        )
    try:
        going = store.trajectory(identity).outcome is None
    except RecordError as error:
        if not store.is_forgotten(identity):
            raise RefusedError(str(error)) from error
        going = False
    if going:
        raise RefusedError(f"attempt {identity} is still going on; forget it when it is over")
    adapters, nights = trained_on(home, store, identity)
    try:
        for night in nights:
            shutil.rmtree(home.nights / night)
    except OSError as error:
        raise DaemonError(f"the files of a night could not be removed ({error}); nothing is forgotten yet") from error
    retired = publisher.retire(adapters, f"it had learnt from attempt {identity}, which was forgotten") if retire else set()
    store.set_note(SCRUB, "1")  # until the index is made anew without it
    removed = forgetting.forget(store, identity)
    return Forgotten(
        trajectory=identity,
        memories=sum(removed.values()),
        nights=nights,
        adapters=sorted(adapters),
        retired=sorted(retired),
    )


def trained_on(home: Home, store: Store, identity: str) -> tuple[set[str], list[str]]:
    """Adapters that learnt from an attempt, or go back to one that did, and the nights whose working files still hold it."""
    trainings = store.steps_named(TRAIN)
    made = {str(identity) for given in trainings for identity in given.get("adapters", ())}
    adapters = {adapter for adapter in made if identity in taught_to(adapter, trainings)}
    nights: list[str] = []
    for night in store.nights():
        held = identity in set(_attempts(home, night.id))
        if held:
            nights.append(night.id)
        for step in store.step_results(night.id):
            if "adapter" in step and (identity in step["attempts"] if "attempts" in step else held):
                adapters.add(str(step["adapter"]))
    return adapters, nights


def _attempts(home: Home, night: str) -> Iterable[str]:
    try:
        lines = (home.nights / night / PAIRS).read_text(encoding="utf-8").split("\n")
    except OSError:
        return []
    return [identity for line in lines if line for identity in Pair.model_validate_json(line).attempts]
