"""Pretraining episodes of the pocket model: what an expert would do in the pocket world.

An episode is the message list of one attempt, its observations produced by the agent's real
tools and the real test runner on a real directory. The mix: plain fixes, recoveries (a wrong
edit, the failing test, the right edit), corrected bad calls, past cases in the prompt (half of
them irrelevant), and house rules that only a past case reveals.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from agent import tools
from agent.errors import CallError
from agent.model import Message
from agent.turns import Call, render_call, render_case, render_issue
from agent.workspace import Workspace, write_tree
from consolidation.synthesis.merged_fix import EditStyle, calls_for, edit_between
from eval.pocket import runner
from eval.pocket.conventions import HOUSES, Convention, pretraining_convention
from eval.pocket.names import NOUNS, Namer, Split, invented
from eval.pocket.world import Problem, build_module, build_problem, choices, test_source
from memory.tasks import MergedFix


@dataclass(frozen=True)
class Episode:
    """One resolved attempt. `mistakes` numbers the messages that nobody should learn to say."""

    messages: tuple[Message, ...]
    mistakes: frozenset[int]


@dataclass(frozen=True)
class Mix:
    """Shares of the episode kinds, and how names are drawn.

    `misplaced` is the share of recoveries from an edit on a neighbouring line; the others start
    from another bug. The relevant case is always in the prompt where the house rule decides.
    """

    recovery: float = 0.3
    misplaced: float = 0.6
    bad_call: float = 0.06
    cases: float = 0.4
    convention: float = 0.12
    house: float = 0.6
    invented_names: float = 0.35
    module_sizes: tuple[int, ...] = (1, 2, 3)
    style: EditStyle = "lines"


def run_visible(workspace: Workspace) -> tools.TestRun:
    """The visible tests, run in this process: only for generated code, which is trusted."""
    results = runner.run_tests(workspace.root, through=(KeyboardInterrupt,))
    return tools.TestRun(all(why == "PASSED" for why in results.values()), runner.summary(results))


class EpisodeMaker:
    """Makes episode `index` of a seed; the same pair gives the same messages."""

    def __init__(self, seed: int, scratch: Path, mix: Mix | None = None, split: Split = Split.PRETRAIN) -> None:
        self.seed = seed
        self.split = split
        self.mix = mix or Mix()
        self.workspace = Workspace(scratch)

    def episode(self, index: int) -> Episode:
        """One resolved attempt."""
        rng = random.Random(f"{self.split}/{self.seed}/{index}")
        convention = pretraining_convention(rng, Namer(rng, self.split, 0.3)) if rng.random() < self.mix.house else None
        package = invented(rng) if rng.random() < 0.5 else rng.choice(NOUNS)
        about_convention = convention is not None and rng.random() < self.mix.convention / self.mix.house
        problem = self._problem(rng, package, convention, about_convention)
        cases = self._cases(rng, package, convention, about_convention)
        return self._play(rng, problem, package, cases)

    def _problem(self, rng: random.Random, package: str, convention: Convention | None, about: bool) -> Problem:
        while True:
            size = rng.choice(self.mix.module_sizes)
            module = build_module(rng, package, self.split, convention, self.mix.invented_names, size)
            options = choices(module, about)
            kinds = sorted({mutation.kind for _, mutation in options})
            if not kinds:
                continue
            kind = rng.choice(kinds)
            function, mutation = rng.choice([o for o in options if o[1].kind == kind])
            problem = build_problem(rng, module, function, mutation)
            if problem is not None:
                return problem

    def _cases(self, rng: random.Random, package: str, convention: Convention | None, about: bool) -> tuple[str, ...]:
        """Past cases: always a relevant one where the house rule decides, else now and then any."""
        if not about and rng.random() >= self.mix.cases:
            return ()
        relevant = about or (convention is not None and rng.random() < 0.3)
        problem = self._problem(rng, package, convention if relevant else None, relevant)
        fix = edit_between(problem.module.path, problem.before, problem.after)
        return (render_case(problem.symptom, fix.body),)

    def _play(self, rng: random.Random, problem: Problem, package: str, cases: tuple[str, ...]) -> Episode:
        self._materialise(rng, problem, package)
        fix = problem.fix("pretraining")
        calls = calls_for(fix, self.mix.style)
        messages = [Message("user", render_issue(package, problem.symptom, cases))]
        mistakes: list[int] = []
        if rng.random() < self.mix.recovery:
            misplaced = self.mix.style == "lines" and rng.random() < self.mix.misplaced
            wrong = self._misplaced_edit(rng, fix) if misplaced else self._wrong_edit(rng, problem)
            if wrong is not None:
                for call in calls[:2]:
                    self._do(call, messages)
                mistakes.append(len(messages))
                self._do(wrong, messages)
                current = self.workspace.read(fix.path)
                if current != fix.before:
                    self._do(Call("test"), messages)
                calls = [edit_between(fix.path, current, fix.after, self.mix.style), *calls[3:]]
        bad = self._bad_call(rng, problem) if rng.random() < self.mix.bad_call else None
        slip = rng.randrange(len(calls) - 1)
        for number, call in enumerate(calls[:-1]):
            if bad is not None and number == slip:
                mistakes.append(len(messages))
                self._do(bad, messages)
            self._do(call, messages)
        messages.append(Message("assistant", render_call(calls[-1])))
        return Episode(tuple(messages), frozenset(mistakes))

    def _materialise(self, rng: random.Random, problem: Problem, package: str) -> None:
        module = problem.module
        files = {
            f"{package}/__init__.py": "",
            module.path: problem.before,
            f"tests/test_{module.name}.py": test_source(module, problem.visible),
        }
        if module.convention is not None:
            files[f"{package}/house.py"] = module.convention.source
        write_tree(self.workspace.root, files)

    def _do(self, call: Call, messages: list[Message]) -> None:
        messages.append(Message("assistant", render_call(call)))
        try:
            observation = tools.execute(call, self.workspace, run_visible)
        except CallError as error:
            observation = str(error)
        messages.append(Message("tool", observation))

    def _wrong_edit(self, rng: random.Random, problem: Problem) -> Call | None:
        """A plausible mistake: another bug of the same function in place of the reported one."""
        function = problem.function
        others = [m for m in function.mutations if m is not problem.mutation and abs(m.line - problem.mutation.line) <= 1]
        rng.shuffle(others)
        for other in others:
            text = problem.module.source({function.name: function.buggy(other)})
            if text == problem.before:
                continue
            wrong = edit_between(problem.module.path, problem.before, text, self.mix.style)
            if self._if_failing(wrong, problem.before) is not None:
                return wrong
        return None

    def _misplaced_edit(self, rng: random.Random, fix: MergedFix) -> Call | None:
        """The right lines in the wrong place, one line off: refused if that breaks the file."""
        right = edit_between(fix.path, fix.before, fix.after)
        shift = rng.choice((-1, 1))
        start, end = (right.start or 1) + shift, (right.end or 1) + shift
        if start < 1 or end > len(fix.before.splitlines()):
            return None
        return self._if_failing(Call("edit", fix.path, start, end, body=right.body), fix.before)

    def _if_failing(self, call: Call, before: str) -> Call | None:
        """The edit, if it is refused or fails a visible test; the file stays as it was."""
        try:
            tools.edit(self.workspace, call)
        except CallError:
            return call
        passed = run_visible(self.workspace).passed
        self.workspace.write(call.target, before)
        return None if passed else call

    def _bad_call(self, rng: random.Random, problem: Problem) -> Call:
        path = problem.module.path
        return rng.choice(
            (
                Call("view", path.rsplit("/", 1)[-1]),
                Call("search", invented(rng)),
                Call("edit", path, 90, 90, body="    return 0"),
                Call("view", f"{invented(rng)}.py"),
            )
        )


HELD_OUT_SYMBOLS = frozenset(house.symbol for house in HOUSES.values())
"""Never seen in pretraining; a test scans episodes for them."""
