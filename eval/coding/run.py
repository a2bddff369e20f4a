"""Programs against a problem's hidden tests, several at once, each in its own sandbox.

`eval.judge` decides: the tests run in another process than the program, which sees neither them nor the random key that
their report must carry. What a program prints, raises or exits with counts for nothing.
"""

from __future__ import annotations

import ast
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from agent.sandbox.base import ExecResult, Limits, Sandbox
from agent.workspace import Workspace
from eval.coding.problems import MODULE, Problem, parsed
from eval.errors import EvalError
from eval.grading import GRADED_BY, grade
from memory.trajectories import Outcome

RUN_BY = GRADED_BY
SECONDS = 30.0
"""Wall time of one program; the slowest canonical solution takes about 5 s on a machine that has nothing else to do."""
Program = tuple[Problem, str]
"""A problem and the whole source of an answer to it."""


@dataclass(frozen=True)
class Ran:
    """What came of one program; `late` if it was stopped by the clock."""

    passed: bool
    seconds: float
    late: bool = False


class _Patient:
    """A sandbox that gives one program `SECONDS`, and knows whether they were enough."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.name = sandbox.name
        self.late = False
        self._sandbox = sandbox

    def run(self, argv: Sequence[str], workspace: Workspace, limits: Limits) -> ExecResult:
        """See `Sandbox`."""
        result = self._sandbox.run(argv, workspace, replace(limits, seconds=SECONDS))
        self.late = result.timed_out
        return result


def run(programs: Iterable[Program], sandbox: Sandbox, at_once: int = 2) -> Iterator[Ran]:
    """The verdict on each program, in order.

    Raises:
        EvalError: the sandbox failed, so that nothing is known of a program.
    """
    with ThreadPoolExecutor(max_workers=at_once) as pool:
        yield from pool.map(lambda program: _one(program, sandbox), programs)


def _one(program: Program, sandbox: Sandbox) -> Ran:
    problem, source = program
    began = time.monotonic()
    patient = _Patient(sandbox)
    outcome, why = grade(problem.secret, {f"{MODULE}.py": source}, patient)
    if outcome is Outcome.INFRASTRUCTURE_FAILURE:
        raise EvalError(f"{problem.id} could not be run: {why}")
    return Ran(outcome is Outcome.RESOLVED, time.monotonic() - began, patient.late)


@dataclass(frozen=True)
class Verification:
    """What was seen of a benchmark on this machine. All lists name problems; `survivors` counts mutants that still passed."""

    problems: int
    failed: tuple[str, ...]
    unharmed: tuple[str, ...]
    """Problems of which no mutant failed."""
    mutants: int
    survivors: int
    seconds: float
    """For the canonical solutions alone."""

    @property
    def sound(self) -> bool:
        """Every canonical solution passes, and every problem tells at least one mutant from it."""
        return self.problems > 0 and not self.failed and not self.unharmed


def verify(
    chosen: Sequence[Problem], sandbox: Sandbox, at_once: int = 2, on_done: Callable[[], object] = lambda: None
) -> Verification:
    """Run every canonical solution and its mutants; `on_done` is called after each program.

    Raises:
        EvalError: see `run`.
    """

    def passed(programs: Sequence[Program]) -> list[bool]:
        found: list[bool] = []
        for ran in run(programs, sandbox, at_once):
            found.append(ran.passed)
            on_done()
        return found

    began = time.monotonic()
    sound = passed([(problem, problem.canonical) for problem in chosen])
    seconds = time.monotonic() - began
    bred = [(problem, mutant) for problem in chosen for mutant in mutants(problem)]
    alive = passed(bred)
    harmed = {problem.id for (problem, _), survives in zip(bred, alive, strict=True) if not survives}
    return Verification(
        problems=len(chosen),
        failed=tuple(problem.id for problem, right in zip(chosen, sound, strict=True) if not right),
        unharmed=tuple(problem.id for problem in chosen if problem.id not in harmed),
        mutants=len(bred),
        survivors=sum(alive),
        seconds=seconds,
    )


def mutants(problem: Problem) -> list[str]:
    """The canonical solution with the wanted function returning nothing, with its first comparison negated, and with its
    first number off by one; each only where there is such a thing.
    """
    found = []
    for kind in (_Nothing, _Negated, _OffByOne):
        tree = parsed(problem.canonical)
        breeder = kind(problem.entry)
        changed = ast.fix_missing_locations(breeder.visit(tree))
        if breeder.done:
            found.append(ast.unparse(changed))
    return found


class _Mutation(ast.NodeTransformer):
    """Changes one place in the wanted function, then nothing more."""

    def __init__(self, entry: str) -> None:
        self.entry = entry
        self.inside = self.done = False

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        outside = not self.inside
        self.inside = self.inside or node.name == self.entry
        node.body = [self.visit(part) for part in node.body] if self.inside else node.body
        self.inside = self.inside and not (outside and node.name == self.entry)
        return node


class _Nothing(_Mutation):
    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        if node.name == self.entry:
            node.body, self.done = [ast.Return(ast.Constant(None))], True
        return node


class _Negated(_Mutation):
    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        if self.done or not self.inside:
            return node
        self.done = True
        return ast.UnaryOp(ast.Not(), node)


class _OffByOne(_Mutation):
    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if self.done or not self.inside or type(node.value) is not int:
            return node
        self.done = True
        return ast.Constant(node.value + 1)
