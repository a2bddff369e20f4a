"""What may be trained on. Each pair that may not is dropped for one reason, and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field

from consolidation.encoding import NothingTaught, item_of, taught_turns
from consolidation.errors import ConsolidationError
from consolidation.leaks import HeldOut
from consolidation.near import Close
from consolidation.pairs import Encoder, Pair
from consolidation.shortcuts import shortcut, told_green, turns_of
from consolidation.strategies.seam import Sample
from consolidation.trainers.base import Example, Preference

SHOWN = 5
"""Dropped pairs that are named for each reason."""


class FilterConfig(BaseModel):
    """What is dropped."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    overlap: float = Field(default=0.7, ge=0, le=1)
    """Drop pairs that hold this share of the word n-grams of a held-out issue, fix or test; 0 for never."""
    near_duplicate: float = Field(default=0.9, ge=0, le=1)
    """Drop pairs that teach the calls of one before them in so much the same words (Jaccard similarity); 0 for never."""
    unparseable: bool = True
    """Drop pairs that teach a turn which the agent's own protocol cannot read."""
    shortcuts: bool = True
    """Drop pairs that teach to submit what no passing test has seen, or to change the tests instead of the code."""
    mastered: float = Field(default=0.0, ge=0)
    """Drop pairs whose mean loss under the base (nats per own token) is below this; 0 for never. It costs a pass over all."""


@dataclass
class Filtered:
    """What passed, encoded, in order; how many were dropped for which reason, and where the first of them come from."""

    samples: list[Sample] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    shown: dict[str, list[str]] = field(default_factory=dict)

    def drop(self, pair: Pair, why: str) -> None:
        """Count a pair that was dropped."""
        self.dropped[why] += 1
        named = self.shown.setdefault(why, [])
        if len(named) < SHOWN:
            named.append(
                f"{pair.task_id}, attempt {pair.trajectory_id}, format {pair.format} of {pair.source} by {pair.made_by}"
            )


@dataclass(frozen=True)
class Filters:
    """Drops what must not or need not be learnt, for the first of these reasons that holds.

    `not_verified`: the agent's own attempt did not resolve its task, as `verified` has it by the attempt's id (a merged fix
    was carried out and tested when it was told). `leak`: a held-out task by id or issue. `duplicate`: said before.
    `empty`: teaches no word. `unparseable` and `shortcut`: see `FilterConfig`. `leak_overlap`: holds a held-out task's text.
    `too_long`: more tokens than `context`, none is ever cut. `near_duplicate`, `mastered`: see `FilterConfig`;
    `losses` gives nats per own token under the base.

    Old episodes that are rehearsed are dropped as leak, leak_overlap, too_long and empty alone.
    """

    config: FilterConfig
    encode: Encoder
    context: int
    held_out: HeldOut = field(default_factory=HeldOut)
    losses: Callable[[list[Example]], list[float]] | None = None
    verified: Callable[[str], bool] | None = None

    def filtered(self, pairs: Iterable[Pair]) -> Filtered:
        """The pairs that may be trained on.

        Raises:
            ConsolidationError: `mastered` is to be dropped, and nothing tells the losses.
        """
        if self.config.mastered and self.losses is None:
            raise ConsolidationError("filters: mastered needs the base's losses; give them, or set it to 0")
        result = Filtered()
        known: set[str] = set()
        kept: list[Sample] = []
        for pair in pairs:
            rehearsed = pair.source == "rehearsal"
            if why := self._by_words(pair, rehearsed, known):
                result.drop(pair, why)
                continue
            try:
                item = item_of(pair, self.encode)
            except NothingTaught:
                result.drop(pair, "empty")
                continue
            if item.width > self.context:
                result.drop(pair, "too_long")
                continue
            known.add(pair.content)
            kept.append(Sample(pair, item))
        result.samples = self._learnable(self._distinct(kept, result), result)
        return result

    def _by_words(self, pair: Pair, rehearsed: bool, known: set[str]) -> str:
        """Why a pair is dropped for what it says, if it is; cheap reasons first."""
        if not rehearsed and pair.source == "agent" and self.verified is not None and not self.verified(pair.trajectory_id):
            return "not_verified"
        if named(pair, self.held_out):
            return "leak"
        if not rehearsed:
            if pair.content in known:
                return "duplicate"
            turns = turns_of(pair)
            if not taught_turns(pair):
                return "empty"
            if self.config.unparseable and any(turn.taught and turn.call is None for turn in turns):
                return "unparseable"
            if self.config.shortcuts and shortcut(turns, told_green(pair)):
                return "shortcut"
        return "leak_overlap" if overlaps(pair, self.held_out, self.config.overlap) else ""

    def _distinct(self, samples: Sequence[Sample], result: Filtered) -> Iterator[Sample]:
        """Without those that are close to one before them."""
        if not self.config.near_duplicate:
            yield from samples
            return
        fresh = [sample.pair for sample in samples if sample.pair.source != "rehearsal"]
        close = iter(Close(self.config.near_duplicate).repeats(fresh))
        for sample in samples:
            if sample.pair.source != "rehearsal" and next(close):
                result.drop(sample.pair, "near_duplicate")
            else:
                yield sample

    def _learnable(self, samples: Iterable[Sample], result: Filtered) -> list[Sample]:
        """Without what the base knows already."""
        samples = list(samples)
        fresh = [sample for sample in samples if sample.pair.source != "rehearsal"]
        if not (self.config.mastered and self.losses and fresh):
            return samples
        examples = [s.item.chosen if isinstance(s.item, Preference) else s.item for s in fresh]
        known = {id(s) for s, loss in zip(fresh, self.losses(examples), strict=True) if loss < self.config.mastered}
        for sample in samples:
            if id(sample) in known:
                result.drop(sample.pair, "mastered")
        return [sample for sample in samples if id(sample) not in known]


def named(pair: Pair, held_out: HeldOut) -> bool:
    """Whether a pair is of a held-out task, by its id or by the words of its issue."""
    return held_out.names(pair.task_id, [text for role, text in pair.messages if role == "user"])


def overlaps(pair: Pair, held_out: HeldOut, share: float) -> bool:
    """Whether a pair holds this share of the n-grams of a held-out text; never where `share` is 0."""
    said = [*(text for _, text in pair.messages), pair.rejected]
    return bool(share and held_out.texts) and held_out.overlap(pair.repo, said)[0] >= share


def within_tokens(samples: Sequence[Sample], tokens: int) -> list[Sample]:
    """As many of the samples as fit so many tokens (0: all), in their order.

    The attempts take turns, in the order of their first samples, and give theirs in order; what does not fit is passed over.
    """
    if not tokens:
        return list(samples)
    waiting: dict[str, list[int]] = {}
    for number, sample in enumerate(samples):
        waiting.setdefault(sample.pair.trajectory_id, []).append(number)
    taken: list[int] = []
    used = 0
    for turn in range(max(map(len, waiting.values()), default=0)):
        for numbers in waiting.values():
            if turn < len(numbers) and used + samples[numbers[turn]].item.tokens <= tokens:
                taken.append(numbers[turn])
                used += samples[numbers[turn]].item.tokens
    return [samples[number] for number in sorted(taken)]
