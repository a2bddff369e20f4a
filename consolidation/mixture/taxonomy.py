"""What the experts of a mixture are experts of: the skill that a pair teaches, or issues that are alike."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from agent.errors import CallError
from agent.turns import Call, parse_call, parse_full
from consolidation.pairs import Pair

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SKILLS = ("conventions", "recovery", "explanation", "tools", "workflow")
LOOKS = 3
"""So many looks before the first edit, beyond the usual search and view, teach the use of tools."""
MOVES = 100
_IMPORTED = re.compile(r"^(?:\s*\d+\|)?\s*from ([A-Za-z_][\w.]*) import ([\w, ]+)$", re.MULTILINE)
_FAILED = re.compile(r"^[1-9]\d* failed", re.MULTILINE)


def skill_of(pair: Pair) -> str:
    """The skill that a pair teaches (categories of Experiment 3), by the first rule that holds.

    `recovery`: a mistake is told, and mended. `explanation`: formats A and B. `conventions`: an edit brings in a name that
    the repository has of its own, or format E. `tools`: looked around more than usual. `workflow`: everything else.
    """
    calls = list(_calls(pair))
    edits = [call for call in calls if call.tool == "edit"]
    if pair.format == "D" or pair.untaught or (len(edits) > 1 and _mended(pair)):
        return "recovery"
    if pair.format in ("A", "B"):
        return "explanation"
    if pair.format == "E" or _brings_own_name(pair, edits):
        return "conventions"
    first = next((i for i, call in enumerate(calls) if call.tool == "edit"), len(calls))
    return "tools" if first >= LOOKS else "workflow"


def clusters_of(vectors: NDArray[np.float32], count: int, seed: int) -> list[int]:
    """The number of each vector's cluster, by spherical k-means (Dhillon and Modha 2001): by cosine, with centres of length 1.

    `vectors` (n, dimensions) have length 1. There are never more clusters than different vectors.
    """
    import numpy as np
    from sklearn.cluster import kmeans_plusplus  # type: ignore[import-untyped, unused-ignore]

    count = min(count, len(np.unique(vectors, axis=0)))
    centres, _ = kmeans_plusplus(vectors, count, random_state=seed)
    labels = (vectors @ centres.T).argmax(1)
    for _ in range(MOVES):
        sums = np.stack([vectors[labels == i].sum(0) for i in range(count)])
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(lengths > 0, sums / np.maximum(lengths, 1e-12), centres)  # one that nothing is near stays
        before, labels = labels, (vectors @ centres.T).argmax(1)
        if (before == labels).all():
            break
    return [int(label) for label in labels]


def merged(labels: Sequence[str], vectors: NDArray[np.float32], least: int, most: int) -> list[str]:
    """Categories with at least `least` examples each, at most `most` of them: the smallest joins the one whose mean issue is
    nearest (cosine), until that holds or one is left."""
    import numpy as np

    now = list(labels)
    while len(counts := Counter(now)) > 1:
        small = min(counts, key=lambda name: (counts[name], name))
        if counts[small] >= least and len(counts) <= most:
            break
        means = {name: vectors[[label == name for label in now]].mean(0) for name in sorted(counts)}
        mine = means.pop(small)

        def nearness(name: str, mine: NDArray[np.float32] = mine, means: dict[str, NDArray[np.float32]] = means) -> float:
            other = means[name]
            return float(mine @ other / max(float(np.linalg.norm(mine) * np.linalg.norm(other)), 1e-12))

        nearest = max(sorted(means), key=nearness)
        now = [nearest if label == small else label for label in now]
    return now


def _calls(pair: Pair) -> Iterator[Call]:
    for role, text in pair.messages:
        if role == "assistant":
            for parse in (parse_call, parse_full):
                try:
                    yield parse(text)
                    break
                except CallError:
                    continue


def _mended(pair: Pair) -> bool:
    return any(role == "tool" and _FAILED.search(text) for role, text in pair.messages)


def _brings_own_name(pair: Pair, edits: Sequence[Call]) -> bool:
    """Whether an edit uses a name that its file, as it was shown, imports from the repository itself."""
    seen = [text for role, text in pair.messages if role == "tool"]
    shown = [(where, names) for text in seen for where, names in _IMPORTED.findall(text)]
    for edit in edits:
        package = edit.target.split("/")[0]
        own = {name.strip() for where, names in shown if where.split(".")[0] == package for name in names.split(",")}
        if own & set(re.findall(r"\w+", edit.body)):
            return True
    return False
