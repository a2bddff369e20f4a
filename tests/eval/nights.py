"""Whole nights in miniature: the real model, trainer, store and gate, on what a scripted day left in one pocket repository."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from agent.errors import CallError
from agent.model import Message, Sampling
from agent.models.scripted import ScriptedModel
from agent.pocket.model import PocketModel
from agent.sandbox.ladder import probe
from agent.turns import parse_call, render_issue
from consolidation.adapters import AdapterStore
from consolidation.gate import GateConfig
from consolidation.guards import Answer, Role, Routes
from consolidation.mixture.serving import Served
from consolidation.night import Sleeper
from consolidation.night_config import NightConfig
from consolidation.pairs import Pair, pairs_of
from consolidation.skill import Publisher, adapter_for
from consolidation.synthesis.seam import Lived
from consolidation.trainers.base import LoraConfig
from consolidation.trainers.torch_lora import TORCH
from eval.experience import lived_of_day
from eval.play import Player
from eval.pocket.names import Split
from eval.pocket.stream import PocketStream
from memory.hashing import content_hash
from memory.knowledge.embedders import HashingEmbedder
from memory.store import Store
from memory.tasks import Task

REPO = "bank"
LORA = LoraConfig(rank=4, alpha=8, epochs=2, batch_size=4, learning_rate=1e-2)
GATE = GateConfig(min_tasks=8, margin=0.2, limit=0.6, confidence=0.9, chance=3.0, looks=2)


@lru_cache
def model() -> PocketModel:
    return PocketModel(threads=1)


@lru_cache
def lived(first: int = 0, count: int = 12) -> tuple[Lived, ...]:
    """A day on which a model that says nothing of use resolved nothing, so that what upstream merged is learnt."""
    sandbox = probe(trusted_generated=True)
    stream = PocketStream(5, (REPO,), count, start=first)
    played = list(Player(ScriptedModel(), sandbox).play(stream, stream.tasks()))
    return tuple(lived_of_day(stream, played, sandbox, merged_fixes=True))


def pairs(first: int = 0, count: int = 12) -> list[Pair]:
    return [pair for each in lived(first, count) for pair in pairs_of(each.taught, each.source)]


@lru_cache
def held() -> tuple[PocketStream, tuple[Task, ...]]:
    stream = PocketStream(5, (REPO,), 16, split=Split.HELD_OUT)
    return stream, tuple(stream.tasks())


@dataclass
class FirstTurn:
    """A small real examination: whether the first turn at a held-out task is a search for a name that the issue tells.

    What is said there, and at the changes that are taught, identifies an answer.
    """

    name: str = "first_turn"
    claim: str = "first_turn"
    role: Role = "capability"
    asked: list[str] = field(default_factory=list)
    after: Callable[[int], None] = lambda asked: None

    @property
    def digest(self) -> str:
        return content_hash([self.name, [task.id for task in held()[1]]])

    def items(self, routes: Routes) -> Sequence[str]:
        return [task.id for task in held()[1]]

    def category(self, item: str) -> str:
        return ""

    def repo(self, item: str) -> str:
        return REPO

    def answer(self, items: Sequence[str], routes: Routes) -> Mapping[str, Answer]:
        self.asked += items
        self.after(len(self.asked))
        tasks = {task.id: task for task in held()[1]}
        asked = {item: [Message("user", render_issue(REPO, tasks[item].issue))] for item in items}
        said = _said(asked, tasks, adapter_for(routes, REPO))
        later = _said(*_changes(), adapter_for(routes, REPO))
        heard = {item: content_hash([text, later]) for item, text in said.items()}
        return {item: Answer(score=_right(tasks[item], said[item]), said=heard[item]) for item in items}


def _said(asked: Mapping[str, list[Message]], tasks: Mapping[str, Task], adapter: Path | None) -> dict[str, str]:
    """The next turn of each conversation, by what the adapter serves for its task."""
    served = {item: Served().route(adapter, tasks[item]) if adapter else None for item in asked}
    said: dict[str, str] = {}
    for folder in sorted(set(served.values()), key=str):
        mine = [item for item in asked if served[item] == folder]
        model().use(folder)
        answers = model().complete([asked[item] for item in mine], Sampling(max_tokens=24))
        said |= {item: answer.text for item, answer in zip(mine, answers, strict=True)}
    model().use(None)
    return said


@lru_cache
def _changes() -> tuple[dict[str, list[Message]], dict[str, Task]]:
    """The conversations that are taught, up to the change: there an adapter speaks otherwise than its base."""
    told = lived()[:4]
    asked = {each.task.id: pairs_of(each.taught, each.source)[0].conversation()[:5] for each in told}
    return asked, {each.task.id: each.task for each in told}


def _right(task: Task, text: str) -> float:
    try:
        call = parse_call(text)
    except CallError:
        return 0.0
    return float(call.tool == "search" and call.target in task.issue)


def config(**changes: Any) -> NightConfig:
    return NightConfig.model_validate({"lora": LORA.model_dump(), "gate": GATE.model_dump(), "threads": 1, **changes})


def sleeper(place: Path, store: Store, settings: NightConfig, *guards: Any, **more: Any) -> Sleeper:
    base = model()
    return Sleeper(
        config=settings,
        base=base.folder,
        base_hash=base.fingerprint,
        encode=base.tokenizer.example,
        context=settings.context or 1280,
        trainer=TORCH,
        publisher=Publisher(place / "live", AdapterStore(place / "adapters")),
        recorder=store,
        work=place / "nights",
        answers=place / "answers",
        guards=lambda live: guards,
        embed=HashingEmbedder().embed,
        **more,
    )
