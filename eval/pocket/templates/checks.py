"""Templates of functions that count, find, compare and refuse."""

from __future__ import annotations

import random

from eval.pocket.functions import COMPARISONS, Arguments, Function, Mutation, ints, line, no_return, start, wrong_return
from eval.pocket.names import ACCUMULATORS, COLLECTIONS, ELEMENTS, LIMITS, SCALARS, Namer
from eval.pocket.templates.amounts import binary


def count_compared(n: Namer) -> Function:
    """Count of elements on one side of a limit."""
    f, xs = n.function("count"), n.local(COLLECTIONS)
    x, lim = n.local(ELEMENTS, xs), n.local(LIMITS, xs)
    t = n.local(ACCUMULATORS, xs, x, lim)
    op, bad = n.rng.sample(list(COMPARISONS), 2)
    body = (
        line(1, f"{t} = 0"),
        line(1, f"for {x} in {xs}:"),
        line(2, f"if {x} {op} {lim}:"),
        line(3, f"{t} += 1"),
        line(1, f"return {t}"),
    )
    bugs = (
        Mutation(
            "comparison",
            2,
            (line(2, f"if {x} {bad} {lim}:"),),
            (f"`{f}` counts the wrong {xs}.", f"`{f}` must count what is {COMPARISONS[op]} the {lim}."),
        ),
        start(0, 1, f, t, n.rng.choice((1, 2, 5))),
        Mutation("operator", 3, (line(3, f"{t} -= 1"),), (f"`{f}` counts downwards.", f"`{f}` comes out negative.")),
        wrong_return(4, f, lim, t),
        no_return(4, f),
    )

    def arguments(r: random.Random) -> Arguments:
        values = ints(r, count=5)
        return (values, r.choice(values))

    return Function(f, (xs, lim), f"Number of {xs} {COMPARISONS[op]} the {lim}.", body, "count", arguments, bugs)


def between(n: Namer) -> Function:
    """Closed interval test."""
    f, x = n.function("is", "within"), n.local(SCALARS)
    low = n.local(LIMITS, x)
    high = n.local(LIMITS, x, low)
    body = (line(1, f"return {low} <= {x} <= {high}"),)
    bugs = (
        Mutation(
            "comparison",
            0,
            (line(1, f"return {low} < {x} <= {high}"),),
            (f"`{f}` must allow {low} itself.", f"`{f}` is wrong at {low}."),
        ),
        Mutation(
            "comparison",
            0,
            (line(1, f"return {low} <= {x} < {high}"),),
            (f"`{f}` must allow {high} itself.", f"`{f}` is wrong at {high}."),
        ),
        Mutation(
            "swapped_arguments",
            0,
            (line(1, f"return {high} <= {x} <= {low}"),),
            (f"`{f}` is nearly always False.", f"`{f}` mixes up {low} and {high}."),
        ),
        no_return(0, f),
    )

    def arguments(r: random.Random) -> Arguments:
        a = r.randint(1, 5)
        b = a + r.randint(2, 4)
        return (r.choice((a, b, a + 1, b + 1)), a, b)

    return Function(f, (x, low, high), f"Whether {x} is from {low} to {high}, ends included.", body, "flag", arguments, bugs)


def via_helper(n: Namer) -> Function:
    """A call of another function of the module."""
    inner = binary(n)
    while " - " not in inner.body[0]:
        inner = binary(n)
    f, a = n.function("net", "change"), n.local(SCALARS)
    b = n.local(SCALARS, a)
    t = n.local(ACCUMULATORS, a, b)
    body = (line(1, f"{t} = {inner.name}({a}, {b})"), line(1, f"return {t} * 2"))
    bugs = (
        Mutation(
            "swapped_arguments",
            0,
            (line(1, f"{t} = {inner.name}({b}, {a})"),),
            (f"`{f}` has the wrong sign.", f"`{f}` passes {a} and {b} the wrong way round."),
        ),
        Mutation(
            "wrong_variable", 0, (line(1, f"{t} = {inner.name}({a}, {a})"),), (f"`{f}` ignores {b}.", f"`{f}` is always 0.")
        ),
        Mutation("operator", 1, (line(1, f"return {t} + 2"),), (f"`{f}` should double.", f"`{f}` adds 2.")),
        no_return(1, f),
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
        line(1, f"for {i}, {x} in enumerate({xs}):"),
        line(2, f"if {x} == {y}:"),
        line(3, f"return {i}"),
        line(1, "return -1"),
    )
    bugs = (
        Mutation(
            "comparison", 1, (line(2, f"if {x} != {y}:"),), (f"`{f}` finds the wrong one.", f"`{f}` must look for the {y}.")
        ),
        Mutation("wrong_variable", 2, (line(3, f"return {x}"),), (f"`{f}` gives the value.", f"`{f}` should give a position.")),
        Mutation(
            "initial_value",
            3,
            (line(1, "return 0"),),
            (f"`{f}` is wrong without the {y}.", f"`{f}` should give -1 if there is no {y}."),
        ),
        Mutation(
            "off_by_one", 2, (line(3, f"return {i} + 1"),), (f"`{f}` is always too big by 1.", f"`{f}` should count from 0.")
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
    body = (line(1, f"for {x} in {xs}:"), line(2, f"if {x} {op} {lim}:"), line(3, "return False"), line(1, "return True"))
    bugs = (
        Mutation(
            "comparison",
            1,
            (line(2, f"if {x} {bad} {lim}:"),),
            (f"`{f}` is the wrong way round.", f"`{f}` must refuse what is {COMPARISONS[op]} the {lim}."),
        ),
        Mutation(
            "comparison",
            1,
            (line(2, f"if {x} {op}= {lim}:"),),
            (f"`{f}` must allow the {lim} itself.", f"`{f}` is wrong at the {lim}."),
        ),
        Mutation("initial_value", 3, (line(1, "return False"),), (f"`{f}` is always False.", f"`{f}` is never True.")),
        no_return(3, f),
    )

    def arguments(r: random.Random) -> Arguments:
        values = ints(r, 3, 8, count=4)
        return (values, r.choice((max(values), min(values), max(values) - 1, min(values) + 1)))

    return Function(f, (xs, lim), f"Whether none of the {xs} is {COMPARISONS[op]} the {lim}.", body, "flag", arguments, bugs)


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
    body = (line(1, f"if {condition}:"), line(2, f'raise ValueError("{a}")'), line(1, f"return {b} {op} {a}"))
    bugs = (
        Mutation("missing_check", 0, (), (f"`{f}` must refuse a {rule}.", f"`{f}` accepts a {rule}."), span=2),
        Mutation(
            "operator",
            2,
            (line(1, f"return {b} / {a}"),),
            (f"`{f}` computes the wrong thing.", f"`{f}` should be {b} {word} {a}."),
        ),
        no_return(2, f),
    )

    def arguments(r: random.Random) -> Arguments:
        return (example if r.random() < 0.5 else r.randint(2, 9), r.randint(11, 19))

    return Function(f, (a, b), f"{b} {word} {a}; refuses a {rule}.", body, "guard", arguments, bugs)
