"""`sleepyctl nights show`: a verdict explained in a screenful, from the night's row and its journal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from consolidation.lessons import TRAIN
from memory.nights import Night
from memory.store import Store

HEAD = 8
"""Hex digits of a hash that are shown to people."""
FIGURES = ("tasks", "of", "base", "candidate", "lost", "gained", "drop", "drop_bound", "decision")
MEASURED = ("acc", "forward_transfer", "forgetting_chaudhry_net", "backward_transfer")
"""Metrics of a night that are shown to people."""
DECISIONS = {1: "accepted", -1: "rejected", 2: "undecided", 0: "not decided"}


class Trained(BaseModel):
    """One training of a night. `candidates` are the adapters that it put forward, the last one from its end."""

    model_config = ConfigDict(extra="forbid")

    scope: str
    seed: int
    new: int
    past: int
    rehearsal: int
    rank: int
    loss_first: float
    loss_last: float
    cost: dict[str, float]
    notes: dict[str, float]
    previous: str | None
    candidates: list[str]


class Claim(BaseModel):
    """How a claim came out. `figures` are all its numbers: items examined and there were, scores, the drop and its bound."""

    model_config = ConfigDict(extra="forbid")

    name: str
    decision: str
    figures: dict[str, float]


class NightShown(BaseModel):
    """Everything that explains a night's verdict; what it had not come to is empty."""

    model_config = ConfigDict(extra="forbid")

    number: int
    id: str
    started_at: datetime
    ended_at: datetime | None
    strategy: str
    config_hash: str
    pairs: int
    attempts: int
    sources: dict[str, int]
    formats: dict[str, int]
    made_by: dict[str, int]
    kept: int
    tokens: int
    dropped: dict[str, int]
    dropped_examples: dict[str, list[str]]
    trained: list[Trained]
    refused: dict[str, str]
    """Scopes that could not be trained, and why."""
    chosen: str
    choice_scores: dict[str, float]
    claims: list[Claim]
    retained: dict[str, tuple[float, float]]
    """Mean losses (nats per own token) of the pairs of past nights, under the base and under the candidate."""
    measured: dict[str, float | None]
    """What the life measures by after this night."""
    promoted: bool | None
    why: str
    error: str
    live_before: dict[str, str]
    examined: dict[str, str]
    live_after: dict[str, str]
    steps: list[str]


def night_shown(store: Store, identity: str) -> NightShown | None:
    """The night of this id, or of this number (from 1, by start), or the `last` one; None if there is none."""
    nights = store.nights()
    for number, night in enumerate(nights, 1):
        if identity in (night.id, str(number)) or (identity == "last" and number == len(nights)):
            return _shown(store, number, night)
    return None


def _shown(store: Store, number: int, night: Night) -> NightShown:
    names = [name for name, _ in store.steps_of_night(night.id)]
    steps = dict(zip(names, store.step_results(night.id), strict=True))
    pairs, kept = steps.get("pairs", {}), steps.get("filter", {})
    chosen, guards = steps.get("choose", {}), steps.get("guards", {})
    verdict = night.verdict
    return NightShown(
        number=number,
        id=night.id,
        started_at=night.started_at,
        ended_at=night.ended_at,
        strategy=night.strategy,
        config_hash=night.config_hash,
        pairs=pairs.get("pairs", night.pairs),
        attempts=pairs.get("attempts_told", 0),
        sources=pairs.get("source", night.sources),
        formats=pairs.get("format", {}),
        made_by=pairs.get("made_by", {}),
        kept=len(kept.get("kept", ())),
        tokens=kept.get("tokens", 0),
        dropped=kept.get("dropped", {}),
        dropped_examples=kept.get("shown", {}),
        trained=[_trained(name, steps[name]) for name in names if name.startswith(TRAIN) and "cost" in steps[name]],
        refused={n.removeprefix(TRAIN): steps[n]["refused"] for n in names if n.startswith(TRAIN) and "refused" in steps[n]},
        chosen=str(chosen.get("winner", "")),
        choice_scores=chosen.get("scores", {}),
        retained=steps.get("retained", {}).get("losses", {}),
        measured=steps.get("metrics", {}).get("values", {}),
        claims=_claims(verdict.numbers if verdict is not None else {}),
        promoted=None if verdict is None else verdict.promoted,
        why=verdict.why if verdict is not None else "",
        error=night.error,
        live_before=steps.get("before", {}).get("live", {}),
        examined=guards.get("artefacts", {}),
        live_after=steps.get("publish", {}).get("live", {}),
        steps=names,
    )


def _trained(name: str, given: Mapping[str, Any]) -> Trained:
    scope = name.removeprefix(TRAIN).partition(" seed ")[0]
    same = {key: given[key] for key in Trained.model_fields if key in given}
    return Trained(scope=scope, candidates=list(given["adapters"]), **same)


