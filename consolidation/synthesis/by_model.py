"""Pairs in a model's words: it asks, reasons and explains; every call that is taught is the attempt's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import agent
from agent.errors import ModelError, ModelUnavailable
from agent.model import Completion, Message, Sampling
from agent.shown import opening
from consolidation.errors import SynthesisError
from consolidation.pairs import Format, Pair
from consolidation.synthesis.forms import Point, metadata, points_of
from consolidation.synthesis.offline import OfflineSynthesiser, failed_in, pair_of
from consolidation.synthesis.points import deeds_of, lasting, tongue_of
from consolidation.synthesis.remedies import Better, after_failures, at_parting, at_wrong_change, comparable
from consolidation.synthesis.seam import Lived, Synthesiser
from consolidation.synthesis.words import Told, asked_for, objects, words
from memory.hashing import content_hash

RULES = 1
PROMPT = Path(agent.__file__).parent / "prompts" / "synthesis-v1.txt"
EACH_TOKENS, MORE_TOKENS, MOST_TOKENS = 250, 250, 8_000
MAX_QUESTION, MAX_REASONING = 600, 1_500
JUDGED = 0.9
"""Confidence that a turn was a mistake where a model says so too."""


class Teller(Protocol):
    """What it takes of a model to make pairs (see `agent.model.Model`)."""

    name: str

    @property
    def fingerprint(self) -> str:
        """See `Model`."""
        ...

    def complete(
        self, conversations: Sequence[Sequence[Message]], sampling: Sampling, keys: Sequence[str] = ()
    ) -> list[Completion]:
        """See `Model`."""
        ...

    def forget(self, keys: Sequence[str]) -> None:
        """See `Model`."""
        ...


@dataclass(frozen=True)
class _Scope:
    """What a model may name: turns of the success, or a failed attempt (from 0) and its turn."""

    lived: Lived
    points: Mapping[int, Point]
    mistakes: Mapping[tuple[int, int], Better]

    @classmethod
    def of(cls, lived: Lived, how: Format) -> _Scope:
        taught = lived.taught
        deeds, desk = deeds_of(taught)
        right = lasting(deeds, desk)
        points = {point.deed.turn: point for point in points_of(taught.prompt, deeds, right)} if how in ("A", "B") else {}
        mistakes: dict[tuple[int, int], Better] = {}
        for number, failed in enumerate(lived.failed if how in ("C", "D") else ()):
            if not comparable(taught, failed):
                continue
            if how == "D":
                found: list[Better | None] = [*after_failures(right, failed)]
            else:
                found = [at_wrong_change(right, failed), at_parting(taught, right, deeds, failed)]
            for better in found:
                if better is not None and better.said != better.instead:
                    mistakes.setdefault((number, better.turn), better)
        return cls(lived, points, mistakes)

    @property
    def empty(self) -> bool:
        return not self.points and not self.mistakes


class ModelSynthesiser:
    """Has a model that speaks prose make pairs of formats A to E; T needs none, and is told by the rules.

    The model is shown what the agent said and saw, shortened, and not why it was graded so. It names turns; their calls are
    those that were carried out. In C its words are not used: it says which of the contrasts that the rules found were
    mistakes. `problems` counts, by reason, what it said that is of no use; that gives fewer pairs. `unanswered` are the
    attempts of which it said nothing, and may another time. A model that is `batched` gets the questions of a whole night at
    once (`prepare`).
    """

    def __init__(self, model: Teller, temperature: float = 0.0, seed: int = 0) -> None:
        self.unanswered: set[str] = set()
        self._problems: Counter[str] = Counter()
        self._model, self._temperature, self._seed = model, temperature, seed
        self._system = PROMPT.read_text(encoding="utf-8").strip()
        self._offline = OfflineSynthesiser()
        self._answers: dict[tuple[str, Format, int], str] = {}

    @property
    def name(self) -> str:
        """The model, its prompt and the rules.

        Raises:
            ModelError: the model has to be asked, and is away.
        """
        said = content_hash([self._model.fingerprint, self._system, self._temperature, self._seed, RULES])
        return f"{self._model.name}/{said}"

    @property
    def problems(self) -> Counter[str]:
        """What was of no use, and what the model itself counts (`AnthropicBatches.problems`)."""
        return self._problems + Counter(getattr(self._model, "problems", {}))

    def close(self) -> None:
        """Close the model's connections."""
        close = getattr(self._model, "close", None)
        if close is not None:
            close()

    def prepare(self, day: Sequence[Lived], how: Format, budget: int) -> None:
        """Ask for all that a night will want, where that costs less.

        Raises:
            ModelUnavailable: the model is away, or not ready; what was asked is not asked again.
            SynthesisError: it cannot be used.
        """
        if how == "T" or budget < 1:
            return
        try:
            batched = getattr(self._model, "batched", False)
        except ModelUnavailable:
            raise
        except ModelError as error:
            raise SynthesisError(str(error)) from error
        wanted = [lived for lived in day if (lived.taught.id, how, budget) not in self._answers and self._can(lived, how)]
        if batched and wanted:
            self._ask(wanted, how, budget)

    def pairs(self, lived: Lived, how: Format, budget: int) -> list[Pair]:
        """See the seam.

        Raises:
            ModelUnavailable: the model is away; it may be back later.
        """
        if how == "T":
            return self._offline.pairs(lived, how, budget)
        scope = _Scope.of(lived, how)
        if budget < 1 or not self._can(lived, how):
            return []
        if (lived.taught.id, how, budget) not in self._answers:
            self._ask([lived], how, budget)
        answer = self._answers.pop((lived.taught.id, how, budget))
        if not answer.strip():
            self._problems["no_answer"] += 1
            self.unanswered.add(lived.taught.id)
            return []
        self.unanswered.discard(lived.taught.id)
        return self._read(answer, scope, how, budget)

    def _can(self, lived: Lived, how: Format) -> bool:
        return bool(lived.taught.steps) and (how == "E" or not _Scope.of(lived, how).empty)

    def _ask(self, day: Sequence[Lived], how: Format, budget: int) -> None:
        asked = []
        for lived in day:
            scope = _Scope.of(lived, how)
            text = asked_for(lived, how, budget, sorted(scope.points), sorted(scope.mistakes))
            asked.append([Message("system", self._system), Message("user", text)])
        keys = [f"synthesis-{lived.taught.id}-{how}" for lived in day]
        most = min(MOST_TOKENS, MORE_TOKENS + EACH_TOKENS * budget)
        try:
            answers = self._model.complete(asked, Sampling(self._temperature, most, self._seed), keys)
        except ModelUnavailable:
            raise
        except ModelError as error:
            raise SynthesisError(f"{error}; choose another source of pairs, or format T, until then") from error
        finally:
            self._model.forget(keys)
        for lived, answer in zip(day, answers, strict=True):
            self._answers[lived.taught.id, how, budget] = answer.text

    def _read(self, answer: str, scope: _Scope, how: Format, budget: int) -> list[Pair]:
        made: dict[str, Pair] = {}
        told = list(objects(answer))
        if not told:
            self._problems["no_json"] += 1
        forms: dict[Format, Callable[[Told], Iterator[Pair | str]]] = {
            "A": lambda one: _asked(scope, one, reasoned=False),
            "B": lambda one: _asked(scope, one, reasoned=True),
            "C": lambda one: _judged(scope, one),
            "D": lambda one: _diagnosed(scope, one),
            "E": lambda one: self._in_context(scope.lived, one),
        }
        said: set[str] = set()
        for one in told:
            for found in forms[how](one):
                if isinstance(found, str):
                    self._problems[found] += 1
                elif (key := " ".join(f"{found.messages} {found.rejected}".lower().split())) in said:
                    self._problems["repeated"] += 1
                elif len(made) >= budget:
                    self._problems["too_many"] += 1
                else:
                    said.add(key)
                    made[found.content] = found.model_copy(
                        update={"format": how, "made_by": self.name, "failed": failed_in(scope.lived, how)}
                    )
        return list(made.values())

    def _in_context(self, lived: Lived, one: Told) -> Iterator[Pair | str]:
        """The whole attempt, below what the rules and the model know of the project."""
        if not (context := words(one.context, MAX_REASONING)):
            yield "no_words"
            return
        about = f"{metadata(lived.taught.repo, deeds_of(lived.taught)[0])}\n{context}"
        prompt = f"{about}\n\n{lived.taught.prompt}"
        told = lived.taught.model_copy(update={"prompt": prompt})
        yield from self._offline.pairs(Lived(lived.task, told, lived.source), "T", 1)[:1]


