"""Writes what the statistics promise, and whether they keep it, into the documents.

    python -m eval.bench_statistics_card --bench BENCH.json --write docs/results/statistics.md

BENCH.json is what `sleepyctl bench statistics --json` printed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from eval.statistics.power import Plan, power_of
from eval.statistics.simulation import Null, Recovery, StatisticsBench

PLANS = (
    Plan(tasks=24, lives=3, wanted=0.2),
    Plan(tasks=24, lives=10, wanted=0.2),
    Plan(tasks=25, lives=15, distinct=50, wanted=0.2, alpha=0.01),
    Plan(tasks=25, lives=15, distinct=50, wanted=0.05),
)


def card(bench: StatisticsBench) -> str:
    """The document."""
    worst = max(bench.null, key=lambda row: row.pooled)
    crossed = max(bench.null, key=lambda row: row.over_lives)
    least = min(row.scenario.lives for row in bench.null)
    few = max((row for row in bench.null if row.scenario.lives == least), key=lambda row: row.primary)
    share = f"{bench.alpha:.0%}"
    return f"""# Statistics: do equal arms come out equal, and better ones better?

Written by `python -m eval.bench_statistics_card` from what `sleepyctl bench statistics --json` printed: {bench.runs:,}
simulated experiments of each kind, seed {bench.seed}, configuration {bench.config_hash}. The experiments are simulated; they
are decided by `eval.statistics.lives.compare_lives`, which decides about real lives.

Two arms are examined in several lives, on the same tasks. Tasks differ in difficulty, lives share what their adapter became
(*luck*), and an arm may be better at some tasks than at others in whichever life (*taste*); both are standard deviations on the
logit scale.

## Equal arms

The primary test clusters by life and by task (Cameron, Gelbach & Miller 2011), with a variance never below that between lives
and min(lives, tasks) - 1 degrees of freedom. Two others are there for comparison: a paired t over the lives' differences, which
does not know that lives share tasks, and McNemar's mid-p test over all pairs, which knows neither. *Design effect* is the mean
ratio of the variance to that of independent pairs.

| kind | lives | tasks of | luck | taste | different at {share} | 95 % interval | t over lives | McNemar | design effect |
|---|---|---|---|---|---|---|---|---|---|
{chr(10).join(map(_null, bench.null))}

- A test whose true share is {share} shows at most {bench.bound:.1%} in {bench.runs:,} experiments (97.5 %). The primary test
  {"stays below in every kind" if bench.honest else "**does not stay below in every kind**"}; over all together it calls
  {bench.false_positives:.1%} of equal arms different.
- McNemar over all pairs calls up to {worst.pooled:.0%} of equal arms different ({worst.scenario.name}), the t over lives up to
  {crossed.over_lives:.0%} ({crossed.scenario.name}). Neither decides anything here.
- With {few.scenario.lives} lives the primary test calls at most {few.primary:.1%} different.

## Better arms

| kind | lives | tasks of | true difference | measured | found | predicted | 95 % interval holds it |
|---|---|---|---|---|---|---|---|
{chr(10).join(map(_recovery, bench.recovery))}

*Predicted* is `eval.statistics.power.lives_power` with the scenario's true discordance and spread.
{_said(bench)}

## What plans can show

Printed before a run, by `eval.statistics.power.power_of`:

{chr(10).join(f"- {power_of(plan)}" for plan in PLANS)}

## Not covered

The simulated effects are normal on the logit scale, lives are independent of each other, and outcomes within a life influence
one another only by what they share. Spreads and discordance in the plans above are assumptions until a pilot measured them.
"""


def _null(row: Null) -> str:
    kind = row.scenario
    cells = (
        kind.name,
        str(kind.lives),
        f"{kind.tasks} of {kind.distinct}",
        f"{kind.luck:g}",
        f"{kind.taste:g}",
        f"{row.primary:.1%}",
        f"{row.low:.1%} to {row.high:.1%}",
        f"{row.over_lives:.1%}",
        f"{row.pooled:.1%}",
        "-" if row.design_effect is None else f"{row.design_effect:.2f}",
    )
    return f"| {' | '.join(cells)} |"


def _recovery(row: Recovery) -> str:
    kind = row.scenario
    cells = (
        kind.name,
        str(kind.lives),
        f"{kind.tasks} of {kind.distinct}",
        f"{100 * row.difference:+.1f}",
        f"{100 * row.measured:+.1f} ± {100 * row.error:.1f}",
        f"{row.power:.1%}",
        f"{row.predicted:.1%}",
        f"{row.coverage:.1%}",
    )
    return f"| {' | '.join(cells)} |"


def _said(bench: StatisticsBench) -> str:
    """What was found."""
    if bench.recovered:
        return (
            "Every difference is measured within 3.5 of its Monte-Carlo errors, and found as often as predicted to within\n"
            "5 points and chance."
        )
    return "**Not every difference is measured, or found, as it should be.**"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bench", type=Path, required=True)
    parser.add_argument("--write", type=Path, default=Path("docs/results/statistics.md"))
    options = parser.parse_args()
    bench = StatisticsBench.model_validate_json(options.bench.read_text(encoding="utf-8"))
    options.write.parent.mkdir(parents=True, exist_ok=True)
    options.write.write_text(card(bench), encoding="utf-8")


if __name__ == "__main__":
    main()
