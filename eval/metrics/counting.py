"""Two counts that must mean the same wherever they are made: what comes again, and a median of what may never come."""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterable
from statistics import median

Made = tuple[str, str, Collection[Hashable]]
"""The group (repository, family) of an attempt, its task, and the errors it made, each once."""


def share_repeated(made: Iterable[Made]) -> float | None:
    """Share of the errors made that had been made before in an *earlier task* of the same group; attempts in the order in which
    they were lived.

    The first task of a group cannot repeat anything and is not counted; None where nothing is left.
    """
    where: dict[tuple[str, Hashable], set[str]] = {}
    tasks: dict[str, set[str]] = {}
    repeated = counted = 0
    for group, task, errors in made:
        earlier = tasks.setdefault(group, set()) - {task}
        for error in errors:
            before = where.setdefault((group, error), set())
            counted += bool(earlier)
            repeated += bool(before - {task})
            before.add(task)
        tasks[group].add(task)
    return repeated / counted if counted else None


def finite_median(lengths: Iterable[int | None]) -> float | None:
    """Median, where None counts as infinitely long, not as absent; None if the median is such a one, or of nothing."""
    found = [math.inf if length is None else float(length) for length in lengths]
    middle = median(found) if found else math.inf
    return middle if math.isfinite(middle) else None
