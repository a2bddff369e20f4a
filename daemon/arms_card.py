"""The table of `sleepyctl demo --arms` in docs/memory.md, from the file that the demo leaves in its folder.

python -m daemon.arms_card DEMO_FOLDER/demo.json
"""

from __future__ import annotations

import sys
from pathlib import Path

from daemon.days import group
from daemon.demo import DemoResult

PAGE = Path(__file__).resolve().parent.parent / "docs" / "memory.md"
BEGIN = "<!-- arms: begin (written by python -m daemon.arms_card) -->"
END = "<!-- arms: end -->"


def card(result: DemoResult) -> str:
    """The table, with what it was measured on."""
    rows = []
    for arm in result.arms:
        convention, skill = group(arm.day, True), group(arm.day, False)
        rows.append(
            f"| {arm.arm} | {convention.resolved} of {convention.tasks} | {skill.resolved} of {skill.tasks} "
            f"| {arm.change * 100:+.1f} points ({arm.change_low * 100:+.1f} to {arm.change_high * 100:+.1f}) "
            f"| {arm.told} | {arm.memories} |"
        )
    size = result.day2.tasks
    return "\n".join(
        [
            "| arm | house conventions | base skills | change against `base` (95 %) | attempts told | memories |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            f"Seed {result.seed}, {size} tasks a day, one night ({result.night.verdict}), pocket model; one seed, no claim.\n"
            f"Configuration {result.config_hash}. Command: `sleepyctl demo --arms --seed {result.seed} "
            f"--tasks-per-day {size}`.\n"
            "Pocket results, never SWE-bench results.",
        ]
    )


def main(source: Path, page: Path = PAGE) -> None:
    """Write the table from the demo's result at `source` into `page`."""
    result = DemoResult.model_validate_json(source.read_text(encoding="utf-8"))
    head, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    page.write_text(f"{head}{BEGIN}\n{card(result)}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
