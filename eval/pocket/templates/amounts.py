"""Templates of functions that return a number: sums, extremes, arithmetic."""

from __future__ import annotations

import random

from eval.pocket.functions import Arguments, Function, Mutation, ints, line, no_return, start, wrong_return
from eval.pocket.names import ACCUMULATORS, COLLECTIONS, ELEMENTS, LIMITS, SCALARS, Namer


def total(n: Namer) -> Function:
    """Sum by iteration."""
    f, xs = n.function("total", "sum"), n.local(COLLECTIONS)
    x = n.local(ELEMENTS, xs)
    t = n.local(ACCUMULATORS, xs, x)
    body = (line(1, f"{t} = 0"), line(1, f"for {x} in {xs}:"), line(2, f"{t} += {x}"), line(1, f"return {t}"))
    bugs = (
        start(0, 1, f, t, n.rng.choice((1, 2, 5))),
        Mutation("operator", 2, (line(2, f"{t} -= {x}"),), (f"`{f}` should add up all {xs}.", f"`{f}` comes out negative.")),
        wrong_return(3, f, x, t),
        no_return(3, f),
    )
    return Function(f, (xs,), f"Sum of the {xs}.", body, "amount", lambda r: (ints(r),), bugs)


def total_by_index(n: Namer) -> Function:
    """Sum over positions."""
    f, xs = n.function("total", "sum"), n.local(COLLECTIONS)
    t = n.local(ACCUMULATORS, xs)
    i = n.rng.choice("ijk")
    body = (
        line(1, f"{t} = 0"),
        line(1, f"for {i} in range(len({xs})):"),
        line(2, f"{t} += {xs}[{i}]"),
        line(1, f"return {t}"),
    )
    bugs = (
        Mutation(
            "off_by_one",
            1,
            (line(1, f"for {i} in range(len({xs}) - 1):"),),
            (f"`{f}` skips the last of the {xs}.", f"`{f}` leaves out the end."),
        ),
        Mutation(
            "off_by_one",
            1,
            (line(1, f"for {i} in range(1, len({xs})):"),),
            (f"`{f}` skips the first of the {xs}.", f"`{f}` leaves out the beginning."),
        ),
        Mutation(
            "operator", 2, (line(2, f"{t} -= {xs}[{i}]"),), (f"`{f}` should add up all {xs}.", f"`{f}` comes out negative.")
        ),
        start(0, 1, f, t, n.rng.choice((1, 2, 5))),
        wrong_return(3, f, i, t),
        no_return(3, f),
    )
    return Function(f, (xs,), f"Sum of the {xs}, by position.", body, "amount", lambda r: (ints(r),), bugs)


def average(n: Namer) -> Function:
    """Mean with an empty check."""
    f, xs = n.function("mean", "average"), n.local(COLLECTIONS)
    body = (line(1, f"if not {xs}:"), line(2, "return 0"), line(1, f"return sum({xs}) / len({xs})"))
    bugs = (
        Mutation("missing_check", 0, (), (f"`{f}` fails for no {xs}.", f"`{f}` crashes on an empty list."), span=2),
        Mutation(
            "operator",
            2,
            (line(1, f"return sum({xs}) * len({xs})"),),
            (f"`{f}` is far too big.", f"`{f}` should divide by the count."),
        ),
        Mutation(
            "swapped_arguments",
            2,
            (line(1, f"return len({xs}) / sum({xs})"),),
            (f"`{f}` is upside down.", f"`{f}` divides the wrong way round."),
        ),
        no_return(2, f),
    )

    def arguments(r: random.Random) -> Arguments:
        return ([],) if r.random() < 0.4 else (ints(r, count=4),)

    return Function(f, (xs,), f"Mean of the {xs}, 0 if there are none.", body, "amount", arguments, bugs)


def extreme(n: Namer) -> Function:
    """Largest or smallest element by iteration."""
    big = n.rng.random() < 0.5
    f, xs = n.function("largest" if big else "smallest"), n.local(COLLECTIONS)
    x = n.local(ELEMENTS, xs)
    t = n.local(ACCUMULATORS, xs, x)
    op, bad, word = (">", "<", "Largest") if big else ("<", ">", "Smallest")
    body = (
        line(1, f"if not {xs}:"),
        line(2, "return 0"),
        line(1, f"{t} = {xs}[0]"),
        line(1, f"for {x} in {xs}:"),
        line(2, f"if {x} {op} {t}:"),
        line(3, f"{t} = {x}"),
        line(1, f"return {t}"),
    )
    bugs = (
        Mutation("missing_check", 0, (), (f"`{f}` fails for no {xs}.", f"`{f}` crashes on an empty list."), span=2),
        Mutation(
            "comparison",
            4,
            (line(2, f"if {x} {bad} {t}:"),),
            (f"`{f}` finds the wrong end.", f"`{f}` does not give the {word.lower()}."),
        ),
        wrong_return(6, f, x, t),
        no_return(6, f),
    )

    def arguments(r: random.Random) -> Arguments:
        return ([],) if r.random() < 0.3 else (r.sample(range(1, 20), 5),)

    return Function(f, (xs,), f"{word} of the {xs}, 0 if there are none.", body, "amount", arguments, bugs)


