"""What of a stream's tasks is held out, as hashes: the only way in which their secrets get near a night."""

from __future__ import annotations

import ast
import difflib
import warnings
from collections.abc import Iterable, Iterator

from agent.turns import render_issue
from consolidation.leaks import HeldOut, HeldText, held_hashes, held_issue, held_text
from eval.coding.problems import Problem
from eval.streams import TaskStream
from eval.swebench.dataset import SweBenchSecret
from memory.tasks import MergedFix, Task, TaskSecret


def held_out_of(stream: TaskStream, tasks: Iterable[Task]) -> HeldOut:
    """Ids, issues, fixes and hidden tests of these tasks.

    Of a fix what it adds counts, of the tests those that it makes pass: the rest may be seen by anyone who works there.
    """
    ids: set[str] = set()
    issues: set[str] = set()
    texts: list[HeldText] = []
    for task in tasks:
        secret = stream.secret(task)
        ids.add(task.id)
        issues |= held_hashes(task.issue, render_issue(task.repo, task.issue))
        texts += held_issue(task.id, task.repo, task.issue)
        texts += held_text(task.id, _fix(secret))
        texts += held_text(task.id, _tests(secret))
    return HeldOut(frozenset(ids), frozenset(issues), tuple(texts))


def held_out_problems(problems: Iterable[Problem]) -> HeldOut:
    """Ids, texts and solutions of a programming benchmark's problems."""
    held = [(problem.id, text) for problem in problems for text in (problem.text or problem.stub, problem.canonical)]
    return HeldOut(frozenset(name for name, _ in held), texts=tuple(t for name, text in held for t in held_text(name, [text])))


def _fix(secret: TaskSecret) -> list[str]:
    if isinstance(secret, SweBenchSecret):
        return list(_added(secret.patch))
    return list(_new(secret.fix)) if secret.fix is not None else []


def _tests(secret: TaskSecret) -> list[str]:
    if isinstance(secret, SweBenchSecret):
        return list(_added(secret.test_patch))
    names = {test.rpartition("::")[2].partition("[")[0] for test in secret.fail_to_pass}
    deciding = [part for text in secret.tests.values() for part in _functions(text, names)]
    return deciding or list(secret.tests.values())


def _added(patch: str) -> Iterator[str]:
    """Each run of added lines of a unified diff."""
    run: list[str] = []
    for line in [*patch.split("\n"), ""]:
        if line.startswith("+") and not line.startswith("+++ "):
            run.append(line[1:])
        elif run:
            yield "\n".join(run)
            run = []


def _new(fix: MergedFix) -> Iterator[str]:
    """Each run of lines that the fix brings."""
    before, after = fix.before.splitlines(), fix.after.splitlines()
    for kind, _, _, start, end in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind in ("replace", "insert"):
            yield "\n".join(after[start:end])


def _functions(source: str, names: set[str]) -> Iterator[str]:
    """The Python functions of these names; none where it is no Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name in names:
            yield ast.get_source_segment(source, node) or ""
