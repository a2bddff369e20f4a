"""Memories that a model improves on: it tells the symptom and the lesson in words; the rules decide everything else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from agent.distil.facts import MAX_FACT_CHARS
from agent.distil.lessons import MAX_SYMPTOM, MAX_TRIED, MOST_TRIED, distil
from agent.errors import AgentError
from agent.model import Message, Model, Sampling
from agent.recalled import QUOTE, plain
from memory.hashing import content_hash
from memory.knowledge.memories import Kind, Memory
from memory.tasks import MergedFix, Task
from memory.trajectories import Trajectory

PROMPT = Path(__file__).resolve().parent.parent / "prompts" / "distil-v1.txt"
SAMPLING = Sampling(max_tokens=600)
MAX_ANSWER_CHARS = 20_000
MAX_OBJECTS = 20
MAX_ISSUE, MAX_SAID, MAX_SEEN = 2_000, 500, 300
STEPS = 12
"""Turns that are shown, half of them from the beginning."""
CONVENTIONS = 3
_OPENS = re.compile(r"\{")


class Told(BaseModel):
    """What a model is asked for; fields that it adds are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    symptom: str
    lesson: str
    conventions: list[str] = []


class ModelDistiller:
    """Distils by rule, and has a model tell it better; `problems` counts answers that could not be used."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._system = PROMPT.read_text(encoding="utf-8").strip()
        self.problems = 0

    @property
    def name(self) -> str:
        """The model and its prompt.

        Raises:
            ModelError: the model has to be asked, and is away.
        """
        return f"{self._model.fingerprint}/{content_hash(self._system)}"

    def __call__(self, trajectory: Trajectory, task: Task, fix: MergedFix | None = None) -> list[Memory]:
        """The offline memories, with what the model said of the attempt; as they are if it said nothing of use."""
        memories = distil(trajectory, task, fix)
        if not any(_is_its_own(memory) for memory in memories):
            return memories
        try:
            name, told = self.name, read(self._asked(trajectory, task))
        except AgentError:
            told = None
        if told is None:
            self.problems += 1
            return memories
        terse = not trajectory.system and not trajectory.imported
        improved = [_improved(memory, told, name, terse) if _is_its_own(memory) else memory for memory in memories]
        return improved + _conventions(next(filter(_is_its_own, memories)), told, name, {m.fact for m in memories})

    def _asked(self, trajectory: Trajectory, task: Task) -> str:
        key = f"distil-{trajectory.id}"
        asked = [Message("system", self._system), Message("user", transcript(trajectory, task))]
        try:
            return self._model.complete([asked], SAMPLING, [key])[0].text
        finally:
            self._model.forget([key])


def transcript(trajectory: Trajectory, task: Task) -> str:
    """An attempt as the model is shown it: the issue, the first and last turns, each shortened, and how it ended.

    Why it was graded so is not in it.
    """
    steps = trajectory.steps
    middle = len(steps) - STEPS
    shown = [*steps[: STEPS // 2], *steps[max(STEPS // 2, len(steps) - STEPS // 2) :]]
    lines = ["The issue:", *_quoted(task.issue, MAX_ISSUE), "", "The attempt:"]
    for at, step in enumerate(shown):
        if at == STEPS // 2 and middle > 0:
            lines += ["", f"({middle} turns are left out here)"]
        lines += ["", "It said:", *_quoted(step.said, MAX_SAID), "It saw:", *_quoted(step.observation, MAX_SEEN)]
    how = "not graded" if trajectory.imported or trajectory.outcome is None else trajectory.outcome.value.replace("_", " ")
    return "\n".join([*lines, "", f"How it ended: {how}.", "", "Your JSON object:"])


def read(answer: str) -> Told | None:
    """The first object of an answer that is what was asked for."""
    answer = answer[-MAX_ANSWER_CHARS:]
    answer = answer.rpartition("</think>")[2]
    for number, match in enumerate(_OPENS.finditer(answer)):
        if number >= MAX_OBJECTS:
            break
        try:
            found, _ = json.JSONDecoder(strict=False).raw_decode(answer, match.start())
            told = Told.model_validate(found)
        except (ValueError, RecursionError, ValidationError):
            continue
        return told
    return None


def _quoted(text: str, most: int) -> Iterable[str]:
    half = most // 2
    text = plain(text, most) if len(text) <= most else f"{plain(text[:half])}\n[...]\n{plain(text[-half:])}"
    return [f"{QUOTE}{line}" for line in text.split("\n")]


def _is_its_own(memory: Memory) -> bool:
    """Whether it tells the attempt itself, not what upstream merged or a fact."""
    return memory.kind in (Kind.CASE, Kind.WARNING) and memory.origin != "merged_fix"


def _improved(memory: Memory, told: Told, name: str, terse: bool) -> Memory:
    """The memory in the model's words; a verified case keeps its symptom, for what a model says of it is not verified."""
    changed: dict[str, object] = {"distiller": name}
    symptom = plain(told.symptom.strip(), MAX_SYMPTOM)
    if symptom and not terse and not memory.verified:
        changed["symptom"] = symptom
    lesson = _line(told.lesson, MAX_TRIED if memory.kind is Kind.WARNING else MAX_FACT_CHARS)
    if lesson and memory.kind is Kind.WARNING:
        changed["tried"] = (*memory.tried[-MOST_TRIED + 1 :], lesson)
    elif lesson:
        changed["fact"] = lesson
    return memory.model_copy(update=changed) if len(changed) > 1 else memory


def _conventions(attempt: Memory, told: Told, name: str, known: set[str]) -> list[Memory]:
    facts = dict.fromkeys(_line(fact, MAX_FACT_CHARS) for fact in told.conventions[:CONVENTIONS])
    empty: dict[str, object] = {"symptom": "", "where": (), "change": "", "shape": "", "tried": ()}
    change = empty | {"kind": Kind.CONVENTION, "distiller": name, "verified": False}
    return [attempt.model_copy(update={**change, "fact": fact}) for fact in facts if fact and fact not in known]


def _line(text: str, most: int) -> str:
    return plain(" ".join(plain(text).split()), most)