def clamp(n: Namer) -> Function:
    """A value held within limits."""
    f, x = n.function("clamp", "hold"), n.local(SCALARS)
    low = n.local(LIMITS, x)
    high = n.local(LIMITS, x, low)
    body = (line(1, f"return max({low}, min({x}, {high}))"),)
    bugs = (
        Mutation(
            "swapped_arguments",
            0,
            (line(1, f"return max({high}, min({x}, {low}))"),),
            (f"`{f}` mixes up {low} and {high}.", f"`{f}` is never below {high}."),
        ),
        Mutation(
            "operator",
            0,
            (line(1, f"return min({low}, min({x}, {high}))"),),
            (f"`{f}` goes below {low}.", f"`{f}` does not respect {low}."),
        ),
        no_return(0, f),
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
    body = (line(1, f"return {a} {op} {b}"),)
    bugs = [
        Mutation(
            "operator",
            0,
            (line(1, f"return {a} {bad} {b}"),),
            (f"`{f}` computes the wrong thing.", f"`{f}` should be {a} {OPERATORS[op]} {b}."),
        ),
        Mutation("wrong_variable", 0, (line(1, f"return {a} {op} {a}"),), (f"`{f}` ignores {b}.", f"`{f}` uses {a} twice.")),
        no_return(0, f),
    ]
    if op == "-":
        bugs.append(
            Mutation(
                "swapped_arguments",
                0,
                (line(1, f"return {b} - {a}"),),
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
    body = (line(1, f"{t} = {a} * {b}"), line(1, f"return {t} {op} {c}"))
    bugs = (
        Mutation("operator", 0, (line(1, f"{t} = {a} + {b}"),), (f"`{f}` should multiply first.", f"`{f}` adds {a} and {b}.")),
        Mutation(
            "operator",
            1,
            (line(1, f"return {t} {bad} {c}"),),
            (f"`{f}` treats {c} wrongly.", f"`{f}` has the wrong sign for {c}."),
        ),
        Mutation(
            "wrong_variable",
            0,
            (line(1, f"{t} = {a} * {c}"),),
            (f"`{f}` ignores {b}.", f"`{f}` multiplies by the wrong thing."),
        ),
        no_return(1, f),
        wrong_return(1, f, t, f"{t} {op} {c}"),
    )
    return Function(
        f, (a, b, c), f"{a} times {b} {OPERATORS[op]} {c}.", body, "amount", lambda r: tuple(r.sample(range(3, 12), 3)), bugs
    )


def spread(n: Namer) -> Function:
    """Largest minus smallest."""
    f, xs = n.function("spread", "span"), n.local(COLLECTIONS)
    body = (line(1, f"return max({xs}) - min({xs})"),)
    bugs = (
        Mutation(
            "operator",
            0,
            (line(1, f"return max({xs}) + min({xs})"),),
            (f"`{f}` computes the wrong thing.", f"`{f}` should subtract."),
        ),
        Mutation(
            "swapped_arguments",
            0,
            (line(1, f"return min({xs}) - max({xs})"),),
            (f"`{f}` has the wrong sign.", f"`{f}` comes out negative."),
        ),
        no_return(0, f),
    )
    return Function(
        f, (xs,), f"Largest minus smallest of the {xs}.", body, "amount", lambda r: (r.sample(range(1, 20), 4),), bugs
    )


def percent(n: Namer) -> Function:
    """A share in percent with a zero check."""
    f, a = n.function("share", "percent"), n.local(SCALARS)
    b = n.local(SCALARS, a)
    body = (line(1, f"if {b} == 0:"), line(2, "return 0"), line(1, f"return {a} * 100 / {b}"))
    bugs = (
        Mutation("missing_check", 0, (), (f"`{f}` crashes when {b} is 0.", f"`{f}` fails for no {b}."), span=2),
        Mutation(
            "operator",
            2,
            (line(1, f"return {a} + 100 / {b}"),),
            (f"`{f}` computes the wrong thing.", f"`{f}` should multiply by 100."),
        ),
        Mutation(
            "swapped_arguments",
            2,
            (line(1, f"return {b} * 100 / {a}"),),
            (f"`{f}` is upside down.", f"`{f}` divides the wrong way round."),
        ),
        no_return(2, f),
    )

    def arguments(r: random.Random) -> Arguments:
        return (r.randint(1, 9), 0 if r.random() < 0.4 else r.choice((10, 20, 25, 50)))

    return Function(f, (a, b), f"{a} in percent of {b}, 0 if {b} is 0.", body, "amount", arguments, bugs)
