"""Reports of experiments, from lives written by hand through the real analysis."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from eval.errors import EvalError
from eval.experiments.analysis import analyse
from eval.experiments.findings import Analysis, Interval
from eval.experiments.life import Life, NightRow
from eval.experiments.plan import Cell, Experiment
from eval.experiments.report import Locked, experiment_report, overview, write_overview, write_report
from eval.experiments.report_figures import MOST
from eval.experiments.report_words import better, interval, number
from eval.report.document import Block, Bullets, Commands, Figure, Heat, Lines, Mark, Missing, Prose, Report, Table
from tests.eval.experiments.lives import life

TASKS = 10
AT = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
HOSTILE = "<script>alert(1)</script> | `x` ](http://evil) \u202e\x07"
LEVELS = [{"name": "size", "setting": "night.seed", "levels": [1, 2, 3], "centre": 2}]


def marks(rate: float) -> str:
    solved = round(rate * TASKS)
    return "+" * solved + "-" * (TASKS - solved)


def lived(skill: float, base: float = 0.2, **changes: Any) -> Life:
    """Two nights teach `a` and `b`; `t` is never learnt."""
    row = dict.fromkeys(("a", "b", "t", ""), marks(base))
    exams: dict[tuple[str, int], Mapping[str, str]] = {("base", 0): row}
    for night in (1, 2):
        exams["skill", night] = dict.fromkeys(("a", "b", "t", ""), marks(skill if night == 2 else (skill + base) / 2))
    nights = [NightRow(night=n, block=b, tokens=1000 * n, seconds=2.0, examples=5) for n, b in ((1, "a"), (2, "b"))]
    return life(exams, {"a": 1, "b": 2, "t": None}, nights, **changes)


def plan(*criteria: Mapping[str, Any], size: Mapping[str, Any] | None = None, **changes: Any) -> Experiment:
    body: dict[str, Any] = {
        "id": "exp99",
        "title": "Of nothing",
        "hypothesis": "Skills transfer.",
        "expected": "Much.",
        "measures": ["forward_transfer", "steps", "train_seconds"],
        "primary": "forward_transfer",
        "analysis": "By Student.",
        "criteria": [
            {"name": f"c{n}", "text": "It transfers", "measure": "forward_transfer", "operator": ">=", "threshold": 0.1, **one}
            for n, one in enumerate(criteria or ({},))
        ],
        "limits": "Three tasks say little.",
        "sizes": {
            "pocket": {
                "seeds": 3,
                "design": {"kind": "split", "repo": "train"},
                "settings": {"arms": ["base", "skill"]},
                "minutes": 1,
                "machine": "m",
                **(size or {}),
            }
        },
    }
    return Experiment.model_validate(body | changes)


def found(
    one: Experiment, rate: Callable[[Cell], float] = lambda cell: 0.6 + 0.1 * cell.seed, failed: Mapping[str, str] | None = None
) -> Analysis:
    cells = one.cells("pocket")
    lives = {cell.name: lived(rate(cell), digest=cell.name) for cell in cells if cell.name not in (failed or {})}
    return analyse(one, "pocket", lives, cells, failed)


@cache
def simple() -> tuple[Experiment, Analysis]:
    one = plan()
    return one, found(one)


@cache
def levels() -> tuple[Experiment, Analysis]:
    one = plan({"variant": "best"}, factors=LEVELS, references=[{"name": "naive", "settings": {"night.seed": 9}}])
    return one, found(one, lambda cell: {"naive": 0.8}.get(cell.variant, 0.3) + 0.1 * (cell.seed % 2))


def blocks(report: Report) -> Iterator[Block]:
    yield from report.lead
    for section in report.sections:
        yield from section.blocks


def section(report: Report, heading: str) -> tuple[Block, ...]:
    (one,) = (each for each in report.sections if each.heading == heading)
    return one.blocks


def table(report: Report, caption: str) -> Table:
    return next(block for block in blocks(report) if isinstance(block, Table) and block.caption.startswith(caption))


def bad(report: Report) -> str:
    return "\n".join(
        item for block in report.lead if isinstance(block, Bullets) and block.tone == "bad" for item in block.items
    )


def told(report: Report) -> str:
    return "\n".join(block.text for block in blocks(report) if isinstance(block, Prose | Commands))


def test_what_did_not_hold_stands_above_everything_else() -> None:
    one = plan({}, {"threshold": 0.9, "text": "It solves nearly all"})
    report = experiment_report(found(one), one)
    assert report.title == "exp99: Of nothing"
    assert bad(report).startswith("Not met: c1. It solves nearly all. 0.5 (0.252 to 0.748; 3 lives); demanded is")
    assert "Not met: c0" not in bad(report)
    assert report.sections[0].heading == "Hypothesis, as registered"
    assert isinstance(report.lead[0], Prose)
    assert report.lead[0].text.startswith("Pocket results: ")


def test_a_verdict_tells_value_interval_threshold_and_variant() -> None:
    one = plan({}, {"measure": "p_value", "operator": "<", "threshold": 0.05})
    first, second = table(experiment_report(found(one), one), "Each criterion").rows
    assert first[:5] == ("c0", Mark("met", "good"), "0.5 (0.252 to 0.748; 3 lives)", "forward_transfer >= 0.1", "default")
    assert "all of it >= 0.1" in str(first[5])
    assert re.fullmatch(r"p = 0\.0\d+", str(second[2]))


def test_a_criterion_is_shown_in_each_of_its_places() -> None:
    one = plan(size={"spread": {"design.split": ["A", "B"]}})
    report = experiment_report(
        found(one, lambda cell: 0.2 if cell.place["design.split"] == "B" else 0.6 + 0.1 * cell.seed), one
    )
    placed = table(report, "Criteria that must hold in each place")
    assert placed.columns == ("criterion", "design.split=A", "design.split=B")
    ((_, a, b),) = placed.rows
    assert a == Mark("met: 0.5 (0.252 to 0.748; 3 lives)", "good")
    assert b == Mark("undecided: 0 (-0.308 to 0.308; 3 lives)", "open")
    assert "met in 1 of 2 places" in bad(report)


def test_the_registration_is_quoted_with_its_hash_and_when_it_was_locked() -> None:
    one, analysis = simple()
    text = told(experiment_report(analysis, one, Locked(2, AT, 4, 1)))
    assert f"Registration {one.hash}, version 2, locked 2026-01-02 03:04 UTC. 4 lives of earlier versions" in text
    assert "1 of the 3 lives had been lived before" in text
    assert "1 of the 3 lives had been lived before" in told(experiment_report(analysis, one, Locked(1, AT, 0, 1)))
    assert "No life that is reported here had been lived before" in told(experiment_report(analysis, one, Locked(1, AT)))
    for words in ("Skills transfer.", "Expected, as registered. Much.", "Three tasks say little.", "By Student."):
        assert words in text
    assert "when it was locked was not handed" in told(experiment_report(analysis, one))


def test_a_registration_that_was_not_analysed_is_refused_or_left_out() -> None:
    _, analysis = simple()
    with pytest.raises(EvalError, match="was analysed: analyse it again"):
        experiment_report(analysis, plan(title="another"))
    report = experiment_report(analysis)
    assert "was not at hand" in told(report)
    assert "Verdicts" in [each.heading for each in report.sections]


def test_a_primary_measure_that_is_the_same_everywhere_is_told_once() -> None:
    one = plan(factors=LEVELS)
    assert "forward_transfer is 0.5 with every variant." in told(experiment_report(found(one), one))


def test_levels_are_compared_with_the_reference_and_drawn() -> None:
    one, analysis = levels()
    report = experiment_report(analysis, one)
    assert table(report, "Factors").rows == (("size", "night.seed", "1, 2, 3", "2"),)
    first = table(report, "forward_transfer: what is claimed").rows[0]
    assert first[:4] == ("centre", "naive", "-0.5 (all 3 lives are equal)", "worse, not tested")
    assert isinstance(first[5], Missing)
    figures = {figure.name: figure for figure in report.figures}
    assert figures.keys() == {
        "before-after",
        "level-1",
        "learning",
        "retention",
        "steps",
        "matrix",
        "errors",
        "cost",
    }
    lines, heat = figures["learning"].plot, figures["matrix"].plot
    assert isinstance(lines, Lines)
    assert [series.name for series in lines.series] == ["naive", "centre", "size=1", "size=3"]
    assert lines.ticks == ("base", "1", "2")
    assert all(point.low is not None for series in lines.series for point in series.points)
    assert isinstance(heat, Heat)
    assert [panel.name for panel in heat.panels] == [series.name for series in lines.series]
    assert heat.panels[0].values[2] == pytest.approx((2.5 / 3, 2.5 / 3, 2.5 / 3))
    assert "there is no knee" in told(report)


def test_a_variant_that_is_worse_beyond_chance_is_named_above() -> None:
    one = plan({"variant": "worse"}, references=[{"name": "first"}, {"name": "worse", "settings": {"night.seed": 9}}])
    rates = {"first": (0.8, 0.9, 0.8), "worse": (0.2, 0.3, 0.3)}
    report = experiment_report(found(one, lambda cell: rates[cell.variant][cell.seed]), one)
    assert "worse is worse than first: forward_transfer differs by -0.567 (" in bad(report)
    assert table(report, "forward_transfer: what is claimed").rows[0][3] == Mark("worse", "bad")
    assert "Not shown to resolve more tasks than the base: first (0.633, Holm p 0.0772); worse (0.0667" in bad(report)


def test_failed_cells_are_counted_above_and_listed_with_the_first_line_of_their_reason() -> None:
    one = plan()
    failed = {"default/seed 1": "ValueError: no disk\n  File '/home/somebody/x.py', line 1"}
    report = experiment_report(found(one, failed=failed), one)
    assert "1 cell failed; the first is default/seed 1: ValueError: no disk" in bad(report)
    assert table(report, "Cells that failed").rows == (("default/seed 1", "ValueError: no disk"),)
    assert "somebody" not in str(report)
    assert "2 of 3 cells were lived and count; 1 failed." in told(report)
    (row,) = table(report, "forward_transfer of every cell").rows
    assert row == ("default", "0.4", Missing("ValueError: no disk"), "0.6")


def test_where_every_cell_failed_nothing_is_made_up() -> None:
    one = plan(factors=LEVELS)
    report = experiment_report(found(one, failed={cell.name: "broken" for cell in one.cells("pocket")}), one)
    assert not report.figures
    ((_, verdict, value, *_),) = table(report, "Each criterion").rows
    assert (verdict, value) == (Mark("not measured", "open"), Missing("broken (0 of 3 variants meet it)"))
    assert "0 of 9 cells count" in told(report)
    assert "forward_transfer has no value." in told(report)
    assert section(report, "Findings")


def test_values_that_are_missing_are_reasons_and_never_numbers() -> None:
    one = plan(measures=["forward_transfer", "steps@both", "recovered"])
    rows = {row[0]: row[1] for row in table(experiment_report(found(one), one), "Registered measures").rows}
    assert isinstance(rows["steps@both"], Missing)
    assert isinstance(rows["recovered"], Missing)
    assert all(value.why for value in rows.values() if isinstance(value, Missing))
    assert rows["forward_transfer"] == "0.5 (0.252 to 0.748; 3 lives)"


def test_a_life_without_a_value_that_others_have_is_told() -> None:
    one = plan(measures=["forward_transfer", "retention"])
    report = experiment_report(found(one, lambda cell: 0.2 if cell.seed == 1 else 0.7), one)
    ((measure, cells, name, why),) = table(report, "Cells without a value").rows
    assert (measure, cells, name) == ("retention", 1, "default/seed 1")
    assert "nothing could be retained" in str(why)


def test_cells_that_are_not_lived_yet_are_counted_once() -> None:
    one = plan()
    cells = one.cells("pocket")
    analysis = analyse(one, "pocket", {cells[0].name: lived(0.5), cells[2].name: lived(0.6)}, cells)
    report = experiment_report(analysis, one)
    assert "2 of 3 cells were lived and count; 0 failed, 1 not lived yet." in told(report)
    assert "1 of 3 cells have no life that counts" in bad(report)
    assert not [block for block in blocks(report) if isinstance(block, Table) and block.caption.startswith("Cells without")]


def test_measures_that_were_not_registered_are_labelled() -> None:
    one, analysis = simple()
    first, *tables = section(experiment_report(analysis, one), "Exploratory")
    assert isinstance(first, Prose)
    assert "nothing is concluded" in first.text
    names = {row[0] for block in tables if isinstance(block, Table) for row in block.rows}
    assert "aulc" in names
    assert not names & {"forward_transfer", "steps", "train_seconds"}


def test_a_drifting_repository_names_its_nights_by_sessions() -> None:
    one = plan(size={"design": {"kind": "drift", "repo": "train", "lived": 4, "recovery": [7], "examined": 3}})
    figures = {figure.name: figure.plot for figure in experiment_report(found(one), one).figures}
    lines, heat = figures["learning"], figures["matrix"]
    assert isinstance(lines, Lines)
    assert isinstance(heat, Heat)
    assert lines.ticks == heat.rows == ("base", "0", "7")
    assert "sessions of the changed repository" in lines.x


def test_two_settings_are_analysed_by_variance() -> None:
    one = plan(size={"spread": {"design.repo": ["train", "boat"], "design.split": ["A", "D"]}})
    analysis = found(one, lambda cell: 0.5 + 0.1 * cell.seed + 0.2 * (cell.place["design.split"] == "D"))
    rows = {row[0]: row for row in table(experiment_report(analysis, one), "forward_transfer: two-way").rows}
    assert rows.keys() == {"design.repo", "design.split", "design.repo x design.split", "residual"}
    assert analysis.variance
    split = analysis.variance.sources[1]
    assert split.f
    assert split.p
    assert split.p < 0.05
    assert rows["design.split"][2:5] == (1, number(split.f), number(split.p))


def test_many_variants_are_tables_of_bounded_width_and_figures_of_bounded_height() -> None:
    one = plan(factors=[LEVELS[0] | {"levels": list(range(20)), "centre": 2}], size={"seeds": 1})
    report = experiment_report(found(one), one)
    tables = [block for block in blocks(report) if isinstance(block, Table)]
    assert max(len(each.columns) for each in tables) <= 13
    lines = next(figure.plot for figure in report.figures if figure.name == "learning")
    assert isinstance(lines, Lines)
    assert len(lines.series) == MOST
    assert {point.low for series in lines.series for point in series.points} == {None}
    assert "the first 10 of 20 variants" in next(figure.caption for figure in report.figures if figure.name == "learning")


def test_it_says_how_to_have_it_again() -> None:
    one, analysis = simple()
    report = experiment_report(analysis, one)
    (commands,) = (block for block in blocks(report) if isinstance(block, Commands))
    assert commands.text.splitlines() == [
        "sleepyctl experiment run exp99 --size pocket --seeds 3",
        "sleepyctl experiment report exp99 --size pocket --seeds 3 --out DIR",
    ]
    assert table(report, "Hashes").rows[0] == (
        "configurations of the lives",
        3,
        "default/seed 0, default/seed 1, default/seed 2",
    )


def test_what_others_wrote_stays_text(tmp_path: Path) -> None:
    one = plan(
        {"name": HOSTILE, "text": HOSTILE}, title=HOSTILE, hypothesis=HOSTILE, references=[{"name": HOSTILE}, {"name": "b"}]
    )
    failed = {f"{HOSTILE}/seed 0": HOSTILE}
    analysis = found(one, failed=failed)
    analysis = analysis.model_copy(update={"errors": {HOSTILE: {HOSTILE: 3}}, "warnings": (HOSTILE,)})
    for path in write_report(analysis, tmp_path, one):
        text = path.read_text(encoding="utf-8")
        assert "<script" not in text
        assert "\u202e" not in text
        assert path.suffix != ".md" or "](http://evil)" not in text


def test_the_same_findings_are_the_same_files(tmp_path: Path) -> None:
    one, analysis = levels()
    first = write_report(analysis, tmp_path / "a", one, Locked(1, AT))
    second = write_report(Analysis.model_validate_json(analysis.model_dump_json()), tmp_path / "b", one, Locked(1, AT))
    assert {path.name for path in first} >= {"exp99.md", "exp99.html", "exp99-learning.svg"}
    assert [path.name for path in first] == [path.name for path in second]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(first, second, strict=True))


def test_the_overview_has_a_row_for_each_and_names_what_was_not_run(tmp_path: Path) -> None:
    _, analysis = levels()
    other = found(plan({}, {"threshold": 0.9}, id="exp98"))
    report = overview([analysis, other], "Pocket results.", ["exp97"])
    rows = table(report, "Verdicts").rows
    assert rows[1][:8] == ("exp98", "Of nothing", "pocket", "3/3", 1, 1, 0, 0)
    assert rows[1][8:] == ("c0 (forward_transfer >= 0.1)", "0.5 (0.252 to 0.748; 3 lives)", number(other.seconds), "exp98.md")
    assert bad(report).splitlines() == ["exp98: 1 not met (c1)", "Registered, and not run: exp97"]
    assert len(table(report, "Criteria").rows) == 3
    names = [path.name for path in write_overview([analysis, other], tmp_path)]
    assert {"programme.md", "programme.html"} <= set(names)
    assert "No experiment has been run yet" in told(overview([]))


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (-1e-17, "0"), (0.123456, "0.123"), (999.6, "1,000"), (70441.4, "70,441"), (-0.05, "-0.05")]
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_an_interval_says_over_how_many() -> None:
    assert interval(Interval(mean=0.5, low=0.4, high=0.6, n=3, unit="seeds")) == "0.5 (0.4 to 0.6; 3 seeds)"
    assert interval(Interval(mean=0.5, n=1)) == "0.5 (1 life, no interval)"
    assert interval(Interval(mean=0.5, low=0.5, high=0.5 + 1e-16, n=4)) == "0.5 (all 4 lives are equal)"


def test_better_is_as_the_measure_has_it() -> None:
    asked = (("forgetting", 0.1), ("gain", 0.1), ("steps@base", -1.0), ("examples", 1.0), ("gain", -1e-17))
    assert [better(*one) for one in asked] == ["worse", "better", "better", "neither", "neither"]


def test_every_figure_has_a_name_of_its_own_and_says_what_is_seen() -> None:
    one, analysis = levels()
    figures: list[Figure] = list(experiment_report(analysis, one).figures)
    assert len({figure.name for figure in figures}) == len(figures)
    assert all(re.fullmatch(r"[a-z0-9-]+", figure.name) and figure.description for figure in figures)
