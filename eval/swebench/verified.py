"""The tasks that were verified, and where: our own measurements, shipped as data, and the table that tells of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cache
from importlib import resources

from pydantic import BaseModel, ConfigDict

from eval.swebench.dataset import PUBLISHED

FILE = "verified.json"
COMMAND = "sleepyctl tasks verify --gold --write eval/swebench/verified.json"


class Measured(BaseModel):
    """One task: as it came out, on which Python; `why` is empty if it verified."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    python: str
    verified: bool
    seconds: float
    why: str = ""


class Verified(BaseModel):
    """What was measured, on which day (UTC, ISO) and kind of machine; ids that are missing were not asked about."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    date: str
    machine: str
    dataset: str
    tasks: dict[str, Measured]

    @property
    def ids(self) -> tuple[str, ...]:
        """The tasks that verified."""
        return tuple(identity for identity, task in self.tasks.items() if task.verified)


@cache
def shipped() -> Verified:
    """The measurements that came with this version."""
    return Verified.model_validate_json(resources.files("eval.swebench").joinpath(FILE).read_bytes())


def repo_of(identity: str) -> str:
    """The repository (owner/name) in a task's id."""
    return identity.rpartition("-")[0].replace("__", "/", 1)


def markdown(measured: Verified, totals: Mapping[str, int] | None = None) -> str:
    """The table of `docs/verified.md`; `totals` are the tasks of each repository (the published counts otherwise)."""
    totals = totals or {row.repo: row.tasks for row in PUBLISHED}
    lines = [
        "# Tasks that verify",
        "",
        "A SWE-Bench-CL task verifies on a machine if, graded natively, it is not resolved without its fix (while at least",
        "95 % of its PASS_TO_PASS tests pass, so that tests really ran) and is resolved with it. Only such tasks count for or",
        "against an agent.",
        f"Measured on {measured.date} ({measured.machine}) with `{COMMAND}`;",
        "this page is the output of `sleepyctl tasks verified --markdown`.",
        "",
        "| repository | tasks | tried | verified | Python |",
        "|---|---:|---:|---:|---|",
    ]
    for repo, total in totals.items():
        there = [task for identity, task in measured.tasks.items() if repo_of(identity) == repo]
        good = sum(task.verified for task in there)
        pythons = ", ".join(sorted({task.python for task in there if task.python})) or "-"
        lines.append(f"| {repo} | {total} | {len(there)} | {good} | {pythons} |")
    lines.append(f"| all | {sum(totals.values())} | {len(measured.tasks)} | {len(measured.ids)} | |")
    failed = {identity: task for identity, task in measured.tasks.items() if not task.verified}
    lines += ["", "Tried and not verified:", "", "| task | Python | seconds | why |", "|---|---|---:|---|"]
    for identity, task in failed.items():
        why = " ".join(task.why.split()).replace("|", "/")
        lines.append(f"| {identity} | {task.python or '-'} | {task.seconds:.0f} | {why} |")
    untried = Counter(dict(totals)) - Counter(repo_of(identity) for identity in measured.tasks)
    if untried:
        lines += ["", f"Not tried: {', '.join(f'{count} of {repo}' for repo, count in untried.items())}."]
    return "\n".join(lines) + "\n"
