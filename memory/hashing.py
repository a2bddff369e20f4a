"""Content hashes: of configurations (results carry them), and of data (identity)."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path

from pydantic_core import to_jsonable_python

_LENGTH = 16


def content_hash(value: object) -> str:
    """First 16 hex digits of the sha256 of a JSON-able value (pydantic models included).

    The order of keys does not matter.
    """
    text = json.dumps(to_jsonable_python(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]


@cache
def source_hash(places: tuple[Path, ...]) -> str:
    """Hash of some files, and of the Python sources below some folders: what "the same code" means."""
    digest = hashlib.sha256()
    for place in places:
        for path in sorted(place.rglob("*.py")) if place.is_dir() else (place,):
            digest.update(path.relative_to(place.parent).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:_LENGTH]
