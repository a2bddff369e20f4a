"""A guard whose answers are written down, and adapters that it can tell apart by their bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from consolidation.guards import Answer, Role, Routes

WEIGHTS = "adapter_model.safetensors"
BASE = "base"
Script = Callable[[str, int], Answer]


def adapter(folder: Path, speaks: str) -> Routes:
    """Routes to an adapter that answers as the script of this name says."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text("{}")
    (folder / WEIGHTS).write_text(speaks)
    return {"shop": folder}


def right(who: str, item: int) -> Answer:
    """All right, each in its own words."""
    return Answer(score=1, said=who)


def losing(*lost: int) -> Script:
    """The base is right everywhere; others are wrong on these items."""
    return lambda who, item: Answer(score=float(who == BASE or item not in lost), said=who)


@dataclass
class Written:
    """The guard. `asked` lists who was asked which items, call by call."""

    script: Script = right
    count: int = 200
    name: str = "skills"
    claim: str = "code"
    role: Role = "capability"
    on_answer: Callable[[int], None] = lambda call: None
    spoil: Callable[[dict[str, Answer]], Mapping[str, Answer]] = lambda found: found
    asked: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)

    @property
    def digest(self) -> str:
        return f"{self.name}-{self.count}"

    def items(self, routes: Routes) -> Sequence[str]:
        return [f"{self.name}/{number}" for number in range(self.count)]

    def category(self, item: str) -> str:
        return "even" if int(item.split("/")[1]) % 2 == 0 else "odd"

    def repo(self, item: str) -> str:
        return ""

    def answer(self, items: Sequence[str], routes: Routes) -> Mapping[str, Answer]:
        who = next((folder / WEIGHTS).read_text() for folder in routes.values()) if routes else BASE
        self.asked.append((who, tuple(items)))
        self.on_answer(len(self.asked))
        return self.spoil({item: self.script(who, int(item.split("/")[1])) for item in items})

    def of(self, who: str) -> list[str]:
        """The items that somebody was asked, in order."""
        return [item for asked, items in self.asked if asked == who for item in items]
