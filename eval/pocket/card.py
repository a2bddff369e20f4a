"""Writes the numbers into the documents: the model card, and the figures in the README.

    python -m eval.pocket.card --bench BENCH.json --history build/pocket/history.json

BENCH.json is what `sleepyctl bench pocket --json` printed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from agent.pocket import WEIGHTS
from eval.bench_pocket import Change, PocketBench, Rate

BEGIN, END = "<!-- figures: begin (written by python -m eval.pocket.card) -->", "<!-- figures: end -->"


def figures(bench: PocketBench) -> str:
    """The gate numbers as a Markdown table."""
    seeds = ", ".join(map(str, bench.seeds))
    repos = sorted({row.repo for row in bench.by_repository})
    trained = [row.pairs for row in bench.by_repository]
    own = sum(p["agent"] for p in trained) / len(trained)
    merged = sum(p["merged_fix"] for p in trained) / len(trained)
    old = sum(p.get("rehearsal", 0) for p in trained) / len(trained)
    rehearsed = f", and {old:.0f} rehearsed episodes of pretraining" if old else ""
    skill, convention = bench.base_skills_after_night, bench.conventions_after_night
    rows = [
        ("base skills resolved, unseen functions", _rate(bench.base_skills), ">= 85 %"),
        ("house conventions resolved without memory", _rate(bench.conventions_without_memory), "<= 15 %"),
        ("house conventions after one night, unseen tasks", _rate(convention.adapted), ">= 60 %"),
        ("base skills, change by that night (same repository, adapter on)", _change(skill), ">= -3 points"),
    ]
    table = "\n".join(f"| {name} | {value} | {goal} |" for name, value, goal in rows)
    return (
        f"| measure | result (95 % interval) | goal |\n|---|---|---|\n{table}\n\n"
        f"Seeds {seeds}; repositories {', '.join(repos)}; one night per seed and repository after a day of "
        f"{bench.day_tasks_per_repository} tasks, on average {own:.0f} examples from own successes and {merged:.0f} "
        f"from merged fixes of tasks that were over{rehearsed}. Every adapter is counted, promoted or not.\n"
        f"Configuration {bench.config_hash}. "
        f"Command: `{command(bench)}`. Pocket results, never SWE-bench results."
    )


def command(bench: PocketBench) -> str:
    """The command that produced a report."""
    repos = ",".join(dict.fromkeys(row.repo for row in bench.by_repository))
    examined = bench.by_repository[0].conventions.tasks
    sizes = f"--day {bench.day_tasks_per_repository} --examined {examined}"
    return f"sleepyctl bench pocket --json --seeds {len(bench.seeds)} --first-seed {bench.seeds[0]} --repos {repos} {sizes}"


def _rate(rate: Rate) -> str:
    return f"{rate.rate:.1%} of {rate.tasks} ({rate.low:.1%} to {rate.high:.1%})"


def _change(change: Change) -> str:
    return f"{change.change * 100:+.1f} points of {change.tasks} ({change.low * 100:+.1f} to {change.high * 100:+.1f})"


def card(bench: PocketBench, history: dict[str, Any]) -> str:
    """The model card."""
    s = history["settings"]
    last = next(row for row in reversed(history["history"]) if "val_own" in row)
    kinds = "\n".join(f"| {kind} | {_rate(rate)} |" for kind, rate in bench.base_skills_by_kind.items())
    nights = "\n".join(
        f"| {r.repo} | {r.seed} | {r.pairs['agent']} + {r.pairs['merged_fix']} | {r.conventions.base.rate:.0%} -> "
        f"{r.conventions.adapted.rate:.0%} of {r.conventions.tasks} | {r.base_skills.base.rate:.0%} -> "
        f"{r.base_skills.adapted.rate:.0%} of {r.base_skills.tasks} |"
        for r in bench.by_repository
    )
    size = (WEIGHTS / "model.safetensors").stat().st_size
    return f"""# Model card: the pocket model

A Qwen2-architecture transformer, {size / 2e6:.2f} M parameters ({s["layers"]} layers, width {s["hidden"]}),
bf16 safetensors of {size / 1e6:.1f} MB, trained from scratch for this project on its own generated episodes.
It knows nothing but the pocket world.

- Data: episodes of `eval/pocket/episodes.py`, generated on the fly from seed {s["seed"]}; function names of the
  pretraining split only; none of the house conventions or helper names of the eight pocket repositories.
- Training: {history["tokens"] / 1e6:.1f} M tokens in {history["step"]} steps, {history["seconds"] / 60:.0f} minutes of
  training time on two contended CPU cores; matrices by Muon ({s["muon_lr"]}), the rest by AdamW ({s["adam_lr"]}).
- Validation on held-out names, teacher-forced: loss on the agent's own words {last["val_own"]:.3f} nats,
  whole edit turns without a slip {last["val_edit_exact"]:.1%}.
- Regenerate: `make pocket` (resumes when interrupted) runs this recipe. It does not give these bytes: the token
  budget of the shipped run was shortened on the way, from 30 M to 24 M at 16.2 M, and the learning-rate schedule
  followed. The research log is `docs/pocket-log.md`.

## Gate numbers

{figures(bench)}

### Base skills by kind (bare model)

| kind | resolved |
|---|---|
{kinds}

### Every night

Examples are own successes + merged fixes of tasks that were over.

| repository | seed | examples | conventions, base -> adapted | base skills, base -> adapted |
|---|---|---|---|---|
{nights}
"""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bench", type=Path, required=True)
    parser.add_argument("--history", type=Path, default=Path("build/pocket/history.json"))
    parser.add_argument("--readme", type=Path, default=Path("README.md"))
    options = parser.parse_args()
    bench = PocketBench.model_validate_json(options.bench.read_text(encoding="utf-8"))
    history = json.loads(options.history.read_text(encoding="utf-8"))
    (WEIGHTS / "README.md").write_text(card(bench, history), encoding="utf-8")
    text = options.readme.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    tail = rest.partition(END)[2]
    options.readme.write_text(f"{head}{BEGIN}\n{figures(bench)}\n{END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
