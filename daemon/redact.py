"""What of a value may be shown: plain, bounded, and without what its name says is a secret."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields as dataclass_fields
from dataclasses import is_dataclass
from datetime import date
from enum import Enum
from math import isfinite
from pathlib import PurePath
from typing import Any

from pydantic import BaseModel

REDACTED = "[redacted]"
LONGEST = 2_000
"""Characters of one value. A traceback may have four times as many, and keeps its end, which says most."""

# Whole words, so that `tokens`, which we count, and `dispatch` are shown.
_SECRET = re.compile(r"(^|_)(api_?keys?|token|passwords?|passwd|authorization|cookie|patch|secrets?|credentials?)(_|$)")
_WORD_ENDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[^A-Za-z0-9]+")


def redact(fields: Mapping[str, object]) -> dict[str, Any]:
    """What may be shown of `fields`: plain JSON values, each of bounded length, and nothing secret.

    What lies under a name that looks like a secret (`hf_token`, `testPatch`, `X-Api-Key`), at any depth,
    becomes "[redacted]". A secret inside another text is not recognised. Never raises.
    """
    shown: dict[str, Any] = {}
    for name, value in fields.items():
        key = _Room(LONGEST).text(str(name))
        try:
            shown[key] = REDACTED if _looks_secret(key) else _Room(LONGEST).plain(value)
        except Exception as error:  # noqa: BLE001  (any code may run here: __repr__, __iter__, a dict changed by a thread)
            shown[key] = f"[cannot be shown: {type(error).__name__}]"
    return shown


def one_line(error: BaseException) -> str:
    """An exception's type and text."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001  (its __str__ is anybody's code)
        return f"{type(error).__name__}: [cannot be shown]"


class _Room:
    """Renders one value, its parts included, within a number of characters."""

    def __init__(self, left: int) -> None:
        self.left = left

    def text(self, text: str) -> str:
        """`text` as UTF-8 can hold it, cut to the room that is left."""
        kept = text[: max(0, self.left) + 1].encode("utf-8", "backslashreplace").decode()
        if len(kept) > self.left:
            mark = f"... [{len(text)} characters]"
            kept = kept[: max(0, self.left - len(mark))] + mark
        self.left -= len(kept)
        return kept

    def plain(self, value: object, depth: int = 0) -> Any:
        """`value` as JSON has it."""
        if depth:
            self.left -= 4  # quotes, brackets and commas
        if isinstance(value, str):
            return self.text(str.__str__(value))
        if isinstance(value, Enum):
            return self.plain(value.value, depth)
        if isinstance(value, float) and not isfinite(value):
            return self.text(str(float(value)))  # JSON has no such numbers
        if isinstance(value, int) and abs(value) >= 2**63:
            return self.text(hex(value))  # str() refuses long ones
        if value is None or isinstance(value, bool | int | float):
            self.left -= len(str(value))
            return value if value is None or isinstance(value, bool) else value.real
        if isinstance(value, date):
            return value.isoformat()
        if isinstance(value, PurePath):
            return self.text(str(value))
        if isinstance(value, BaseException):
            return self.text(one_line(value))
        if isinstance(value, bytes | bytearray):
            return self.text(repr(bytes(value[: max(0, self.left) + 1])))
        if _looks_secret(type(value).__name__):
            return REDACTED
        return self._parts(value, depth)

    def _parts(self, value: object, depth: int) -> Any:
        if isinstance(value, BaseModel) and type(value).__repr__ is BaseModel.__repr__:
            value = {str(name): part for name, part in value.__repr_args__()}  # its repr would show what names hide here
        elif is_dataclass(value) and not isinstance(value, type):
            value = {field.name: getattr(value, field.name) for field in dataclass_fields(value) if field.repr}
        if not isinstance(value, Mapping | list | tuple | set | frozenset):
            return self.text(repr(value))
        if depth == 8:
            return f"[{type(value).__name__} of {len(value)}]"
        names = isinstance(value, Mapping)
        shown: dict[str, Any] = {}
        for number, part in enumerate(value):
            if self.left <= 0:
                shown["..."] = f"[{len(value) - number} more]"
                break
            if isinstance(value, Mapping):
                name = self.text(str(part))
                shown[name] = REDACTED if _looks_secret(str(part)) else self.plain(value[part], depth + 1)
            else:
                shown[str(number)] = self.plain(part, depth + 1)
        return shown if names else list(shown.values())


def _looks_secret(name: str) -> bool:
    return _SECRET.search(_WORD_ENDS.sub("_", name[:LONGEST]).lower()) is not None
