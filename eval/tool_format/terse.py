"""The exam of the terse protocol, in the pocket world's own words: held-out repositories, seen through the five tools."""

from __future__ import annotations

import random
from itertools import count

from agent.tools import TestRun
from agent.turns import render_call, render_case, render_issue
from consolidation.synthesis.merged_fix import calls_for, edit_between
from eval.pocket.conventions import HOUSES
from eval.pocket.names import Split
from eval.pocket.runner import summary
from eval.pocket.stream import INVENTED_SHARE, REPOSITORIES
from eval.pocket.world import Problem, build_module, build_problem, choices, test_source
from eval.tool_format.prompts import CATEGORIES, Prompt, Turn
from eval.tool_format.score import Right


def terse_exam(seed: int = 0, each: int = 4) -> list[Prompt]:
    """`each` prompts of every category; every prompt has a bug of its own in a repository of the held-out part of the world."""
    return [_prompt(seed, category, number) for category in CATEGORIES for number in range(each)]


def _prompt(seed: int, category: str, number: int) -> Prompt:
    rng = random.Random(f"tool-format/{seed}/{category}/{number}")
    repo = REPOSITORIES[(CATEGORIES.index(category) + number) % len(REPOSITORIES)]
    problem, other = _problem(rng, repo), _problem(rng, repo)
    fix = problem.fix("tool-format")
    search, view, edit, test, submit = map(render_call, calls_for(fix))
    finds = Turn(search, (Right("search", lambda call: call.target == fix.symbol),))
    looks = Turn(view, (Right("view", lambda call: call.target == fix.path),))
    mends = Turn(edit, (Right("edit", lambda call: call.target == fix.path),))
    tests, submits = Turn(test, (Right("test"),)), Turn(submit, (Right("submit"),))
    place: dict[str, tuple[tuple[str, ...], tuple[Turn, ...]]] = {
        "text tools": ((search,), (looks,)),
        "validation": ((search, view, edit), (tests,)),
        "code intelligence": ((), (finds,)),
        "git": ((search, view, edit, test), (submits,)),
        "syntax trees": ((search, view), (mends,)),
        "domain": ((), (finds,)),
        "multi-step": ((), (finds, looks, mends)) if number % 2 else ((search, view, edit), (tests, submits)),
    }
    done, turns = place[category]
    case = edit_between(other.module.path, other.before, other.after)
    cases = (render_case(other.symptom, case.body),) if category == "domain" else ()
    visible = [f"{name}_{at}" for name, seen in problem.visible.items() for at in range(len(seen))]
    return Prompt(
        id=f"{category.split()[0]}-{number + 1}",
        category=category,
        opening=render_issue(repo, problem.symptom, cases),
        files={
            f"{repo}/__init__.py": "",
            f"{repo}/house.py": HOUSES[repo].source,
            problem.module.path: problem.before,
            f"tests/test_{problem.module.name}.py": test_source(problem.module, problem.visible),
        },
        turns=turns,
        done=done,
        tests=TestRun(True, summary(dict.fromkeys(visible, "PASSED"))),
    )


def _problem(rng: random.Random, repo: str) -> Problem:
    """A base-skill bug whose words say which function it is about."""
    for _ in count():
        module = build_module(rng, repo, Split.HELD_OUT, HOUSES[repo], INVENTED_SHARE)
        options = choices(module, False)
        problem = build_problem(rng, module, *rng.choice(options)) if options else None
        if problem is not None:
            return problem
    raise AssertionError("unreachable")
