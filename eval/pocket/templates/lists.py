"""Templates of functions that return a list."""

from __future__ import annotations

import random

from eval.pocket.functions import COMPARISONS, Arguments, Function, Mutation, ints, line, no_return, start, wrong_return
from eval.pocket.names import ACCUMULATORS, COLLECTIONS, ELEMENTS, LIMITS, SCALARS, Namer


def keep_compared(n: Namer) -> Function:
    """Elements on one side of a limit."""
    f, xs = n.function("filter", "keep"), n.local(COLLECTIONS)
    x, lim = n.local(ELEMENTS, xs), n.local(LIMITS, xs)
    t = n.local(ACCUMULATORS, xs, x, lim)
    op, bad = n.rng.sample(list(COMPARISONS), 2)
    body = (
        line(1, f"{t} = []"),
        line(1, f"for {x} in {xs}:"),
        line(2, f"if {x} {op} {lim}:"),
        line(3, f"{t}.append({x})"),
        line(1, f"return {t}"),
    )
    bugs = (
        Mutation(
            "comparison",
            2,
            (line(2, f"if {x} {bad} {lim}:"),),
            (f"`{f}` keeps the wrong {xs}.", f"`{f}` must keep what is {COMPARISONS[op]} the {lim}."),
        ),
        Mutation(
            "wrong_variable",
            3,
            (line(3, f"{t}.append({lim})"),),
            (f"`{f}` collects the wrong thing.", f"`{f}` fills up with the {lim}."),
        ),
        wrong_return(4, f, xs, t),
        no_return(4, f),
    )

    def arguments(r: random.Random) -> Arguments:
        values = ints(r, count=6)
        return (values, r.choice(values))

    return Function(f, (xs, lim), f"The {xs} {COMPARISONS[op]} the {lim}.", body, "items", arguments, bugs)


def without(n: Namer) -> Function:
    """Elements that differ from one value."""
    f, xs = n.function("drop", "remove"), n.local(COLLECTIONS)
    x, y = n.local(ELEMENTS, xs), n.local(LIMITS, xs)
    t = n.local(ACCUMULATORS, xs, x, y)
    body = (
        line(1, f"{t} = []"),
        line(1, f"for {x} in {xs}:"),
        line(2, f"if {x} != {y}:"),
        line(3, f"{t}.append({x})"),
        line(1, f"return {t}"),
    )
    bugs = (
        Mutation(
            "comparison", 2, (line(2, f"if {x} == {y}:"),), (f"`{f}` keeps the wrong {xs}.", f"`{f}` must leave out the {y}.")
        ),
        Mutation(
            "wrong_variable",
            3,
            (line(3, f"{t}.append({y})"),),
            (f"`{f}` collects the wrong thing.", f"`{f}` fills up with the {y}."),
        ),
        wrong_return(4, f, xs, t),
        no_return(4, f),
    )

    def arguments(r: random.Random) -> Arguments:
        values = ints(r, 1, 6, count=6)
        return (values, r.choice(values))

    return Function(f, (xs, y), f"The {xs} without the {y}.", body, "items", arguments, bugs)


def up_to(n: Namer) -> Function:
    """The numbers 1 to n."""
    f, k = n.function("list", "steps"), n.local(SCALARS)
    i = n.rng.choice("ijk")
    t = n.local(ACCUMULATORS, k, i)
    body = (
        line(1, f"{t} = []"),
        line(1, f"for {i} in range(1, {k} + 1):"),
        line(2, f"{t}.append({i})"),
        line(1, f"return {t}"),
    )
    bugs = (
        Mutation(
            "off_by_one",
            1,
            (line(1, f"for {i} in range(1, {k}):"),),
            (f"`{f}` stops too early.", f"`{f}` leaves out {k} itself."),
        ),
        Mutation(
            "off_by_one",
            1,
            (line(1, f"for {i} in range({k} + 1):"),),
            (f"`{f}` starts too early.", f"`{f}` must not contain 0."),
        ),
        Mutation(
            "wrong_variable",
            2,
            (line(2, f"{t}.append({k})"),),
            (f"`{f}` collects the wrong thing.", f"`{f}` fills up with {k}."),
        ),
        wrong_return(3, f, k, t),
        no_return(3, f),
    )
    return Function(f, (k,), f"The numbers from 1 to {k}.", body, "items", lambda r: (r.randint(3, 8),), bugs)


def first_items(n: Namer) -> Function:
    """Leading slice."""
    f, xs = n.function("first", "head"), n.local(COLLECTIONS)
    k = n.local(SCALARS, xs)
    body = (line(1, f"return {xs}[:{k}]"),)
    bugs = (
        Mutation(
            "off_by_one", 0, (line(1, f"return {xs}[:{k} - 1]"),), (f"`{f}` gives one too few.", f"`{f}` stops too early.")
        ),
        Mutation(
            "off_by_one",
            0,
            (line(1, f"return {xs}[1:{k}]"),),
            (f"`{f}` skips the first of the {xs}.", f"`{f}` leaves out the beginning."),
        ),
        Mutation(
            "wrong_variable", 0, (line(1, f"return {xs}[{k}:]"),), (f"`{f}` takes the wrong end.", f"`{f}` gives the rest.")
        ),
        no_return(0, f),
    )
    return Function(
        f, (xs, k), f"The first {k} of the {xs}.", body, "items", lambda r: (ints(r, count=5), r.randint(2, 4)), bugs
    )


