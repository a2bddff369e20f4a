"""Pocket repositories: modules, visible and hidden tests, and the tasks in them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from eval.pocket.conventions import Convention
from eval.pocket.functions import Function, Mutation
from eval.pocket.names import NOUNS, Namer, Split
from eval.pocket.templates import TEMPLATES
from memory.tasks import MergedFix

CONVENTION_KIND = "convention"
VISIBLE_CASES = 2
HIDDEN_CASES = 4
MAX_DRAWS = 200
Case = tuple[tuple[Any, ...], str]
"""Arguments, and the source text of the expectation: a value, or `raises NAME`."""


@dataclass(frozen=True)
class Module:
    """One module of a repository: `functions` are as the house writes them."""

    package: str
    name: str
    functions: tuple[Function, ...]
    convention: Convention | None

    @property
    def path(self) -> str:
        """Path of the file in the repository."""
        return f"{self.package}/{self.name}.py"

    def source(self, bodies: dict[str, tuple[str, ...]] | None = None) -> str:
        """The file's text, with the bodies of some functions replaced."""
        rule = self.convention
        lines = [] if rule is None else [f"from {self.package}.{rule.file} import {rule.symbol}", ""]
        for function in self.functions:
            lines += [*function.source((bodies or {}).get(function.name)), ""]
        return "\n".join(lines[:-1]) + "\n"

    @cached_property
    def namespace(self) -> dict[str, Any]:
        """The correct module, executed; used to compute what tests expect."""
        return execute(self, self.source())


def execute(module: Module, source: str) -> dict[str, Any]:
    """Run a module's generated (trusted) source together with its house symbol."""
    namespace: dict[str, Any] = {}
    if module.convention is not None:
        exec(module.convention.source, namespace)
    body = source.split("\n", 1)[1] if module.convention is not None else source
    exec(body, namespace)
    return namespace


def build_module(
    rng: random.Random, package: str, split: Split, convention: Convention | None, invented_share: float, size: int = 3
) -> Module:
    """At least `size` drawn functions (and what they call); one or more fall under the convention."""
    namer = Namer(rng, split, invented_share)
    drawn: list[Function] = []
    templates = list(TEMPLATES)
    while len(drawn) < size:
        template = rng.choice(templates)
        function = template(namer)
        if convention is not None and not drawn and function.tag != convention.tag:
            continue
        templates.remove(template)
        drawn += [*function.needs, function]
    if convention is not None:
        drawn = [convention.apply(f) if not _is_needed(f, drawn) else f for f in drawn]
    rng.shuffle(drawn)
    return Module(package, rng.choice(NOUNS), tuple(drawn), convention)


def _is_needed(function: Function, functions: Sequence[Function]) -> bool:
    return any(function in other.needs for other in functions)


def touches_convention(function: Function, mutation: Mutation) -> bool:
    """Whether repairing this mutation means writing a line that the house convention changes."""
    plain = _plain_lines(function)
    return bool(plain & set(range(mutation.line, mutation.line + mutation.span)))


def _plain_lines(function: Function) -> set[int]:
    return {i for i, line in enumerate(function.body) if line != function.plain[i]}


def observe(namespace: dict[str, Any], name: str, arguments: tuple[Any, ...]) -> str:
    """Source text of what a call gives, or `raises NAME`."""
    try:
        return repr(namespace[name](*arguments))
    except Exception as error:  # noqa: BLE001  (what a call raises is its result)
        return f"raises {type(error).__name__}"


def test_source(module: Module, cases: dict[str, list[Case]]) -> str:
    """A test file; one test function per case."""
    names = sorted(cases)
    lines = [f"from {module.package}.{module.name} import {', '.join(names)}"]
    raised = sorted({expected.split()[1] for case in cases.values() for _, expected in case if expected.startswith("raises ")})
    if module.convention is not None and module.convention.symbol in raised:
        lines.append(f"from {module.package}.{module.convention.file} import {module.convention.symbol}")
    for name in names:
        for number, (arguments, expected) in enumerate(cases[name]):
            call = f"{name}({', '.join(map(repr, arguments))})"
            lines += ["", f"def test_{name}_{number}():"]
            if expected.startswith("raises "):
                lines += ["    try:", f"        {call}", f"    except {expected.split()[1]}:", "        return"]
                lines.append(f'    raise AssertionError("{call} was accepted")')
            else:
                lines.append(f"    assert {call} == {expected}")
    return "\n".join(lines) + "\n"


test_source.__test__ = False  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Problem:
    """A module with one bug: everything a task is made of."""

    module: Module
    function: Function
    mutation: Mutation
    kind: str
    symptom: str
    visible: dict[str, list[Case]]
    hidden: dict[str, list[Case]]
    fails_before: frozenset[str]

    @property
    def before(self) -> str:
        """The buggy file."""
        return self.module.source({self.function.name: self.function.buggy(self.mutation)})

    @property
    def after(self) -> str:
        """The repaired file."""
        return self.module.source()

    def fix(self, task_id: str) -> MergedFix:
        """The change upstream merged."""
        return MergedFix(
            task_id=task_id, symbol=self.function.name, path=self.module.path, before=self.before, after=self.after
        )


def choices(module: Module, convention: bool) -> list[tuple[Function, Mutation]]:
    """The bugs of a module that are (not) about its convention."""
    return [(f, m) for f in module.functions for m in f.mutations if touches_convention(f, m) == convention]


def build_problem(rng: random.Random, module: Module, function: Function, mutation: Mutation) -> Problem | None:
    """Draw test cases that tell right from wrong; None if this bug cannot be told apart.

    The bug must fail a visible and a hidden test, and where the house has a convention the
    plain repair must fail too.
    """
    right = module.namespace
    buggy = execute(module, module.source({function.name: function.buggy(mutation)}))
    plain = execute(module, module.source({function.name: function.plain})) if touches_convention(function, mutation) else None

    def tells(arguments: tuple[Any, ...]) -> bool:
        expected = observe(right, function.name, arguments)
        others = [buggy] if plain is None else [buggy, plain]
        return all(observe(other, function.name, arguments) != expected for other in others)

    def draw(count: int) -> list[Case] | None:
        for _ in range(MAX_DRAWS):
            drawn = [function_arguments(rng, module, function) for _ in range(count)]
            if any(tells(a) for a in drawn):
                return [(a, observe(right, function.name, a)) for a in drawn]
        return None

    target = (draw(VISIBLE_CASES), draw(HIDDEN_CASES))
    if target[0] is None or target[1] is None:
        return None
    visible, hidden = {function.name: target[0]}, {function.name: target[1]}
    for other in module.functions:
        if other is not function:
            arguments = [function_arguments(rng, module, other) for _ in range(2)]
            cases = [(a, observe(right, other.name, a)) for a in arguments]
            visible[other.name], hidden[other.name] = cases[:1], cases
    fails = frozenset(
        f"test_{name}_{i}"
        for name, cases in hidden.items()
        for i, (a, expected) in enumerate(cases)
        if observe(buggy, name, a) != expected
    )
    kind = CONVENTION_KIND if plain is not None else mutation.kind
    return Problem(module, function, mutation, kind, rng.choice(mutation.symptoms), visible, hidden, fails)


def function_arguments(rng: random.Random, module: Module, function: Function) -> tuple[Any, ...]:
    """Test arguments; where keys are normalised the tables hold normalised keys."""
    arguments = function.arguments(rng)
    if module.convention is not None and function.tag == module.convention.tag == "lookup":
        table, key = arguments
        return ({k.upper(): v for k, v in table.items()}, key)
    return arguments
