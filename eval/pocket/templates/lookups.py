"""Templates of functions over tables and texts."""

from __future__ import annotations

import random

from eval.pocket.functions import Arguments, Function, Mutation, ints, line, no_return, wrong_return
from eval.pocket.names import ACCUMULATORS, COLLECTIONS, ELEMENTS, KEYS, SCALARS, TABLES, Namer


def lookup(n: Namer) -> Function:
    """Entry of a table with a default."""
    f, table = n.function("find", "get"), n.local(TABLES)
    key = n.local(KEYS, table)
    body = (line(1, f"return {table}.get({key}, 0)"),)
    bugs = (
        Mutation(
            "initial_value",
            0,
            (line(1, f"return {table}.get({key}, 1)"),),
            (f"`{f}` is wrong for a missing {key}.", f"`{f}` should give 0 by default."),
        ),
        Mutation(
            "missing_check",
            0,
            (line(1, f"return {table}[{key}]"),),
            (f"`{f}` crashes for a missing {key}.", f"`{f}` fails when there is no {key}."),
        ),
        no_return(0, f),
    )
    return Function(
        f, (table, key), f"Entry of the {table} under {key}, 0 if missing.", body, "lookup", _lookup_arguments, bugs
    )


def lookup_checked(n: Namer) -> Function:
    """Entry of a table after a membership test."""
    f, table = n.function("find", "fetch"), n.local(TABLES)
    key = n.local(KEYS, table)
    body = (line(1, f"if {key} not in {table}:"), line(2, "return 0"), line(1, f"return {table}[{key}]"))
    bugs = (
        Mutation(
            "missing_check", 0, (), (f"`{f}` crashes for a missing {key}.", f"`{f}` fails when there is no {key}."), span=2
        ),
        Mutation(
            "comparison",
            0,
            (line(1, f"if {key} in {table}:"),),
            (f"`{f}` is the wrong way round.", f"`{f}` gives 0 for a known {key}."),
        ),
        Mutation(
            "wrong_variable",
            2,
            (line(1, f"return {key}"),),
            (f"`{f}` hands back the {key}.", f"`{f}` does not look into the {table}."),
        ),
        no_return(2, f),
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
        line(1, f"{t} = {{}}"),
        line(1, f"for {x} in {xs}:"),
        line(2, f"{t}[{x}] = {t}.get({x}, 0) + 1"),
        line(1, f"return {t}"),
    )
    bugs = (
        Mutation(
            "operator",
            2,
            (line(2, f"{t}[{x}] = {t}.get({x}, 0) - 1"),),
            (f"`{f}` counts downwards.", f"`{f}` comes out negative."),
        ),
        Mutation(
            "initial_value",
            2,
            (line(2, f"{t}[{x}] = {t}.get({x}, 1) + 1"),),
            (f"`{f}` is always too big by 1.", f"`{f}` should start from 0."),
        ),
        wrong_return(3, f, xs, t),
        no_return(3, f),
    )
    return Function(f, (xs,), f"How often each of the {xs} occurs.", body, "table", lambda r: (ints(r, 1, 4, count=5),), bugs)


def joined(n: Namer) -> Function:
    """Two texts with a separator."""
    f, a = n.function("label", "join"), n.local(KEYS)
    b = n.local(KEYS, a)
    sep, word = n.rng.choice((("-", "dash"), (":", "colon"), ("_", "bar")))
    body = (line(1, f'return {a} + "{sep}" + {b}'),)
    bugs = (
        Mutation(
            "swapped_arguments",
            0,
            (line(1, f'return {b} + "{sep}" + {a}'),),
            (f"`{f}` has the wrong order.", f"`{f}` puts {b} first."),
        ),
        Mutation(
            "wrong_variable", 0, (line(1, f'return {a} + "{sep}" + {a}'),), (f"`{f}` ignores {b}.", f"`{f}` uses {a} twice.")
        ),
        no_return(0, f),
    )
    return Function(f, (a, b), f"{a} and {b} with a {word} between.", body, "text", _two_words, bugs)


def _two_words(r: random.Random) -> Arguments:
    return tuple("".join(r.sample("abcdefgh", 2)) for _ in range(2))


def repeated(n: Namer) -> Function:
    """A text several times."""
    f, a = n.function("label", "repeat"), n.local(KEYS)
    k = n.local(SCALARS, a)
    t = n.local(ACCUMULATORS, a, k)
    body = (line(1, f"{t} = {a} * {k}"), line(1, f'return {t} + "."'))
    bugs = (
        Mutation(
            "wrong_variable", 1, (line(1, f'return {a} + "."'),), (f"`{f}` ignores {k}.", f"`{f}` shows the {a} only once.")
        ),
        Mutation(
            "off_by_one", 0, (line(1, f"{t} = {a} * ({k} - 1)"),), (f"`{f}` gives one too few.", f"`{f}` stops too early.")
        ),
        Mutation("wrong_variable", 0, (line(1, f"{t} = {a}"),), (f"`{f}` ignores {k} now.", f"`{f}` does not repeat the {a}.")),
        no_return(1, f),
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
