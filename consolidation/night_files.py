"""A night's pairs on the disk, and what its journal keeps of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from consolidation.errors import ConsolidationError
from consolidation.filters import Filtered
from consolidation.pairs import Pair
from memory.files import write_whole
from memory.hashing import content_hash

PAIRS = "pairs.jsonl"


def write_pairs(path: Path, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Write the night's pairs, whole or not at all; the journal keeps their hash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(pair.model_dump_json() + "\n" for pair in pairs)
    write_whole(path, text)
    counted = {name: dict(Counter(str(getattr(pair, name)) for pair in pairs)) for name in ("source", "format", "made_by")}
    attempts = len({pair.trajectory_id for pair in pairs if pair.source != "rehearsal"})
    return {"pairs": len(pairs), "attempts_told": attempts, "hash": content_hash(text), **counted}


def read_pairs(path: Path, digest: str) -> list[Pair]:
    """The night's pairs, as they were written.

    Raises:
        ConsolidationError: they are gone, or were changed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConsolidationError(f"{path}: the night's pairs cannot be read ({error}); the night cannot go on") from error
    if content_hash(text) != digest:
        raise ConsolidationError(f"{path}: the night's pairs were changed; the night cannot go on")
    return [Pair.model_validate_json(line) for line in text.split("\n") if line]


def filter_step(found: Filtered, pairs: Sequence[Pair]) -> dict[str, Any]:
    """What the journal keeps of the filters: the numbers of the pairs that passed, and what was dropped for which reason."""
    numbers = {id(pair): number for number, pair in enumerate(pairs)}
    return {
        "kept": [numbers[id(sample.pair)] for sample in found.samples],
        "tokens": sum(sample.item.tokens for sample in found.samples),
        "dropped": dict(sorted(found.dropped.items())),
        "shown": found.shown,
    }
