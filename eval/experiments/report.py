"""The report of an experiment: what did not hold first, then the hypothesis, verdicts, findings, and how to have it again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from eval.errors import EvalError
from eval.experiments import report_figures as figures
from eval.experiments import report_measures as measures
from eval.experiments import report_tables as tables
from eval.experiments.findings import Analysis, Verdict
from eval.experiments.plan import Experiment, registered
from eval.experiments.report_design import Locked, design, registration, reproduction
from eval.experiments.report_overview import overview
from eval.experiments.report_words import (
    CHANCE,
    SHARES,
    better,
    counted,
    demand,
    interval,
    number,
    primary_told,
    reason,
    tally,
    value_of,
)
from eval.report.document import Block, Bullets, Missing, Prose, Report, Section

__all__ = ["OVERVIEW", "Locked", "experiment_report", "overview", "write_overview", "write_report"]

OVERVIEW = "programme"
POCKET = (
    "Pocket results: a very small model in a made-up world of small repositories. They are no SWE-bench results, and say "
    "nothing about large models."
)
VERDICTS: tuple[Verdict, ...] = ("met", "not met", "undecided", "not measured")
MOST = 8
"""Arms in one sentence."""
NOTHING = "No life counts, so there is nothing to show here."


def write_report(
    analysis: Analysis, out: Path, experiment: Experiment | None = None, locked: Locked | None = None
) -> list[Path]:
    """Write the report of an experiment as Markdown and as one HTML file, with its plots; the files, named after its id.

    Without `experiment` the registration is looked up; its text is left out if it is not the one that was analysed.

    Raises:
        OSError: the folder cannot be written.
        EvalError: `experiment` is not the one that was analysed.
    """
    from eval.report.render import write

    return write(experiment_report(analysis, experiment, locked), out, analysis.experiment)


def write_overview(analyses: Sequence[Analysis], out: Path) -> list[Path]:
    """Write one row for each experiment, and each criterion of all of them; the files.

    Raises:
        OSError: the folder cannot be written.
    """
    from eval.report.render import write

    pocket = POCKET if any(one.size == "pocket" for one in analyses) else ""
    run = {one.experiment for one in analyses}
    missing = [name for name in registered() if name not in run]
    return write(overview(analyses, pocket, missing), out, OVERVIEW)


def experiment_report(analysis: Analysis, experiment: Experiment | None = None, locked: Locked | None = None) -> Report:
    """The document.

    Raises:
        EvalError: `experiment` is not the one that was analysed.
    """
    if experiment and experiment.hash != analysis.hash:
        raise EvalError(
            f"{experiment.id} is registered as {experiment.hash}, but {analysis.hash} was analysed: analyse it again, or "
            "give the registration that was analysed"
        )
    if experiment is None:
        known = registered().get(analysis.experiment)
        experiment = known if known and known.hash == analysis.hash else None
    found = [
        Section("Hypothesis, as registered", tuple(registration(analysis, experiment, locked))),
        Section("Verdicts", (*tables.verdicts(analysis), Prose(SHARES))),
    ]
    if experiment:
        found += [
            Section("What this can say, and what it cannot", (Prose(experiment.limits),)),
            Section("Expected, and found", tuple(_expected(analysis, experiment))),
        ]
    found.append(Section("How it was run", tuple(design(analysis, experiment))))
    found += _findings(analysis, experiment) if analysis.done else [Section("Findings", (Prose(NOTHING),))]
    found.append(Section("How to have it again", tuple(reproduction(analysis))))
    return Report(f"{analysis.experiment}: {analysis.title}", tuple(found), tuple(_lead(analysis)))


def _lead(analysis: Analysis) -> Iterator[Block]:
    if analysis.size == "pocket":
        yield Prose(POCKET)
    yield Prose(
        f"{tally(analysis.judged)}. {analysis.done} of {counted(analysis.cells, 'cell')} count, of "
        f"{counted(len(analysis.seeds), 'seed')}. {primary_told(analysis)}"
    )
    bad = tuple(bad_news(analysis))
    yield Bullets(bad, "bad") if bad else Prose("Every criterion is met, no cell failed, and nothing was warned of.")


def bad_news(analysis: Analysis) -> Iterator[str]:
    """What must not be overlooked, a sentence each: criteria that are not met, contrasts that are for worse, failed cells,
    warnings."""
    for verdict in VERDICTS[1:]:
        for one in analysis.judged:
            if one.verdict == verdict:
                value = value_of(one.criterion, one.value, one.why)
                told = value.why if isinstance(value, Missing) else f"{value}; demanded is {demand(one.criterion)}"
                if one.places:
                    told += f"; met in {sum(place.verdict == 'met' for place in one.places)} of {len(one.places)} places"
                yield f"{verdict.capitalize()}: {one.criterion.name}. {_sentence(one.criterion.text)} {_sentence(told)}"
    yield from _no_better(analysis)
    yield from _no_gain(analysis)
    if analysis.failed:
        name, why = next(iter(analysis.failed.items()))
        yield f"{counted(len(analysis.failed), 'cell')} failed; the first is {name}: {reason(why) or 'no reason is known'}"
    yield from (_sentence(reason(warning)) for warning in analysis.warnings)


def _no_better(analysis: Analysis) -> Iterator[str]:
    """Variants that are worse than what they are compared with, or that no variant differs."""
    tested = [
        (one, one.difference, one.p_adjusted)
        for one in analysis.contrasts
        if one.measure == analysis.primary and one.difference is not None and one.p_adjusted is not None
    ]
    for one, difference, p in tested:
        if p < CHANCE and better(one.measure, difference.mean) == "worse":
            told = f"{one.measure} differs by {interval(difference)}, Holm p {number(p)}"
            yield f"{one.variant} is worse than {one.against}: {told}."
    if tested and all(p >= CHANCE for *_, p in tested):
        yield f"None of {counted(len(tested), 'contrast')} between variants in {analysis.primary} is beyond chance (Holm p)."


def _no_gain(analysis: Analysis) -> Iterator[str]:
    """Arms that are not shown to be better than the base; the frozen control is not meant to be."""
    named, several = [], len({one.arm for one in analysis.against_base}) > 1
    for one in analysis.against_base:
        difference, p = one.compared.difference, one.p_adjusted
        if one.arm != "frozen" and difference is not None and p is not None and (difference <= 0 or p >= CHANCE):
            alone = one.arm if len(analysis.variants) == 1 else one.variant
            name = f"{one.variant}, {one.arm}" if several and alone != one.arm else alone
            named.append(f"{name} ({number(difference)}, Holm p {number(p)})")
    if named:
        more = f" and {len(named) - MOST} more" if len(named) > MOST else ""
        yield f"Not shown to resolve more tasks than the base: {'; '.join(named[:MOST])}{more}."


def _expected(analysis: Analysis, experiment: Experiment) -> Iterator[Block]:
    yield Prose(f"Expected, as registered. {' '.join(experiment.expected.split())}")
    told = [
        f"{verdict.capitalize()}: {'; '.join(names)}."
        for verdict in VERDICTS
        if (names := [one.criterion.name for one in analysis.judged if one.verdict == verdict])
    ]
    yield Prose(f"Found. {' '.join((primary_told(analysis), *told))}")


def _findings(analysis: Analysis, experiment: Experiment | None) -> list[Section]:
    found: list[Section] = []

    def add(heading: str, *blocks: Block | None) -> None:
        if shown := tuple(block for block in blocks if block is not None):
            found.append(Section(heading, shown))

    if analysis.against_base:
        add("Arms against the base", *tables.against_base(analysis), figures.before_and_after(analysis))
    if analysis.contrasts:
        add("Variants against each other", *tables.contrasts(analysis))
    add("By level", *_levels(analysis))
    add("Measures", *measures.measures(analysis))
    if analysis.variance:
        add("Variance", *tables.variance(analysis.variance, analysis.primary))
    add("Night by night", *figures.curves(analysis, experiment), figures.matrices(analysis, experiment))
    drawn = figures.failures(analysis)
    failed = tuple(tables.failures(analysis, figures.MOST_ERRORS))
    add("How attempts failed", *((drawn,) if drawn else failed or (Prose("No attempt of the last examination failed."),)))
    add("Cost", *measures.costs(analysis), figures.cost(analysis))
    if analysis.exploratory:
        told = "These measures were not registered. They are shown so that nothing is hidden; nothing is concluded from them."
        shown = measures.summaries("Exploratory", analysis.exploratory, analysis.variants, short=True)
        add("Exploratory", Prose(told), *shown)
    return found


def _levels(analysis: Analysis) -> Iterator[Block]:
    yield from figures.level_curves(analysis)
    for one in analysis.levels:
        knee = f"the knee is at {one.knee:g}" if one.knee is not None else f"there is no knee: {one.why or 'no curve'}"
        yield Prose(f"{one.factor}: {knee}.")


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return text if not text or text[-1] in ".!?:" else f"{text}."
