"""HumanEval and MBPP as guards: one greedy answer to each problem, by exactly the artefact that would be served."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import agent
from agent.model import Completion, Model, Sampling
from agent.sandbox.base import Sandbox
from consolidation.guards import Answer, Role, Routes
from eval.coding.extract import program, spelt
from eval.coding.problems import Benchmark, Problem
from eval.coding.problems import problems as read
from eval.coding.prompts import prompt
from eval.coding.run import RUN_BY, Ran, run
from eval.exams import at_seat, base_fingerprint, by_adapter, chosen, seat_of, seats, stratified
from eval.fetch import SOURCES, Source
from memory.hashing import content_hash, source_hash

_CODE = (Path(__file__).resolve().parent, *RUN_BY, Path(agent.__file__).parent)


@dataclass
class CodingGuard:
    """pass@1 of one benchmark: an answer is right if every assertion was seen to hold in the sandbox.

    `tokens` bounds an answer, `block` is how many are asked for at once and `programs` how many run at once.
    """

    name: Benchmark
    folder: Path
    model: Model
    sandbox: Sandbox
    seed: int = 0
    count: int = 0
    """How many problems, the first of the seeded order; 0 for all."""
    tokens: int = 1_024
    block: int = 32
    programs: int = 2
    mixtures: Path | None = None
    """Where mixtures of experts are kept; see `consolidation.mixture.serving`."""
    sources: Mapping[str, Source] = field(default_factory=lambda: SOURCES)
    claim: str = field(default="code", init=False)
    role: Role = field(default="capability", init=False)

    @cached_property
    def problems(self) -> dict[str, Problem]:
        """By id, in the seeded order in which they are asked.

        Raises:
            EvalError: see `eval.coding.problems.problems`.
        """
        ordered = stratified(read(self.name, self.folder, self.sources), lambda problem: "", self.seed)
        return {problem.id: problem for problem in ordered[: self.count or None]}

    @cached_property
    def digest(self) -> str:
        """See `Guard`."""
        asked = [[p.id, [m.content for m in prompt(p)], p.secret.tests] for p in self.problems.values()]
        code = source_hash(_CODE)
        sampled = [self.tokens, self.sandbox.name, self.model.speaks]
        return content_hash([self.name, sorted(asked, key=str), sampled, code, base_fingerprint(self.model)])

    def items(self, routes: Routes) -> Sequence[str]:
        """See `Guard`: every problem, of every adapter."""
        return [at_seat(seat, problem) for problem in self.problems for seat in seats(routes)]

    def category(self, item: str) -> str:
        """See `Guard`: there are none."""
        return ""

    def repo(self, item: str) -> str:
        """See `Guard`."""
        return seat_of(item)[0]

    def answer(self, items: Sequence[str], routes: Routes) -> Mapping[str, Answer]:
        """See `Guard`."""
        found: dict[str, Answer] = {}
        try:
            for folder, asked in by_adapter(items, routes, self.mixtures, self._issue):
                wanted = list(chosen(self.problems, asked, self.name).values())
                self.model.use(folder)
                for at in range(0, len(wanted), self.block):
                    for problem, answer in self._block(wanted[at : at + self.block]):
                        found |= dict.fromkeys(asked[problem.id], answer)
        finally:
            self.model.use(None)
        return {item: found[item] for item in items}

    def _issue(self, question: str) -> str:
        return prompt(chosen(self.problems, [question], self.name)[question])[0].content

    def _block(self, asked: Sequence[Problem]) -> list[tuple[Problem, Answer]]:
        said = self.model.complete([prompt(problem) for problem in asked], Sampling(max_tokens=self.tokens))
        written = [(problem, program(problem, one.text)) for problem, one in zip(asked, said, strict=True)]
        ran = run(written, self.sandbox, self.programs)
        return [(p, _answer(one, result)) for p, one, result in zip(asked, said, ran, strict=True)]


def _answer(said: Completion, ran: Ran) -> Answer:
    facts = {
        "tokens": float(said.completion_tokens),
        "cut": float(said.finish_reason != "stop"),
        "late": float(ran.late),
    }
    return Answer(score=float(ran.passed), said=content_hash(spelt(said.text)), facts=facts, seconds=max(0.0, said.seconds))
