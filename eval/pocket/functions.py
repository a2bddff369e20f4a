"""What functions of the pocket world are made of, and the mistakes that can be made in them.

A template (`eval.pocket.templates`) draws names and returns a `Function`: correct body, docstring, a generator of
test arguments, and `Mutation`s, each of which turns one place of the body into a base-skill bug.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from eval.pocket.names import Namer

BASE_SKILLS = (
    "off_by_one",
    "comparison",
    "operator",
    "missing_return",
    "wrong_variable",
    "swapped_arguments",
    "initial_value",
    "missing_check",
)
Arguments = tuple[Any, ...]


@dataclass(frozen=True)
class Mutation:
    """A bug: body lines [line, line + span) are replaced by `wrong`; `symptoms` are its reports."""

    kind: str
    line: int
    wrong: tuple[str, ...]
    symptoms: tuple[str, ...]
    span: int = 1


@dataclass(frozen=True)
class Function:
    """A correct function. `tag` says what it returns; conventions attach to tags."""

    name: str
    params: tuple[str, ...]
    doc: str
    body: tuple[str, ...]
    tag: str
    arguments: Callable[[random.Random], Arguments]
    mutations: tuple[Mutation, ...]
    needs: tuple[Function, ...] = ()
    unconventional: tuple[str, ...] | None = None

    @property
    def plain(self) -> tuple[str, ...]:
        """The correct body in a repository without conventions; mutations are defined on it."""
        return self.unconventional or self.body

    def source(self, body: tuple[str, ...] | None = None) -> list[str]:
        """The lines of the definition, with another body if one is given."""
        lines = self.body if body is None else body
        return [f"def {self.name}({', '.join(self.params)}):", f'    """{self.doc}"""', *lines]

    def buggy(self, mutation: Mutation) -> tuple[str, ...]:
        """The body with one mutation applied."""
        return (*self.body[: mutation.line], *mutation.wrong, *self.body[mutation.line + mutation.span :])


Template = Callable[[Namer], Function]
COMPARISONS = {">=": "at or above", ">": "above", "<=": "at or below", "<": "below"}


def ints(rng: random.Random, low: int = 1, high: int = 9, count: int | None = None) -> list[int]:
    """A few random numbers."""
    return [rng.randint(low, high) for _ in range(count or rng.randint(3, 6))]


def line(depth: int, text: str) -> str:
    """A line of a body, indented."""
    return "    " * depth + text


def no_return(at: int, name: str) -> Mutation:
    """The bug that the value is computed and not given back."""
    return Mutation("missing_return", at, (), (f"`{name}` always gives None.", f"Nothing comes back from `{name}`."))


def wrong_return(at: int, name: str, wrong: str, right: str) -> Mutation:
    """The bug that another variable is given back."""
    text = (f"`{name}` hands back the wrong thing.", f"`{name}` should give {right} and not {wrong}.")
    return Mutation("wrong_variable", at, (line(1, f"return {wrong}"),), text)


def start(at: int, depth: int, name: str, acc: str, value: int) -> Mutation:
    """The bug that a sum does not start from 0."""
    text = (f"`{name}` is always too big by {value}.", f"`{name}` should start from 0.")
    return Mutation("initial_value", at, (line(depth, f"{acc} = {value}"),), text)


def with_body(function: Function, body: tuple[str, ...]) -> Function:
    """The same function with another correct body (a house convention applied)."""
    return replace(function, body=body, unconventional=function.body)