def _claims(numbers: Mapping[str, float]) -> list[Claim]:
    claims: dict[str, dict[str, float]] = {}
    for name, value in numbers.items():
        claim, _, figure = name.rpartition(".")
        claims.setdefault(claim, {})[figure] = value
    return [
        Claim(name=name, decision=DECISIONS.get(int(figures["decision"]), "") if "decision" in figures else "", figures=figures)
        for name, figures in claims.items()
    ]


def told(night: NightShown) -> Iterator[str]:
    """The night for people, line by line."""
    ended = f"{night.ended_at:%H:%M}" if night.ended_at is not None else "not over"
    yield f"night {night.number} ({night.id}), {night.started_at:%Y-%m-%d %H:%M} to {ended} UTC, strategy {night.strategy}"
    yield f"data       {night.pairs} pairs of {night.attempts} attempts ({_counts(night.sources)})"
    how = f"format {_counts(night.formats)}; made by {_counts(night.made_by)}"
    yield f"           {how}; kept {night.kept}, {night.tokens:,} tokens"
    yield f"dropped    {_counts(night.dropped) or 'none'}"
    for reason, examples in night.dropped_examples.items():
        yield f"           {reason}: {examples[0]}{' …' if len(examples) > 1 else ''}"
    for each in night.trained:
        yield from _told_training(each)
    for scope, why in night.refused.items():
        yield f"refused    {scope}: {why}"
    if len(night.choice_scores) > 1:
        scores = ", ".join(f"{name} {score:.3f}" for name, score in night.choice_scores.items())
        yield f"chosen     {night.chosen} of {scores}"
    for claim in night.claims:
        if "/" in claim.name:
            continue
        yield f"guard      {claim.name}: {_figures(claim)}"
        parts = [part for part in night.claims if part.name.startswith(f"{claim.name}/")]
        if parts:
            yield f"           {', '.join(map(_score, parts))}"
    if night.retained:
        losses = ", ".join(f"{name} {before:.3f} -> {after:.3f}" for name, (before, after) in night.retained.items())
        yield f"retained   loss of what past nights taught, base -> candidate: {losses}"
    word = {True: "promoted", False: "not promoted", None: "none yet"}[night.promoted]
    yield f"decision   {word}: {night.why or night.error or 'the night is open, at ' + (night.steps or ['its beginning'])[-1]}"
    if measures := [f"{name} {value:+.3f}" for name in MEASURED if (value := night.measured.get(name)) is not None]:
        yield f"measured   {', '.join(measures)}; `sleepyctl metrics` tells all"
    if night.live_before or night.live_after or night.examined:
        yield f"before     {_table(night.live_before)}"
        yield f"examined   {_table(night.examined)}"
        yield f"now        {_table(night.live_after or night.live_before)}"
    yield f"hashes     configuration {night.config_hash}"


def _told_training(each: Trained) -> Iterator[str]:
    learnt = f"{each.new} new, {each.past} past, {each.rehearsal} rehearsed; rank {each.rank}"
    cost = f"{each.cost['tokens']:,.0f} tokens, {each.cost['seconds']:.0f} s + {each.cost['extra_seconds']:.0f} s beside"
    loss = f"loss {each.loss_first:.3f} -> {each.loss_last:.3f}"
    made = ", ".join(identity[:HEAD] for identity in each.candidates)
    yield f"trained    {each.scope}, seed {each.seed}: {learnt}; {loss}; {cost}; -> {made}"
    if each.notes:
        yield f"           {', '.join(f'{name} {value:g}' for name, value in each.notes.items())}"


def _figures(claim: Claim) -> str:
    found = claim.figures
    if "drop" not in found:
        return ", ".join(f"{name} {value:g}" for name, value in found.items())
    score = f"base {found.get('base', 0):g}, candidate {found.get('candidate', 0):g}"
    if "lost" in found:
        score += f", {found['lost']:g} lost, {found['gained']:g} gained"
    drop = f"drop {found['drop']:+.1%}, at most {found['drop_bound']:+.1%}"
    rest = ", ".join(f"{name} {value:g}" for name, value in found.items() if name not in FIGURES)
    of = f" of {found['of']:g}" if "of" in found else ""
    return f"{claim.decision}; {found.get('tasks', 0):g}{of} items; {score}; {drop}{'; ' + rest if rest else ''}"


def _score(part: Claim) -> str:
    figures = part.figures
    return f"{part.name.partition('/')[2]} {figures['base']:g} -> {figures['candidate']:g} of {figures['tasks']:g}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _table(table: Mapping[str, str]) -> str:
    return ", ".join(f"{scope} {identity[:HEAD]}" for scope, identity in table.items()) or "the bare base"