def _asked(scope: _Scope, one: Told, *, reasoned: bool) -> Iterator[Pair | str]:
    """A question, answered by the call of the turn that was named."""
    point = scope.points.get(one.turn)
    question, reasoning = words(one.question, MAX_QUESTION), words(one.reasoning, MAX_REASONING)
    tongue = tongue_of(scope.lived.taught)
    if point is None:
        yield "no_turn"
    elif not (reasoning if reasoned else question):
        yield "no_words"
    else:
        call = point.deed.call
        said = tongue.explain(reasoning, call) if reasoned else tongue.say(call)
        if tongue.read(said) != call:
            yield "unparseable"
            return
        *before, first = opening(scope.lived.taught)
        text = "\n\n".join(part for part in (first.content, point.asked[0], question) if part)
        yield pair_of(scope.lived, [*before, Message(first.role, text)], said)


def _judged(scope: _Scope, one: Told) -> Iterator[Pair | str]:
    better = scope.mistakes.get((one.attempt, one.turn))
    if better is None:
        yield "no_turn"
    else:
        yield pair_of(scope.lived, better.before, better.said, better.instead, max(JUDGED, better.confidence))


def _diagnosed(scope: _Scope, one: Told) -> Iterator[Pair | str]:
    better = scope.mistakes.get((one.attempt, one.turn))
    diagnosis = words(one.diagnosis, MAX_REASONING)
    tongue = tongue_of(scope.lived.taught)
    if better is None:
        yield "no_turn"
    elif not diagnosis:
        yield "no_words"
    else:
        call = tongue.read(better.said)
        said = tongue.explain(diagnosis, call) if call is not None else ""
        if call is None or tongue.read(said) != call:
            yield "unparseable"
            return
        yield pair_of(scope.lived, better.before, said)


def pairs_of_night(synthesiser: Synthesiser, day: Sequence[Lived], how: Format, budget: int) -> list[Pair]:
    """The pairs of all that a night may tell, in order; a synthesiser that does better with all of it at once is given it.

    Raises:
        ModelUnavailable: the model that makes them is away; what was made is kept, and the night can go on.
        SynthesisError: it cannot be used.
    """
    prepare = getattr(synthesiser, "prepare", None)
    if prepare is not None:
        prepare(day, how, budget)
    return [pair for lived in day for pair in synthesiser.pairs(lived, how, budget)]