def last_items(n: Namer) -> Function:
    """Trailing slice."""
    f, xs = n.function("last", "tail"), n.local(COLLECTIONS)
    k = n.local(SCALARS, xs)
    body = (line(1, f"return {xs}[-{k}:]"),)
    bugs = (
        Mutation(
            "off_by_one", 0, (line(1, f"return {xs}[-{k} - 1:]"),), (f"`{f}` gives one too many.", f"`{f}` starts too early.")
        ),
        Mutation(
            "wrong_variable",
            0,
            (line(1, f"return {xs}[:{k}]"),),
            (f"`{f}` takes the wrong end.", f"`{f}` gives the beginning."),
        ),
        no_return(0, f),
    )
    return Function(
        f, (xs, k), f"The last {k} of the {xs}.", body, "items", lambda r: (r.sample(range(1, 20), 5), r.randint(1, 3)), bugs
    )


def running(n: Namer) -> Function:
    """Running totals."""
    f, xs = n.function("running", "trail"), n.local(COLLECTIONS)
    x = n.local(ELEMENTS, xs)
    t = n.local(ACCUMULATORS, xs, x)
    s = n.local(ACCUMULATORS, xs, x, t)
    body = (
        line(1, f"{t} = 0"),
        line(1, f"{s} = []"),
        line(1, f"for {x} in {xs}:"),
        line(2, f"{t} += {x}"),
        line(2, f"{s}.append({t})"),
        line(1, f"return {s}"),
    )
    bugs = (
        start(0, 1, f, t, n.rng.choice((1, 2, 5))),
        Mutation("operator", 3, (line(2, f"{t} -= {x}"),), (f"`{f}` should go upwards.", f"`{f}` comes out negative.")),
        Mutation(
            "wrong_variable",
            4,
            (line(2, f"{s}.append({x})"),),
            (f"`{f}` collects the wrong thing.", f"`{f}` only gives the {xs} back."),
        ),
        wrong_return(5, f, t, s),
        no_return(5, f),
    )
    return Function(f, (xs,), f"Running totals of the {xs}.", body, "items", lambda r: (ints(r, -4, 9, count=5),), bugs)


def steps(n: Namer) -> Function:
    """Differences of neighbours."""
    f, xs = n.function("steps", "changes"), n.local(COLLECTIONS)
    t = n.local(ACCUMULATORS, xs)
    i = n.rng.choice("ijk")
    body = (
        line(1, f"{t} = []"),
        line(1, f"for {i} in range(1, len({xs})):"),
        line(2, f"{t}.append({xs}[{i}] - {xs}[{i} - 1])"),
        line(1, f"return {t}"),
    )
    bugs = (
        Mutation(
            "off_by_one",
            1,
            (line(1, f"for {i} in range(2, len({xs})):"),),
            (f"`{f}` skips the first step.", f"`{f}` leaves out the beginning."),
        ),
        Mutation(
            "swapped_arguments",
            2,
            (line(2, f"{t}.append({xs}[{i} - 1] - {xs}[{i}])"),),
            (f"`{f}` has the wrong sign.", f"`{f}` subtracts the wrong way round."),
        ),
        Mutation(
            "operator",
            2,
            (line(2, f"{t}.append({xs}[{i}] + {xs}[{i} - 1])"),),
            (f"`{f}` computes the wrong thing.", f"`{f}` should subtract."),
        ),
        wrong_return(3, f, xs, t),
        no_return(3, f),
    )
    return Function(
        f, (xs,), f"Steps between neighbours of the {xs}.", body, "items", lambda r: (r.sample(range(1, 20), 5),), bugs
    )


def merged(n: Namer) -> Function:
    """One list after another."""
    f, xs = n.function("merge", "chain"), n.local(COLLECTIONS)
    ys = n.local(COLLECTIONS, xs)
    body = (line(1, f"return {xs} + {ys}"),)
    bugs = (
        Mutation(
            "swapped_arguments",
            0,
            (line(1, f"return {ys} + {xs}"),),
            (f"`{f}` has the wrong order.", f"`{f}` puts the {ys} first."),
        ),
        Mutation(
            "wrong_variable", 0, (line(1, f"return {xs} + {xs}"),), (f"`{f}` ignores the {ys}.", f"`{f}` uses the {xs} twice.")
        ),
        no_return(0, f),
    )
    return Function(
        f,
        (xs, ys),
        f"The {xs} and then the {ys}.",
        body,
        "items",
        lambda r: (ints(r, 4, 9, count=3), ints(r, 1, 6, count=2)),
        bugs,
    )
