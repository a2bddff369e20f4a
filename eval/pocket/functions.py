"""Function templates of the pocket world, with the mistakes that can be made in each.

A template draws names and returns a `Function`: correct body, docstring, a generator of test
arguments, and `Mutation`s, each of which turns one place of the body into a base-skill bug.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from eval.pocket.names import ACCUMULATORS, COLLECTIONS, ELEMENTS, KEYS, LIMITS, SCALARS, TABLES, Namer

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


def _ints(rng: random.Random, low: int = 1, high: int = 9, count: int | None = None) -> list[int]:
    return [rng.randint(low, high) for _ in range(count or rng.randint(3, 6))]


def _line(depth: int, text: str) -> str:
    return "    " * depth + text


def _no_return(line: int, name: str) -> Mutation:
    return Mutation("missing_return", line, (), (f"`{name}` always gives None.", f"Nothing comes back from `{name}`."))


def _wrong_return(line: int, name: str, wrong: str, right: str) -> Mutation:
    text = (f"`{name}` hands back the wrong thing.", f"`{name}` should give {right} and not {wrong}.")
    return Mutation("wrong_variable", line, (_line(1, f"return {wrong}"),), text)


def _start(line: int, depth: int, name: str, acc: str, value: int) -> Mutation:
    text = (f"`{name}` is always too big by {value}.", f"`{name}` should start from 0.")
    return Mutation("initial_value", line, (_line(depth, f"{acc} = {value}"),), text)


def total(n: Namer) -> Function:
    """Sum by iteration."""
    f, xs = n.function("total", "sum"), n.local(COLLECTIONS)
    x = n.local(ELEMENTS, xs)
    t = n.local(ACCUMULATORS, xs, x)
    body = (_line(1, f"{t} = 0"), _line(1, f"for {x} in {xs}:"), _line(2, f"{t} += {x}"), _line(1, f"return {t}"))
    bugs = (
        _start(0, 1, f, t, n.rng.choice((1, 2, 5))),
        Mutation("operator", 2, (_line(2, f"{t} -= {x}"),), (f"`{f}` should add up all {xs}.", f"`{f}` comes out negative.")),
        _wrong_return(3, f, x, t),
        _no_return(3, f),
    )
    return Function(f, (xs,), f"Sum of the {xs}.", body, "amount", lambda r: (_ints(r),), bugs)


def total_by_index(n: Namer) -> Function:
    """Sum over positions."""
    f, xs = n.function("total", "sum"), n.local(COLLECTIONS)
    t = n.local(ACCUMULATORS, xs)
    i = n.rng.choice("ijk")
    body = (
        _line(1, f"{t} = 0"),
        _line(1, f"for {i} in range(len({xs})):"),
        _line(2, f"{t} += {xs}[{i}]"),
        _line(1, f"return {t}"),
    )
    bugs = (
        Mutation(
            "off_by_one",
            1,
            (_line(1, f"for {i} in range(len({xs}) - 1):"),),
            (f"`{f}` skips the last of the {xs}.", f"`{f}` leaves out the end."),
        ),
        Mutation(
            "off_by_one",
            1,
            (_line(1, f"for {i} in range(1, len({xs})):"),),
            (f"`{f}` skips the first of the {xs}.", f"`{f}` leaves out the beginning."),
        ),
        Mutation(
            "operator", 2, (_line(2, f"{t} -= {xs}[{i}]"),), (f"`{f}` should add up all {xs}.", f"`{f}` comes out negative.")
        ),
        _start(0, 1, f, t, n.rng.choice((1, 2, 5))),
        _wrong_return(3, f, i, t),
        _no_return(3, f),
    )
    return Function(f, (xs,), f"Sum of the {xs}, by position.", body, "amount", lambda r: (_ints(r),), bugs)


def count_compared(n: Namer) -> Function:
    """Count of elements on one side of a limit."""
    f, xs = n.function("count"), n.local(COLLECTIONS)
    x, lim = n.local(ELEMENTS, xs), n.local(LIMITS, xs)
    t = n.local(ACCUMULATORS, xs, x, lim)
    op, bad = n.rng.sample(list(COMPARISONS), 2)
    body = (
        _line(1, f"{t} = 0"),
        _line(1, f"for {x} in {xs}:"),
        _line(2, f"if {x} {op} {lim}:"),
        _line(3, f"{t} += 1"),
        _line(1, f"return {t}"),
    )
    bugs = (
        Mutation(
            "comparison",
            2,
            (_line(2, f"if {x} {bad} {lim}:"),),
            (f"`{f}` counts the wrong {xs}.", f"`{f}` must count what is {COMPARISONS[op]} the {lim}."),
        ),
        _start(0, 1, f, t, n.rng.choice((1, 2, 5))),
        Mutation("operator", 3, (_line(3, f"{t} -= 1"),), (f"`{f}` counts downwards.", f"`{f}` comes out negative.")),
        _wrong_return(4, f, lim, t),
        _no_return(4, f),
    )

    def arguments(r: random.Random) -> Arguments:
        values = _ints(r, count=5)
        return (values, r.choice(values))

    return Function(f, (xs, lim), f"Number of {xs} {COMPARISONS[op]} the {lim}.", body, "count", arguments, bugs)


def keep_compared(n: Namer) -> Function:
    """Elements on one side of a limit."""
    f, xs = n.function("filter", "keep"), n.local(COLLECTIONS)
    x, lim = n.local(ELEMENTS, xs), n.local(LIMITS, xs)
    t = n.local(ACCUMULATORS, xs, x, lim)
    op, bad = n.rng.sample(list(COMPARISONS), 2)
    body = (
        _line(1, f"{t} = []"),
        _line(1, f"for {x} in {xs}:"),
        _line(2, f"if {x} {op} {lim}:"),
        _line(3, f"{t}.append({x})"),
        _line(1, f"return {t}"),
    )
    bugs = (
        Mutation(
            "comparison",
            2,
            (_line(2, f"if {x} {bad} {lim}:"),),
            (f"`{f}` keeps the wrong {xs}.", f"`{f}` must keep what is {COMPARISONS[op]} the {lim}."),
        ),
        Mutation(
            "wrong_variable",
            3,
            (_line(3, f"{t}.append({lim})"),),
            (f"`{f}` collects the wrong thing.", f"`{f}` fills up with the {lim}."),
        ),
        _wrong_return(4, f, xs, t),
        _no_return(4, f),
    )

    def arguments(r: random.Random) -> Arguments:
        values = _ints(r, count=6)
        return (values, r.choice(values))

    return Function(f, (xs, lim), f"The {xs} {COMPARISONS[op]} the {lim}.", body, "items", arguments, bugs)


def without(n: Namer) -> Function:
    """Elements that differ from one value."""
    f, xs = n.function("drop", "remove"), n.local(COLLECTIONS)
    x, y = n.local(ELEMENTS, xs), n.local(LIMITS, xs)
    t = n.local(ACCUMULATORS, xs, x, y)
    body = (
        _line(1, f"{t} = []"),
        _line(1, f"for {x} in {xs}:"),
        _line(2, f"if {x} != {y}:"),
        _line(3, f"{t}.append({x})"),
        _line(1, f"return {t}"),
    )
    bugs = (
        Mutation(
            "comparison", 2, (_line(2, f"if {x} == {y}:"),), (f"`{f}` keeps the wrong {xs}.", f"`{f}` must leave out the {y}.")
        ),
        Mutation(
            "wrong_variable",
            3,
            (_line(3, f"{t}.append({y})"),),
            (f"`{f}` collects the wrong thing.", f"`{f}` fills up with the {y}."),
        ),
        _wrong_return(4, f, xs, t),
        _no_return(4, f),
    )

    def arguments(r: random.Random) -> Arguments:
        values = _ints(r, 1, 6, count=6)
        return (values, r.choice(values))

    return Function(f, (xs, y), f"The {xs} without the {y}.", body, "items", arguments, bugs)


def up_to(n: Namer) -> Function:
    """The numbers 1 to n."""
    f, k = n.function("list", "steps"), n.local(SCALARS)
    i = n.rng.choice("ijk")
    t = n.local(ACCUMULATORS, k, i)
    body = (
        _line(1, f"{t} = []"),
        _line(1, f"for {i} in range(1, {k} + 1):"),
        _line(2, f"{t}.append({i})"),
        _line(1, f"return {t}"),
    )
    bugs = (
        Mutation(
            "off_by_one",
            1,
            (_line(1, f"for {i} in range(1, {k}):"),),
            (f"`{f}` stops too early.", f"`{f}` leaves out {k} itself."),
        ),
        Mutation(
            "off_by_one",
            1,
            (_line(1, f"for {i} in range({k} + 1):"),),
            (f"`{f}` starts too early.", f"`{f}` must not contain 0."),
        ),
        Mutation(
            "wrong_variable",
            2,
            (_line(2, f"{t}.append({k})"),),
            (f"`{f}` collects the wrong thing.", f"`{f}` fills up with {k}."),
        ),
        _wrong_return(3, f, k, t),
        _no_return(3, f),
    )
    return Function(f, (k,), f"The numbers from 1 to {k}.", body, "items", lambda r: (r.randint(3, 8),), bugs)


def average(n: Namer) -> Function:
    """Mean with an empty check."""
    f, xs = n.function("mean", "average"), n.local(COLLECTIONS)
    body = (_line(1, f"if not {xs}:"), _line(2, "return 0"), _line(1, f"return sum({xs}) / len({xs})"))
    bugs = (
        Mutation("missing_check", 0, (), (f"`{f}` fails for no {xs}.", f"`{f}` crashes on an empty list."), span=2),
        Mutation(
            "operator",
            2,
            (_line(1, f"return sum({xs}) * len({xs})"),),
            (f"`{f}` is far too big.", f"`{f}` should divide by the count."),
        ),
        Mutation(
            "swapped_arguments",
            2,
            (_line(1, f"return len({xs}) / sum({xs})"),),
            (f"`{f}` is upside down.", f"`{f}` divides the wrong way round."),
        ),
        _no_return(2, f),
    )

    def arguments(r: random.Random) -> Arguments:
        return ([],) if r.random() < 0.4 else (_ints(r, count=4),)

    return Function(f, (xs,), f"Mean of the {xs}, 0 if there are none.", body, "amount", arguments, bugs)


def extreme(n: Namer) -> Function:
    """Largest or smallest element by iteration."""
    big = n.rng.random() < 0.5
    f, xs = n.function("largest" if big else "smallest"), n.local(COLLECTIONS)
    x = n.local(ELEMENTS, xs)
    t = n.local(ACCUMULATORS, xs, x)
    op, bad, word = (">", "<", "Largest") if big else ("<", ">", "Smallest")
    body = (
        _line(1, f"if not {xs}:"),
        _line(2, "return 0"),
        _line(1, f"{t} = {xs}[0]"),
        _line(1, f"for {x} in {xs}:"),
        _line(2, f"if {x} {op} {t}:"),
        _line(3, f"{t} = {x}"),
        _line(1, f"return {t}"),
    )
    bugs = (
        Mutation("missing_check", 0, (), (f"`{f}` fails for no {xs}.", f"`{f}` crashes on an empty list."), span=2),
        Mutation(
            "comparison",
            4,
            (_line(2, f"if {x} {bad} {t}:"),),
            (f"`{f}` finds the wrong end.", f"`{f}` does not give the {word.lower()}."),
        ),
        _wrong_return(6, f, x, t),
        _no_return(6, f),
    )

    def arguments(r: random.Random) -> Arguments:
        return ([],) if r.random() < 0.3 else (r.sample(range(1, 20), 5),)

    return Function(f, (xs,), f"{word} of the {xs}, 0 if there are none.", body, "amount", arguments, bugs)


def first_items(n: Namer) -> Function:
    """Leading slice."""
    f, xs = n.function("first", "head"), n.local(COLLECTIONS)
    k = n.local(SCALARS, xs)
    body = (_line(1, f"return {xs}[:{k}]"),)
    bugs = (
        Mutation(
            "off_by_one", 0, (_line(1, f"return {xs}[:{k} - 1]"),), (f"`{f}` gives one too few.", f"`{f}` stops too early.")
        ),
        Mutation(
            "off_by_one",
            0,
            (_line(1, f"return {xs}[1:{k}]"),),
            (f"`{f}` skips the first of the {xs}.", f"`{f}` leaves out the beginning."),
        ),
        Mutation(
            "wrong_variable", 0, (_line(1, f"return {xs}[{k}:]"),), (f"`{f}` takes the wrong end.", f"`{f}` gives the rest.")
        ),
        _no_return(0, f),
    )
    return Function(
        f, (xs, k), f"The first {k} of the {xs}.", body, "items", lambda r: (_ints(r, count=5), r.randint(2, 4)), bugs
    )


def last_items(n: Namer) -> Function:
    """Trailing slice."""
    f, xs = n.function("last", "tail"), n.local(COLLECTIONS)
    k = n.local(SCALARS, xs)
    body = (_line(1, f"return {xs}[-{k}:]"),)
    bugs = (
        Mutation(
            "off_by_one", 0, (_line(1, f"return {xs}[-{k} - 1:]"),), (f"`{f}` gives one too many.", f"`{f}` starts too early.")
        ),
        Mutation(
            "wrong_variable",
            0,
            (_line(1, f"return {xs}[:{k}]"),),
            (f"`{f}` takes the wrong end.", f"`{f}` gives the beginning."),
        ),
        _no_return(0, f),
    )
    return Function(
        f, (xs, k), f"The last {k} of the {xs}.", body, "items", lambda r: (r.sample(range(1, 20), 5), r.randint(1, 3)), bugs
    )


def between(n: Namer) -> Function:
    """Closed interval test."""
    f, x = n.function("is", "within"), n.local(SCALARS)
    low = n.local(LIMITS, x)
    high = n.local(LIMITS, x, low)
    body = (_line(1, f"return {low} <= {x} <= {high}"),)
    bugs = (
        Mutation(
            "comparison",
            0,
            (_line(1, f"return {low} < {x} <= {high}"),),
            (f"`{f}` must allow {low} itself.", f"`{f}` is wrong at {low}."),
        ),
        Mutation(
            "comparison",
            0,
            (_line(1, f"return {low} <= {x} < {high}"),),
            (f"`{f}` must allow {high} itself.", f"`{f}` is wrong at {high}."),
        ),
        Mutation(
            "swapped_arguments",
            0,
            (_line(1, f"return {high} <= {x} <= {low}"),),
            (f"`{f}` is nearly always False.", f"`{f}` mixes up {low} and {high}."),
        ),
        _no_return(0, f),
    )

    def arguments(r: random.Random) -> Arguments:
        a = r.randint(1, 5)
        b = a + r.randint(2, 4)
        return (r.choice((a, b, a + 1, b + 1)), a, b)

    return Function(f, (x, low, high), f"Whether {x} is from {low} to {high}, ends included.", body, "flag", arguments, bugs)


def clamp(n: Namer) -> Function:
    """A value held within limits."""
    f, x = n.function("clamp", "hold"), n.local(SCALARS)
    low = n.local(LIMITS, x)
    high = n.local(LIMITS, x, low)
    body = (_line(1, f"return max({low}, min({x}, {high}))"),)
    bugs = (
        Mutation(
            "swapped_arguments",
            0,
            (_line(1, f"return max({high}, min({x}, {low}))"),),
            (f"`{f}` mixes up {low} and {high}.", f"`{f}` is never below {high}."),
        ),
        Mutation(
            "operator",
            0,
            (_line(1, f"return min({low}, min({x}, {high}))"),),
            (f"`{f}` goes below {low}.", f"`{f}` does not respect {low}."),
        ),
        _no_return(0, f),
    )

    def arguments(r: random.Random) -> Arguments:
        a = r.randint(3, 5)
        b = a + r.randint(2, 4)
        return (r.choice((a - 2, a + 1, b + 3)), a, b)

    return Function(f, (x, low, high), f"{x} held between {low} and {high}.", body, "amount", arguments, bugs)


OPERATORS = {"+": "plus", "-": "minus", "*": "times"}


def binary(n: Namer) -> Function:
    """One arithmetic operation."""
    f, a = n.function("joint", "gap", "area"), n.local(SCALARS)
    b = n.local(SCALARS, a)
    op, bad = n.rng.sample(list(OPERATORS), 2)
    body = (_line(1, f"return {a} {op} {b}"),)
    bugs = [
        Mutation(
            "operator",
            0,
            (_line(1, f"return {a} {bad} {b}"),),
            (f"`{f}` computes the wrong thing.", f"`{f}` should be {a} {OPERATORS[op]} {b}."),
        ),
        Mutation("wrong_variable", 0, (_line(1, f"return {a} {op} {a}"),), (f"`{f}` ignores {b}.", f"`{f}` uses {a} twice.")),
        _no_return(0, f),
    ]
    if op == "-":
        bugs.append(
            Mutation(
                "swapped_arguments",
                0,
                (_line(1, f"return {b} - {a}"),),
                (f"`{f}` has the wrong sign.", f"`{f}` subtracts the wrong way round."),
            )
        )
    return Function(
        f, (a, b), f"{a} {OPERATORS[op]} {b}.", body, "amount", lambda r: tuple(r.sample(range(3, 10), 2)), tuple(bugs)
    )


def two_step(n: Namer) -> Function:
    """Two operations through a local variable."""
    f, a = n.function("cost", "sum"), n.local(SCALARS)
    b = n.local(SCALARS, a)
    c = n.local(SCALARS, a, b)
    t = n.local(ACCUMULATORS, a, b, c)
    op, bad = n.rng.sample(["+", "-"], 2)
    body = (_line(1, f"{t} = {a} * {b}"), _line(1, f"return {t} {op} {c}"))
    bugs = (
        Mutation("operator", 0, (_line(1, f"{t} = {a} + {b}"),), (f"`{f}` should multiply first.", f"`{f}` adds {a} and {b}.")),
        Mutation(
            "operator",
            1,
            (_line(1, f"return {t} {bad} {c}"),),
            (f"`{f}` treats {c} wrongly.", f"`{f}` has the wrong sign for {c}."),
        ),
        Mutation(
            "wrong_variable",
            0,
            (_line(1, f"{t} = {a} * {c}"),),
            (f"`{f}` ignores {b}.", f"`{f}` multiplies by the wrong thing."),
        ),
        _no_return(1, f),
        _wrong_return(1, f, t, f"{t} {op} {c}"),
    )
    return Function(
        f, (a, b, c), f"{a} times {b} {OPERATORS[op]} {c}.", body, "amount", lambda r: tuple(r.sample(range(3, 12), 3)), bugs
    )


def lookup(n: Namer) -> Function:
    """Entry of a table with a default."""
    f, table = n.function("find", "get"), n.local(TABLES)
    key = n.local(KEYS, table)
    body = (_line(1, f"return {table}.get({key}, 0)"),)
    bugs = (
        Mutation(
            "initial_value",
            0,
            (_line(1, f"return {table}.get({key}, 1)"),),
            (f"`{f}` is wrong for a missing {key}.", f"`{f}` should give 0 by default."),
        ),
        Mutation(
            "missing_check",
            0,
            (_line(1, f"return {table}[{key}]"),),
            (f"`{f}` crashes for a missing {key}.", f"`{f}` fails when there is no {key}."),
        ),
        _no_return(0, f),
    )
    return Function(
        f, (table, key), f"Entry of the {table} under {key}, 0 if missing.", body, "lookup", _lookup_arguments, bugs
    )


def lookup_checked(n: Namer) -> Function:
    """Entry of a table after a membership test."""
    f, table = n.function("find", "fetch"), n.local(TABLES)
    key = n.local(KEYS, table)
    body = (_line(1, f"if {key} not in {table}:"), _line(2, "return 0"), _line(1, f"return {table}[{key}]"))
    bugs = (
        Mutation(
            "missing_check", 0, (), (f"`{f}` crashes for a missing {key}.", f"`{f}` fails when there is no {key}."), span=2
        ),
        Mutation(
            "comparison",
            0,
            (_line(1, f"if {key} in {table}:"),),
            (f"`{f}` is the wrong way round.", f"`{f}` gives 0 for a known {key}."),
        ),
        Mutation(
            "wrong_variable",
            2,
            (_line(1, f"return {key}"),),
            (f"`{f}` hands back the {key}.", f"`{f}` does not look into the {table}."),
        ),
        _no_return(2, f),
    )
    return Function(f, (table, key), f"Entry of the {table} at {key}, 0 if missing.", body, "lookup", _lookup_arguments, bugs)


def _lookup_arguments(r: random.Random) -> Arguments:
    keys = r.sample("abcdefgh", 3)
    table = {k: r.randint(2, 9) for k in keys}
    return (table, r.choice(keys) if r.random() < 0.6 else "z")


def tally(n: Namer) -> Function:
    """Frequencies of elements."""
    f, xs = n.function("tally", "group"), n.local(COLLECTIONS)
    x = n.local(ELEMENTS, xs)
    t = n.local(ACCUMULATORS, xs, x)
    body = (
        _line(1, f"{t} = {{}}"),
        _line(1, f"for {x} in {xs}:"),
        _line(2, f"{t}[{x}] = {t}.get({x}, 0) + 1"),
        _line(1, f"return {t}"),
    )
    bugs = (
        Mutation(
            "operator",
            2,
            (_line(2, f"{t}[{x}] = {t}.get({x}, 0) - 1"),),
            (f"`{f}` counts downwards.", f"`{f}` comes out negative."),
        ),
        Mutation(
            "initial_value",
            2,
            (_line(2, f"{t}[{x}] = {t}.get({x}, 1) + 1"),),
            (f"`{f}` is always too big by 1.", f"`{f}` should start from 0."),
        ),
        _wrong_return(3, f, xs, t),
        _no_return(3, f),
    )
    return Function(f, (xs,), f"How often each of the {xs} occurs.", body, "table", lambda r: (_ints(r, 1, 4, count=5),), bugs)


def joined(n: Namer) -> Function:
    """Two texts with a separator."""
    f, a = n.function("label", "join"), n.local(KEYS)
    b = n.local(KEYS, a)
    sep, word = n.rng.choice((("-", "dash"), (":", "colon"), ("_", "bar")))
    body = (_line(1, f'return {a} + "{sep}" + {b}'),)
    bugs = (
        Mutation(
            "swapped_arguments",
            0,
            (_line(1, f'return {b} + "{sep}" + {a}'),),
            (f"`{f}` has the wrong order.", f"`{f}` puts {b} first."),
        ),
        Mutation(
            "wrong_variable", 0, (_line(1, f'return {a} + "{sep}" + {a}'),), (f"`{f}` ignores {b}.", f"`{f}` uses {a} twice.")
        ),
        _no_return(0, f),
    )
    return Function(f, (a, b), f"{a} and {b} with a {word} between.", body, "text", _two_words, bugs)


def _two_words(r: random.Random) -> Arguments:
    return tuple("".join(r.sample("abcdefgh", 2)) for _ in range(2))


def repeated(n: Namer) -> Function:
    """A text several times."""
    f, a = n.function("label", "repeat"), n.local(KEYS)
    k = n.local(SCALARS, a)
    t = n.local(ACCUMULATORS, a, k)
    body = (_line(1, f"{t} = {a} * {k}"), _line(1, f'return {t} + "."'))
    bugs = (
        Mutation(
            "wrong_variable", 1, (_line(1, f'return {a} + "."'),), (f"`{f}` ignores {k}.", f"`{f}` shows the {a} only once.")
        ),
        Mutation(
            "off_by_one", 0, (_line(1, f"{t} = {a} * ({k} - 1)"),), (f"`{f}` gives one too few.", f"`{f}` stops too early.")
        ),
        Mutation(
            "wrong_variable", 0, (_line(1, f"{t} = {a}"),), (f"`{f}` ignores {k} now.", f"`{f}` does not repeat the {a}.")
        ),
        _no_return(1, f),
    )
    return Function(
        f,
        (a, k),
        f"The {a} repeated {k} times, and a dot.",
        body,
        "text",
        lambda r: (r.choice("abcdefgh"), r.randint(2, 4)),
        bugs,
    )


def via_helper(n: Namer) -> Function:
    """A call of another function of the module."""
    inner = binary(n)
    while " - " not in inner.body[0]:
        inner = binary(n)
    f, a = n.function("net", "change"), n.local(SCALARS)
    b = n.local(SCALARS, a)
    t = n.local(ACCUMULATORS, a, b)
    body = (_line(1, f"{t} = {inner.name}({a}, {b})"), _line(1, f"return {t} * 2"))
    bugs = (
        Mutation(
            "swapped_arguments",
            0,
            (_line(1, f"{t} = {inner.name}({b}, {a})"),),
            (f"`{f}` has the wrong sign.", f"`{f}` passes {a} and {b} the wrong way round."),
        ),
        Mutation(
            "wrong_variable", 0, (_line(1, f"{t} = {inner.name}({a}, {a})"),), (f"`{f}` ignores {b}.", f"`{f}` is always 0.")
        ),
        Mutation("operator", 1, (_line(1, f"return {t} + 2"),), (f"`{f}` should double.", f"`{f}` adds 2.")),
        _no_return(1, f),
    )
    doc = f"Twice {inner.name} of {a} and {b}."
    return Function(f, (a, b), doc, body, "plain", lambda r: tuple(r.sample(range(3, 10), 2)), bugs, (inner,))


def position(n: Namer) -> Function:
    """Index of an element."""
    f, xs = n.function("position", "index"), n.local(COLLECTIONS)
    y = n.local(LIMITS, xs)
    x = n.local(ELEMENTS, xs, y)
    i = n.rng.choice("ijk")
    body = (
        _line(1, f"for {i}, {x} in enumerate({xs}):"),
        _line(2, f"if {x} == {y}:"),
        _line(3, f"return {i}"),
        _line(1, "return -1"),
    )
    bugs = (
        Mutation(
            "comparison", 1, (_line(2, f"if {x} != {y}:"),), (f"`{f}` finds the wrong one.", f"`{f}` must look for the {y}.")
        ),
        Mutation(
            "wrong_variable", 2, (_line(3, f"return {x}"),), (f"`{f}` gives the value.", f"`{f}` should give a position.")
        ),
        Mutation(
            "initial_value",
            3,
            (_line(1, "return 0"),),
            (f"`{f}` is wrong without the {y}.", f"`{f}` should give -1 if there is no {y}."),
        ),
        Mutation(
            "off_by_one", 2, (_line(3, f"return {i} + 1"),), (f"`{f}` is always too big by 1.", f"`{f}` should count from 0.")
        ),
    )

    def arguments(r: random.Random) -> Arguments:
        values = r.sample(range(1, 9), 5)
        return (values, r.choice(values[1:]) if r.random() < 0.6 else 0)

    return Function(f, (xs, y), f"Position of the {y} in the {xs}, -1 if absent.", body, "plain", arguments, bugs)


def all_compared(n: Namer) -> Function:
    """Whether no element breaks a limit."""
    f, xs = n.function("all", "check"), n.local(COLLECTIONS)
    x, lim = n.local(ELEMENTS, xs), n.local(LIMITS, xs)
    op = n.rng.choice((">", "<"))
    bad = {">": "<", "<": ">"}[op]
    body = (_line(1, f"for {x} in {xs}:"), _line(2, f"if {x} {op} {lim}:"), _line(3, "return False"), _line(1, "return True"))
    bugs = (
        Mutation(
            "comparison",
            1,
            (_line(2, f"if {x} {bad} {lim}:"),),
            (f"`{f}` is the wrong way round.", f"`{f}` must refuse what is {COMPARISONS[op]} the {lim}."),
        ),
        Mutation(
            "comparison",
            1,
            (_line(2, f"if {x} {op}= {lim}:"),),
            (f"`{f}` must allow the {lim} itself.", f"`{f}` is wrong at the {lim}."),
        ),
        Mutation("initial_value", 3, (_line(1, "return False"),), (f"`{f}` is always False.", f"`{f}` is never True.")),
        _no_return(3, f),
    )

    def arguments(r: random.Random) -> Arguments:
        values = _ints(r, 3, 8, count=4)
        return (values, r.choice((max(values), min(values), max(values) - 1, min(values) + 1)))

    return Function(f, (xs, lim), f"Whether none of the {xs} is {COMPARISONS[op]} the {lim}.", body, "flag", arguments, bugs)


def spread(n: Namer) -> Function:
    """Largest minus smallest."""
    f, xs = n.function("spread", "span"), n.local(COLLECTIONS)
    body = (_line(1, f"return max({xs}) - min({xs})"),)
    bugs = (
        Mutation(
            "operator",
            0,
            (_line(1, f"return max({xs}) + min({xs})"),),
            (f"`{f}` computes the wrong thing.", f"`{f}` should subtract."),
        ),
        Mutation(
            "swapped_arguments",
            0,
            (_line(1, f"return min({xs}) - max({xs})"),),
            (f"`{f}` has the wrong sign.", f"`{f}` comes out negative."),
        ),
        _no_return(0, f),
    )
    return Function(
        f, (xs,), f"Largest minus smallest of the {xs}.", body, "amount", lambda r: (r.sample(range(1, 20), 4),), bugs
    )


def running(n: Namer) -> Function:
    """Running totals."""
    f, xs = n.function("running", "trail"), n.local(COLLECTIONS)
    x = n.local(ELEMENTS, xs)
    t = n.local(ACCUMULATORS, xs, x)
    s = n.local(ACCUMULATORS, xs, x, t)
    body = (
        _line(1, f"{t} = 0"),
        _line(1, f"{s} = []"),
        _line(1, f"for {x} in {xs}:"),
        _line(2, f"{t} += {x}"),
        _line(2, f"{s}.append({t})"),
        _line(1, f"return {s}"),
    )
    bugs = (
        _start(0, 1, f, t, n.rng.choice((1, 2, 5))),
        Mutation("operator", 3, (_line(2, f"{t} -= {x}"),), (f"`{f}` should go upwards.", f"`{f}` comes out negative.")),
        Mutation(
            "wrong_variable",
            4,
            (_line(2, f"{s}.append({x})"),),
            (f"`{f}` collects the wrong thing.", f"`{f}` only gives the {xs} back."),
        ),
        _wrong_return(5, f, t, s),
        _no_return(5, f),
    )
    return Function(f, (xs,), f"Running totals of the {xs}.", body, "items", lambda r: (_ints(r, -4, 9, count=5),), bugs)


def steps(n: Namer) -> Function:
    """Differences of neighbours."""
    f, xs = n.function("steps", "changes"), n.local(COLLECTIONS)
    t = n.local(ACCUMULATORS, xs)
    i = n.rng.choice("ijk")
    body = (
        _line(1, f"{t} = []"),
        _line(1, f"for {i} in range(1, len({xs})):"),
        _line(2, f"{t}.append({xs}[{i}] - {xs}[{i} - 1])"),
        _line(1, f"return {t}"),
    )
    bugs = (
        Mutation(
            "off_by_one",
            1,
            (_line(1, f"for {i} in range(2, len({xs})):"),),
            (f"`{f}` skips the first step.", f"`{f}` leaves out the beginning."),
        ),
        Mutation(
            "swapped_arguments",
            2,
            (_line(2, f"{t}.append({xs}[{i} - 1] - {xs}[{i}])"),),
            (f"`{f}` has the wrong sign.", f"`{f}` subtracts the wrong way round."),
        ),
        Mutation(
            "operator",
            2,
            (_line(2, f"{t}.append({xs}[{i}] + {xs}[{i} - 1])"),),
            (f"`{f}` computes the wrong thing.", f"`{f}` should subtract."),
        ),
        _wrong_return(3, f, xs, t),
        _no_return(3, f),
    )
    return Function(
        f, (xs,), f"Steps between neighbours of the {xs}.", body, "items", lambda r: (r.sample(range(1, 20), 5),), bugs
    )


def percent(n: Namer) -> Function:
    """A share in percent with a zero check."""
    f, a = n.function("share", "percent"), n.local(SCALARS)
    b = n.local(SCALARS, a)
    body = (_line(1, f"if {b} == 0:"), _line(2, "return 0"), _line(1, f"return {a} * 100 / {b}"))
    bugs = (
        Mutation("missing_check", 0, (), (f"`{f}` crashes when {b} is 0.", f"`{f}` fails for no {b}."), span=2),
        Mutation(
            "operator",
            2,
            (_line(1, f"return {a} + 100 / {b}"),),
            (f"`{f}` computes the wrong thing.", f"`{f}` should multiply by 100."),
        ),
        Mutation(
            "swapped_arguments",
            2,
            (_line(1, f"return {b} * 100 / {a}"),),
            (f"`{f}` is upside down.", f"`{f}` divides the wrong way round."),
        ),
        _no_return(2, f),
    )

    def arguments(r: random.Random) -> Arguments:
        return (r.randint(1, 9), 0 if r.random() < 0.4 else r.choice((10, 20, 25, 50)))

    return Function(f, (a, b), f"{a} in percent of {b}, 0 if {b} is 0.", body, "amount", arguments, bugs)


def merged(n: Namer) -> Function:
    """One list after another."""
    f, xs = n.function("merge", "chain"), n.local(COLLECTIONS)
    ys = n.local(COLLECTIONS, xs)
    body = (_line(1, f"return {xs} + {ys}"),)
    bugs = (
        Mutation(
            "swapped_arguments",
            0,
            (_line(1, f"return {ys} + {xs}"),),
            (f"`{f}` has the wrong order.", f"`{f}` puts the {ys} first."),
        ),
        Mutation(
            "wrong_variable", 0, (_line(1, f"return {xs} + {xs}"),), (f"`{f}` ignores the {ys}.", f"`{f}` uses the {xs} twice.")
        ),
        _no_return(0, f),
    )
    return Function(
        f,
        (xs, ys),
        f"The {xs} and then the {ys}.",
        body,
        "items",
        lambda r: (_ints(r, 4, 9, count=3), _ints(r, 1, 6, count=2)),
        bugs,
    )


def guarded(n: Namer) -> Function:
    """A computation that refuses a bad argument."""
    f, a = n.function("take", "pay"), n.local(SCALARS)
    b = n.local(SCALARS, a)
    op, word = n.rng.choice((("-", "minus"), ("+", "plus"), ("*", "times")))
    condition, rule, example = n.rng.choice(
        (
            (f"{a} < 0", f"negative {a}", -2),
            (f"{a} == 0", f"{a} of 0", 0),
            (f"{a} > 99", f"{a} above 99", 120),
        )
    )
    body = (_line(1, f"if {condition}:"), _line(2, f'raise ValueError("{a}")'), _line(1, f"return {b} {op} {a}"))
    bugs = (
        Mutation("missing_check", 0, (), (f"`{f}` must refuse a {rule}.", f"`{f}` accepts a {rule}."), span=2),
        Mutation(
            "operator",
            2,
            (_line(1, f"return {b} / {a}"),),
            (f"`{f}` computes the wrong thing.", f"`{f}` should be {b} {word} {a}."),
        ),
        _no_return(2, f),
    )

    def arguments(r: random.Random) -> Arguments:
        return (example if r.random() < 0.5 else r.randint(2, 9), r.randint(11, 19))

    return Function(f, (a, b), f"{b} {word} {a}; refuses a {rule}.", body, "guard", arguments, bugs)


TEMPLATES: tuple[Template, ...] = (
    total,
    total_by_index,
    count_compared,
    keep_compared,
    without,
    up_to,
    average,
    extreme,
    first_items,
    last_items,
    between,
    clamp,
    binary,
    two_step,
    lookup,
    lookup_checked,
    tally,
    joined,
    repeated,
    via_helper,
    position,
    all_compared,
    spread,
    running,
    steps,
    percent,
    merged,
    guarded,
)


def with_body(function: Function, body: tuple[str, ...]) -> Function:
    """The same function with another correct body (a house convention applied)."""
    return replace(function, body=body, unconventional=function.body)
