"""Pairs that the served, adapted model makes itself, each verified by the base without an adapter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from agent.errors import ModelError, ModelUnavailable
from agent.model import Message, Model, Sampling
from agent.shown import shown
from agent.turns import Call
from consolidation.errors import SynthesisError
from consolidation.pairs import Encoder, Format, Pair
from consolidation.synthesis.by_model import ModelSynthesiser
from consolidation.synthesis.offline import OfflineSynthesiser, pair_of
from consolidation.synthesis.points import CHANGES, Deed, deeds_of, lasting, located, path_of, replaced, tongue_of
from consolidation.synthesis.seam import Lived
from consolidation.synthesis.verified import Loss, verify
from memory.hashing import content_hash

RULES = 1
LOOKS = frozenset({"search", "view", "map", "diff"})
MAX_TOKENS = 512


class OwnTurns:
    """Turns that a model of the terse protocol says at the points of a success, where they do what was done there.

    It gives format A alone: such a model was trained to make calls, and has no words to ask, reason or explain with. A sample
    is kept if it is an edit that leaves the very same lines by other words, or if it makes at once a call that the success
    made only later, after looks that it needs not (an edit only of lines that had been seen by then). What no test has seen
    is not kept: a different edit may be as right, and is left out all the same.
    """

    def __init__(self, model: Model, temperature: float, samples: int, seed: int) -> None:
        self.problems: Counter[str] = Counter()
        self._model, self._temperature, self._samples, self._seed = model, temperature, samples, seed

    @property
    def name(self) -> str:
        """The model with its adapter, and how it is sampled."""
        how = content_hash([self._model.fingerprint, self._temperature, self._samples, self._seed, RULES])
        return f"{self._model.name}/{how}"

    def pairs(self, lived: Lived, how: Format, budget: int) -> list[Pair]:
        """See the seam."""
        taught = lived.taught
        if how != "A":
            self.problems["no_words"] += 1
            return []
        deeds, desk = deeds_of(taught)
        right = lasting(deeds, desk)
        points = [deed for deed in deeds if deed.call.tool in LOOKS or deed in right]
        found: dict[str, tuple[int, Pair]] = {}
        for number in range(self._samples if points and budget > 0 else 0):
            asked = [shown(taught, deed.turn) for deed in points]
            keys = [f"own-{taught.id}-{deed.turn}" for deed in points]
            try:
                answers = self._model.complete(asked, Sampling(self._temperature, MAX_TOKENS, self._seed + number), keys)
            except ModelUnavailable:
                raise
            except ModelError as error:
                raise SynthesisError(f"{error}; choose another source of pairs, or format T, until then") from error
            finally:
                self._model.forget(keys)
            for deed, messages, answer in zip(points, asked, answers, strict=True):
                if (pair := self._kept(lived, deeds, deed, messages, answer.text.strip("\n"))) is not None:
                    found.setdefault(pair.content, (deed.turn, pair))
        chosen = sorted(found.values(), key=lambda one: one[0])[:budget]
        return [pair.model_copy(update={"format": how, "made_by": self.name}) for _, pair in chosen]

    def _kept(self, lived: Lived, deeds: Sequence[Deed], deed: Deed, messages: Sequence[Message], said: str) -> Pair | None:
        call = tongue_of(lived.taught).read(said)
        if call is None:
            self.problems["unparseable"] += 1
        elif call == deed.call:
            self.problems["as_before"] += 1
        elif not (_same_effect(call, deed) or _sooner(call, deed, deeds)):
            self.problems["another_effect"] += 1
        else:
            return pair_of(lived, messages, said)
        return None


def _same_effect(call: Call, deed: Deed) -> bool:
    """Whether an edit leaves the lines that the verified one left."""
    if call.tool != "edit" or deed.call.tool != "edit" or path_of(call) != path_of(deed.call) or not deed.start:
        return False
    start, end = located(deed.before, call)
    put = tuple(call.body.split("\n")) if call.body else ()
    after = replaced(deed.before, start, end, put, deed.turn) if start else {}
    return bool(after) and {n: text for n, (text, _) in after.items()} == {n: text for n, (text, _) in deed.after.items()}


def _sooner(call: Call, deed: Deed, deeds: Sequence[Deed]) -> bool:
    """Whether a call is a later one of the success, and all between is looking that it does not rest on."""
    at = deeds.index(deed)
    for number, later in enumerate(deeds[at:], at):
        if number > at and later.call == call:
            if call.tool not in CHANGES:
                return call.tool in LOOKS
            known = next((d.after for d in reversed(deeds[:at]) if path_of(d.call) == path_of(call)), {})
            return bool(later.start) and located(known, call) == (later.start, later.end)
        if later.call.tool not in LOOKS:
            return False
    return False


class SelfSynthesiser:
    """Has the served model make the pairs: in its words where it speaks prose, else by its own turns (`OwnTurns`).

    Every pair is verified by the base (`verify`), best over a whole night (`prepare`), where questions of other tasks are at
    hand; `problems` counts those `unverified`. T is told by the rules, and needs neither.
    """

    def __init__(
        self,
        model: Model,
        encode: Encoder,
        loss: Loss,
        *,
        context: int = 0,
        temperature: float = 0.7,
        samples: int = 4,
        seed: int = 0,
    ) -> None:
        self._unverified = 0
        self._encode, self._loss, self._context = encode, loss, context
        terse = model.speaks == "terse"
        self._maker: OwnTurns | ModelSynthesiser = (
            OwnTurns(model, temperature, samples, seed) if terse else ModelSynthesiser(model, temperature, seed)
        )
        self._ready: dict[tuple[str, Format, int], list[Pair]] = {}

    @property
    def name(self) -> str:
        """The maker's, and that it is verified."""
        return f"self({self._maker.name})+verified"

    @property
    def problems(self) -> Counter[str]:
        """Those of the maker, and how many pairs were `unverified`."""
        return self._maker.problems + Counter(unverified=self._unverified)

    @property
    def unanswered(self) -> set[str]:
        """Those of the maker."""
        return set(getattr(self._maker, "unanswered", ()))

    def prepare(self, day: Sequence[Lived], how: Format, budget: int) -> None:
        """Make and verify the pairs of a night together."""
        if how == "T":
            return
        made = {lived.taught.id: self._maker.pairs(lived, how, budget) for lived in day}
        passed = self.check([pair for pairs in made.values() for pair in pairs])
        for lived in day:
            self._ready[lived.taught.id, how, budget] = [p for p in passed if p.trajectory_id == lived.taught.id]

    def pairs(self, lived: Lived, how: Format, budget: int) -> list[Pair]:
        """See the seam."""
        if how == "T":
            return OfflineSynthesiser().pairs(lived, how, budget)
        if (lived.taught.id, how, budget) not in self._ready:
            self.prepare([lived], how, budget)
        return [pair.model_copy(update={"made_by": self.name}) for pair in self._ready.pop((lived.taught.id, how, budget))]

    def check(self, pairs: Sequence[Pair]) -> list[Pair]:
        """Those pairs that the base verifies, whoever made them; the others are counted."""
        passed = verify(pairs, self._encode, self._loss, self._context)
        self._unverified += len(pairs) - len(passed)
        return passed
