"""What earlier nights taught, measured without playing: the losses of their pairs under the base and under a candidate."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from contextlib import suppress
from pathlib import Path
from statistics import fmean

from consolidation.encoding import NothingTaught, item_of
from consolidation.pairs import Encoder, Pair
from consolidation.trainers.base import Example, Preference
from eval.errors import EvalError
from eval.retention import PastNight

Loss = Callable[[Sequence[Example], Path | None], Sequence[float]]
"""Nats per own token of each example under an adapter, or under the base: `Trainer.loss` of one job."""


def night_losses(
    nights: Sequence[PastNight],
    pairs: Callable[[PastNight], Sequence[Pair]],
    encode: Encoder,
    loss: Loss,
    adapter: Callable[[str], Path | None],
    context: int,
    most: int = 32,
) -> dict[str, tuple[float, float]]:
    """Mean losses (nats per own token) of the first `most` pairs of each night: under the base, and under the candidate.

    `adapter` says what serves a repository. Of a preference what was chosen counts. Pairs longer than `context` tokens, and
    nights without a pair, are left out.
    """
    found: dict[str, tuple[float, float]] = {}
    for night in nights:
        before: list[float] = []
        after: list[float] = []
        chosen = list(pairs(night))[:most]
        for repo in sorted({pair.repo for pair in chosen}):
            if examples := _examples([pair for pair in chosen if pair.repo == repo], encode, context):
                before += loss(examples, None)
                after += loss(examples, adapter(repo))
        if before:
            found[f"night {night.number}"] = (fmean(before), fmean(after))
    return found


def _examples(pairs: Sequence[Pair], encode: Encoder, context: int) -> list[Example]:
    found: list[Example] = []
    for pair in pairs:
        with suppress(NothingTaught):
            item = item_of(pair, encode)
            example = item.chosen if isinstance(item, Preference) else item
            found += [example] if len(example.ids) <= context else []
    return found


def pairs_of_night(path: Path, attempts: Set[str]) -> list[Pair]:
    """The pairs of a night's file that came of these attempts; none if the file was removed to make room.

    Raises:
        EvalError: it is damaged.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        pairs = [Pair.model_validate_json(line) for line in lines if line]
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        told = f"{path}: cannot be read ({str(error)[:200]}); delete it, and the losses of this night are left out"
        raise EvalError(told) from error
    return [pair for pair in pairs if pair.trajectory_id in attempts]
