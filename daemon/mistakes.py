"""What is wrong with a configuration, told to its owner: where it stands, and what is valid there."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

Origin = Mapping[tuple[str, ...], str]
"""Which variable gave which key or table."""
Kinds = Mapping[str, type[BaseModel]]
"""The alternatives of a table that comes in kinds, by the name that its `kind` gives."""


def kinds_of(field: FieldInfo) -> Kinds:
    """The alternatives of a setting; none of a setting that has only one form."""
    tag = field.discriminator
    if not isinstance(tag, str):
        return {}
    models = [kind for kind in get_args(field.annotation) if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return {str(name): model for model in models for name in get_args(model.model_fields[tag].annotation)}


def model_of(field: FieldInfo) -> type[BaseModel] | None:
    """The table that a setting is; None for a plain value."""
    found = (field.annotation, *get_args(field.annotation))
    return next((kind for kind in found if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def name_kinds(data: dict[str, Any], model: type[BaseModel]) -> None:
    """Name the default's kind in every table that names none, so that its settings alone can be given."""
    for name, field in model.model_fields.items():
        value = data.get(name)
        if not isinstance(value, dict):
            continue
        if kinds_of(field):
            tag = str(field.discriminator)
            value.setdefault(tag, getattr(field.get_default(call_default_factory=True), tag))
        elif (inner := model_of(field)) is not None:
            name_kinds(value, inner)


def told(error: ValidationError, root: type[BaseModel], origin: Origin, source: str) -> str:
    """One line for each mistake. What no variable gave is put down to `source`."""
    return "\n".join(_line(each, root, origin, source) for each in error.errors())


@dataclass(frozen=True)
class _Place:
    """Keys as the owner writes them, the table that the last of them is in, and of which kind that is."""

    keys: tuple[str, ...]
    table: type[BaseModel]
    kinds: Kinds
    kind: str


def _place(location: tuple[int | str, ...], root: type[BaseModel]) -> _Place:
    parts, keys = [str(part) for part in location], list[str]()
    table: type[BaseModel] = root
    inner: type[BaseModel] | None = root
    kinds: Kinds = {}
    kind = ""
    while parts:
        name = parts.pop(0)
        keys.append(name)
        if inner is None:
            continue
        table, field = inner, inner.model_fields.get(name)
        if not parts or field is None:
            break
        kinds, kind = kinds_of(field), ""
        if parts[0] in kinds:
            kind = parts.pop(0)
        inner = kinds[kind] if kind else model_of(field)
    return _Place((*keys, *parts), table, kinds if kind else {}, kind)


def _line(error: Any, root: type[BaseModel], origin: Origin, source: str) -> str:
    place = _place(error["loc"], root)
    keys, message = place.keys, str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "literal_error":
        message = f"there is no {error['input']!r}; valid is {error['ctx']['expected']}"
    elif error["type"] == "union_tag_invalid":
        told = error["ctx"]
        keys = (*keys, str(told["discriminator"]).strip("'"))
        message = f"there is no {told['tag']!r}; valid are {told['expected_tags']}"
    elif error["type"] == "extra_forbidden":
        message = _unknown(place)
    where = [known for known in origin if keys[: len(known)] == known]
    name = ".".join(keys)
    return f"{origin[max(where, key=len)] if where else source}: {name + ': ' if error['loc'] else ''}{message}"


def _unknown(place: _Place) -> str:
    name = place.keys[-1]
    others = [kind for kind, model in place.kinds.items() if name in model.model_fields]
    if others:
        tag = ".".join((*place.keys[:-1], "kind"))
        named = " and ".join(repr(kind) for kind in others)
        return f"a setting of {named}, but {tag} is {place.kind!r}; leave it out, or change {tag}"
    of = f" of {place.kind!r}" if place.kind else ""
    valid = tuple(place.table.model_fields)
    close = difflib.get_close_matches(name, valid, 1)
    return f"unknown key{of}; " + (f"did you mean {close[0]!r}?" if close else f"valid are {', '.join(valid)}")
