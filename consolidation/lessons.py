"""What a night has to teach, scope by scope: what is new since the adapter that is live, and what that one knows already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

from consolidation.adapters import Adapter, AdapterStore
from consolidation.skill import ALL
from consolidation.strategies.seam import Lesson, Sample

TRAIN = "train "
"""How the names of the steps of a night's journal begin that trained; what each gave has `adapters`, `previous`, `attempts`."""


def lessons_of(
    samples: Sequence[Sample],
    live: Mapping[str, str],
    adapters: AdapterStore,
    base: str,
    trainings: Iterable[Mapping[str, Any]],
    together: bool,
) -> dict[str, Lesson]:
    """Lessons by scope (a repository, or `*` for all of them `together`), in alphabetical order.

    `live` is the routing table, `base` the hash of the base model, `trainings` what the journal's training steps gave.
    A scope without anything new is left out: its adapter stays as it is.

    Raises:
        AdapterError: the adapter that is live was damaged.
    """
    known = list(trainings)
    found: dict[str, Lesson] = {}
    for scope in [ALL] if together else sorted({sample.pair.repo for sample in samples}):
        mine = [sample for sample in samples if scope in (ALL, sample.pair.repo)]
        previous = _previous(live.get(scope), adapters, base)
        taught = taught_to(previous.id, known) if previous is not None else set()
        lived = [sample for sample in mine if sample.pair.source != "rehearsal"]
        lesson = Lesson(
            scope=(scope,),
            new=tuple(sample for sample in lived if sample.pair.trajectory_id not in taught),
            past=tuple(sample for sample in lived if sample.pair.trajectory_id in taught),
            rehearsal=tuple(sample for sample in mine if sample.pair.source == "rehearsal"),
            previous=previous,
        )
        if lesson.new:
            found[scope] = lesson
    return found


def taught_to(adapter: str, trainings: Iterable[Mapping[str, Any]]) -> Set[str]:
    """Ids of the attempts that an adapter, or one that it goes back to, was taught."""
    by_adapter = {identity: given for given in trainings for identity in _adapters(given)}
    taught: set[str] = set()
    seen: set[str] = set()
    current: str | None = adapter
    while current is not None and current not in seen:
        seen.add(current)
        given = by_adapter.get(current, {})
        taught |= set(given.get("attempts", ()))
        current = given.get("previous")
    return taught


def _adapters(given: Mapping[str, Any]) -> list[str]:
    return [str(identity) for identity in given.get("adapters", [given["adapter"]] if "adapter" in given else [])]


def _previous(identity: str | None, adapters: AdapterStore, base: str) -> Adapter | None:
    """The live adapter, unless it belongs to a base that is no longer served."""
    if identity is None:
        return None
    adapter = adapters.get(identity)
    return adapter if adapter.manifest.base in ("", base) else None
