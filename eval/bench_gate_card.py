"""Writes the gate's operating characteristics into the documents.

    python -m eval.bench_gate_card --bench BENCH.json --write docs/results/gate.md

BENCH.json is what `sleepyctl bench gate --json` printed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from eval.bench_gate import GateBench, Scenario

HARM = 0.05
MOST_HARM = 0.01
LEAST_POWER = 0.90
MOST_COST = 0.60


def card(bench: GateBench) -> str:
    """The document."""
    gate, items, nights = bench.gate, bench.scenarios[0].items_full, bench.scenarios[0].nights
    return f"""# The gate: how often it is right, and what it costs

Written by `python -m eval.bench_gate_card` from what `sleepyctl bench gate --json` printed: {nights:,} simulated nights
of each kind, {items} items, seed {bench.seed}, configuration {bench.config_hash}. The nights are simulated; the decisions are
made by the code that decides about real ones.

A claim is accepted if the measured drop is below {gate.margin:.0%}, is less than {gate.chance:g} standard errors, and its upper
bound (score test of Tango 1998, one-sided confidence {gate.confidence:.1%} over all of {gate.looks} looks) is
below {gate.limit:.0%}. It is rejected if the drop is at least the margin or more than chance explains, and undecided if neither
holds: the items cannot support the claim, and what is live stays. A claim that could hardly be accepted any more (chance below
{gate.futility:.0%} if there were no drop) is not examined to the end.

*Discordance* is the share of items that only one of base and candidate gets right. *Best* is how often the most powerful single
test of that bound on all {items} items would accept, if it knew the discordance: what no gate with this promise can surpass by
more than chance where the bound decides.

| true drop | discordance | accepted | undecided | rejected | best | items of {items} |
|---|---|---|---|---|---|---|
{chr(10).join(map(_row, bench.scenarios))}

{_verdict(bench)}"""


def _row(row: Scenario) -> str:
    told = (row.true_drop, row.discordance, row.accept_rate, row.undecided_rate, row.reject_rate, row.best_power)
    return f"| {' | '.join(f'{share:.1%}' for share in told)} | {row.items_mean:.0f} ({row.items_mean / row.items_full:.0%}) |"


def _verdict(bench: GateBench) -> str:
    """What was asked for, and what was found."""
    harmful = max(row.accept_rate for row in bench.scenarios if row.true_drop >= HARM)
    harmless = [row for row in bench.scenarios if row.true_drop == 0]
    reachable = [row.accept_rate for row in harmless if row.best_power >= LEAST_POWER]
    beyond = ", ".join(
        f"{row.accept_rate:.1%} at {row.discordance:.0%} (best {row.best_power:.1%})"
        for row in harmless
        if row.best_power < LEAST_POWER
    )
    told = f"""- A true drop of {HARM:.0%} or more is accepted in at most {harmful:.2%} of nights (wanted: {MOST_HARM:.0%}).
- No drop is accepted in at least {min(reachable):.1%} where that many can be (wanted: {LEAST_POWER:.0%})."""
    if beyond:
        told += f" Where discordance is too high for {bench.scenarios[0].items_full} items, accepted are {beyond}."
    return f"""{told}
- Asked are {bench.cost:.0%} of the items on average over these kinds of nights (wanted: {MOST_COST:.0%}),
  {bench.cost_no_drop:.0%} where there is no drop.
"""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bench", type=Path, required=True)
    parser.add_argument("--write", type=Path, default=Path("docs/results/gate.md"))
    options = parser.parse_args()
    bench = GateBench.model_validate_json(options.bench.read_text(encoding="utf-8"))
    options.write.parent.mkdir(parents=True, exist_ok=True)
    options.write.write_text(card(bench), encoding="utf-8")


if __name__ == "__main__":
    main()
