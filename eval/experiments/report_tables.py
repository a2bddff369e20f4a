"""The tables of an experiment's report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from eval.experiments.findings import Analysis, Contrast
from eval.experiments.report_words import (
    CHANCE,
    LONGEST,
    better,
    counted,
    demand,
    interval,
    mark,
    number,
    of_arm,
    optional,
    p,
    reason,
    value_of,
)
from eval.report.document import Block, Mark, Missing, Prose, Table, Value

if TYPE_CHECKING:
    from eval.statistics.anova import Anova

MOST_VARIANTS, MOST_ROWS = 12, 20
"""Variants in one table; contrasts of measures that nothing is claimed of."""


def verdicts(analysis: Analysis) -> Iterator[Block]:
    """One row for each criterion; then, where a criterion had to hold in several places, each of them."""
    rows = tuple(
        (
            one.criterion.name,
            mark(one.verdict),
            value_of(one.criterion, one.value, one.why),
            demand(one.criterion),
            one.variant or "-",
            reason(one.why, 2 * LONGEST),
        )
        for one in analysis.judged
    )
    yield Table("Each criterion, as registered", ("criterion", "verdict", "value", "demanded", "judged on", "why"), rows)
    placed = [one for one in analysis.judged if one.places]
    if placed:
        columns = tuple(dict.fromkeys(place.place for one in placed for place in one.places))
        cells: list[tuple[Value, ...]] = []
        for one in placed:
            found = {
                place.place: mark(place.verdict, interval(place.value) if place.value else reason(place.why, 60))
                for place in one.places
            }
            cells.append((one.criterion.name, *(found.get(name, Missing("no cell there")) for name in columns)))
        yield Table("Criteria that must hold in each place by itself", ("criterion", *columns), tuple(cells))


def against_base(analysis: Analysis) -> Iterator[Block]:
    """Arms beside the base on the same tasks."""
    several = len(analysis.variants) > 1
    rows: list[tuple[Value, ...]] = []
    for one in analysis.against_base:
        found = one.compared
        why = found.tested.why or "no task was attempted by both"
        difference: Value = Missing(reason(why))
        if found.difference is not None:
            ends = f" ({number(found.low)} to {number(found.high)})" if found.low is not None and found.high is not None else ""
            difference = number(found.difference) + ends
        rows.append(
            (
                *((one.variant,) if several else ()),
                one.arm,
                one.blocks,
                optional(found.base, why),
                optional(found.candidate, why),
                difference,
                f"{found.lives} x {found.tasks}",
                f"+{found.gained} -{found.lost}",
                p(found.tested.p, why),
                p(one.p_adjusted, why),
                optional(found.tested.effect, why),
            )
        )
    columns = ("arm", "blocks", "base", "arm's", "difference (95 %)", "replicates x tasks", "pairs", "p", "Holm p", "d_z")
    caption = "Tasks resolved after the last night, paired with the base's; pairs: resolved by the arm alone, by the base alone"
    yield Table(caption, (("variant",) if several else ()) + columns, tuple(rows))


def contrasts(analysis: Analysis) -> Iterator[Block]:
    """Those of the primary measure; of the others, those that Holm's correction leaves."""
    mine = [one for one in analysis.contrasts if one.measure == analysis.primary]
    others = [one for one in analysis.contrasts if one.measure != analysis.primary]
    if mine:
        yield _contrasts(f"{analysis.primary}: what is claimed", mine)
    if not others:
        return
    clear = [one for one in others if one.p_adjusted is not None and one.p_adjusted < CHANCE]
    clear.sort(key=lambda one: one.p_adjusted or 0.0)
    measures = len({one.measure for one in others})
    told = f"Of {len(others)} contrasts in the {measures} other registered measures, {len(clear)} "
    told += f"{'has' if len(clear) == 1 else 'have'} a Holm p below {CHANCE:g} (corrected within each measure, not over all). "
    told += "They are beside the claim." if clear else ""
    yield Prose(told.strip())
    if clear:
        first = f", the {MOST_ROWS} clearest" if len(clear) > MOST_ROWS else ""
        yield _contrasts(f"Other measures with a Holm p below {CHANCE:g}{first}", clear[:MOST_ROWS], True)


def _contrasts(caption: str, found: Sequence[Contrast], named: bool = False) -> Table:
    rows: list[tuple[Value, ...]] = []
    for one in found:
        why = one.tested.why or "no pair of cells has both values"
        rows.append(
            (
                one.variant,
                one.against,
                *((one.measure,) if named else ()),
                interval(one.difference) if one.difference else Missing(reason(why)),
                _way(one),
                p(one.tested.p, why),
                p(one.p_adjusted, why),
                optional(one.tested.effect, why),
            )
        )
    effect = next((one.tested.effect_name for one in found if one.tested.effect_name), "effect")
    measure = ("measure",) if named else ()
    return Table(caption, ("variant", "minus", *measure, "difference (95 %)", "that is", "p", "Holm p", effect), tuple(rows))


def _way(one: Contrast) -> Value:
    if one.difference is None:
        return "-"
    way = better(one.measure, one.difference.mean)
    if way != "neither" and (one.p_adjusted is None or one.p_adjusted >= CHANCE):
        return f"{way}, {'not tested' if one.p_adjusted is None else 'not beyond chance'}"
    return Mark(way, "good" if way == "better" else "bad" if way == "worse" else "none")


def variance(found: Anova, measure: str) -> Iterator[Block]:
    """The table of a two-way analysis of variance."""
    rows: list[tuple[Value, ...]] = [
        (
            one.name,
            number(one.sum_of_squares),
            one.df,
            optional(one.f, found.why),
            p(one.p, found.why),
            optional(one.partial_eta_squared, found.why),
            optional(one.omega_squared, found.why),
        )
        for one in found.sources
    ]
    if rows and found.residual_sum_of_squares is not None:
        rows.append(("residual", number(found.residual_sum_of_squares), found.residual_df or 0, "-", "-", "-", "-"))
    if rows:
        columns = ("source", "sum of squares", "df", "F", "p", "partial eta squared", "omega squared")
        yield Table(
            f"{measure}: two-way analysis of variance, type {found.type}, {counted(found.n, 'run')}", columns, tuple(rows)
        )
    if found.why:
        yield Prose(f"{'Not tested' if not rows else 'Note'}: {found.why}.")


def failures(analysis: Analysis, most: int) -> Iterator[Table]:
    """How attempts of the last examination failed: the most frequent ways, by variant."""
    names = [name for name in analysis.variants if analysis.errors.get(name)][:MOST_VARIANTS]
    total: dict[str, int] = {}
    for name in names:
        for signature, count in analysis.errors[name].items():
            total[signature] = total.get(signature, 0) + count
    ways = sorted(total, key=lambda signature: (-total[signature], signature))[:most]
    rows: tuple[tuple[Value, ...], ...] = tuple((way, *(analysis.errors[name].get(way, 0) for name in names)) for way in ways)
    if rows:
        yield Table(
            f"Failed attempts{of_arm(analysis)}, the {len(ways)} most frequent of {counted(len(total), 'way')}",
            ("how", *names),
            rows,
        )
