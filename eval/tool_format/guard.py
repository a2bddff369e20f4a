"""The tool-format exam as a guard: every prompt greedily and with several sampling seeds."""

from __future__ import annotations

import ast
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import agent
from agent.errors import CallError
from agent.model import Model, Sampling
from agent.session import Toolkit
from agent.turns import FULL_TOOLS, TOOLS, parse_call, parse_full
from consolidation.guards import Answer, Role, Routes
from eval.coding.extract import spelt
from eval.exams import at_seat, base_fingerprint, by_adapter, chosen, seat_of, seats, stratified
from eval.play import TOOLKITS
from eval.tool_format.full import full_exam
from eval.tool_format.prompts import Prompt, Stage, Turn
from eval.tool_format.score import RIGHT, WRONG, Mark, Parse, mark
from eval.tool_format.terse import terse_exam
from memory.hashing import content_hash, source_hash

_CODE = (Path(__file__).resolve().parent, Path(agent.__file__).parent)
_FULL_NAMES = tuple(tool.name for tool in FULL_TOOLS)


@dataclass
class ToolFormatGuard:
    """The exam of the toolkit that the model speaks; an item is `prompt#seed`, seed 0 is greedy.

    A prompt of several turns is worth its worst turn, and ends at the first that is not right. `tokens` bounds a turn.
    """

    model: Model
    seed: int = 0
    seeds: int = 3
    temperature: float = 0.7
    tokens: int = 512
    width: int = 32
    mixtures: Path | None = None
    """Where mixtures of experts are kept; see `consolidation.mixture.serving`."""
    name: str = field(default="tool_format", init=False)
    claim: str = field(default="tool_format", init=False)
    role: Role = field(default="format", init=False)

    @cached_property
    def toolkit(self) -> Toolkit:
        """What the model is told of its tools."""
        return TOOLKITS[self.model.speaks]

    @cached_property
    def prompts(self) -> dict[str, Prompt]:
        """By id, in the order in which they are asked."""
        exam = terse_exam(self.seed) if self.model.speaks == "terse" else full_exam(self.toolkit)
        return {prompt.id: prompt for prompt in stratified(exam, lambda prompt: prompt.category, self.seed)}

    @cached_property
    def digest(self) -> str:
        """See `Guard`."""
        asked = []
        with tempfile.TemporaryDirectory(prefix="exam-") as folder:
            for prompt in self.prompts.values():
                stage = Stage(prompt, self.toolkit, Path(folder).resolve() / prompt.id)
                for turn in prompt.turns:
                    stage.take(turn.call)
                asked.append([prompt.id, [[m.role, m.content] for m in stage.messages]])
        sampled = [self.tokens, self.temperature, self.toolkit.digest]
        return content_hash([self.name, sorted(asked, key=str), sampled, source_hash(_CODE), base_fingerprint(self.model)])

    def items(self, routes: Routes) -> Sequence[str]:
        """See `Guard`: every prompt with every seed, of every adapter; the greedy ones first."""
        asked = [(seed, prompt) for seed in range(self.seeds) for prompt in self.prompts]
        return [at_seat(seat, f"{prompt}#{seed}") for seed, prompt in asked for seat in seats(routes)]

    def category(self, item: str) -> str:
        """See `Guard`."""
        return self.prompts[seat_of(item)[1].partition("#")[0]].category

    def repo(self, item: str) -> str:
        """See `Guard`."""
        return seat_of(item)[0]

    def answer(self, items: Sequence[str], routes: Routes) -> Mapping[str, Answer]:
        """See `Guard`."""
        found: dict[str, Answer] = {}
        known = {f"{prompt.id}#{seed}": prompt for prompt in self.prompts.values() for seed in range(self.seeds)}
        wanted = chosen(known, [seat_of(item)[1] for item in items], self.name)
        try:
            for folder, asked in by_adapter(items, routes, self.mixtures, lambda question: wanted[question].opening):
                self.model.use(folder)
                for seed in range(self.seeds):
                    these = [question for question in asked if question.endswith(f"#{seed}")]
                    for at in range(0, len(these), self.width):
                        block = {question: wanted[question] for question in these[at : at + self.width]}
                        for question, answer in self._ask(block, seed).items():
                            found |= dict.fromkeys(asked[question], answer)
        finally:
            self.model.use(None)
        return {item: found[item] for item in items}

    def _ask(self, asked: Mapping[str, Prompt], seed: int) -> dict[str, Answer]:
        """The answers to some prompts, asked at once, turn by turn."""
        sampling = Sampling(self.temperature if seed else 0.0, self.tokens, seed, self.toolkit.tools)
        with tempfile.TemporaryDirectory(prefix="exam-") as name:
            root = Path(name).resolve()
            papers = [
                _Paper(question, prompt, Stage(prompt, self.toolkit, root / str(number)))
                for number, (question, prompt) in enumerate(asked.items())
            ]
            while going := [paper for paper in papers if paper.goes_on]:
                said = self.model.complete([p.stage.messages for p in going], sampling, [p.question for p in going])
                for paper, completion in zip(going, said, strict=True):
                    turn = paper.turn
                    paper.took(completion.text, mark(completion, *self._format, turn.rights), max(0.0, completion.seconds))
            self.model.forget(list(asked))
        return {paper.question: paper.answer() for paper in papers}

    @cached_property
    def _format(self) -> tuple[Parse, Sequence[str]]:
        return (parse_call, TOOLS) if self.model.speaks == "terse" else (parse_full, _FULL_NAMES)


@dataclass
class _Paper:
    """One prompt being answered."""

    question: str
    prompt: Prompt
    stage: Stage
    marks: list[Mark] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def goes_on(self) -> bool:
        """Whether another turn is asked for."""
        return len(self.marks) < len(self.prompt.turns) and all(mark.score == RIGHT for mark in self.marks)

    @property
    def turn(self) -> Turn:
        """The turn that is asked for."""
        return self.prompt.turns[len(self.marks)]

    def took(self, said: str, marked: Mark, seconds: float) -> None:
        """Take down a turn; a right one is carried out, and must then do what was wanted."""
        wanted = self.turn.becomes
        if marked.score == RIGHT:
            right = self.stage.take(said) and (wanted is None or self._reads(*wanted))
            marked = marked if right else Mark(WRONG, marked.malformed, marked.timeout)
        self.marks.append(marked)
        self.said.append(spelt(said))
        self.seconds += seconds

    def _reads(self, path: str, wanted: str) -> bool:
        try:
            return ast.dump(ast.parse(self.stage.workspace.read(path))) == ast.dump(ast.parse(wanted))
        except (CallError, SyntaxError, ValueError, RecursionError, MemoryError):
            return False

    def answer(self) -> Answer:
        """What came of the prompt."""
        facts = {
            "timeout": float(any(mark.timeout for mark in self.marks)),
            "malformed": float(any(mark.malformed for mark in self.marks)),
        }
        score = min(mark.score for mark in self.marks)
        return Answer(score=score, said=content_hash(self.said), facts=facts, seconds=self.seconds)
