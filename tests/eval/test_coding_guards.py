"""HumanEval and MBPP: what is read out of an answer, what cannot cheat, and the guard made of them.

The problems here are made up, in the published schemas; the real files are used where they are, and never kept.
"""

import gzip
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import SandboxError
from agent.model import Completion, Message, Sampling
from agent.models.scripted import ScriptedModel
from agent.sandbox.base import Sandbox
from agent.sandbox.ladder import probe
from agent.workspace import Workspace
from eval.coding.extract import MAX_CHARS, program
from eval.coding.guards import CodingGuard
from eval.coding.problems import Benchmark, Problem, problems
from eval.coding.prompts import prompt
from eval.coding.run import mutants, run, verify
from eval.errors import EvalError
from eval.fetch import SOURCES, Source

DATA = Path(os.environ.get("SLEEPYD_DATA", Path(__file__).parents[3] / "shared" / "data"))
STUB = (
    "from typing import List\n\n\ndef twice(x):\n    return 2 * x\n\n\n"
    'def most(xs: List[int]) -> int:\n    """The largest, or -1."""\n'
)
BODY = "    best = -1\n    for x in xs:\n        if x > best:\n            best = x\n    return best\n"
TEST = (
    "def check(candidate):\n    assert candidate([1, 7, 3]) == 7\n    assert candidate([]) == -1\n"
    "    assert twice(candidate([4])) == 8\n"
)
HEADER = {"task_id": "HumanEval/900", "prompt": STUB, "entry_point": "most", "canonical_solution": BODY, "test": TEST}
TEXT = {
    "task_id": 900,
    "prompt": "Write a function that adds one.",
    "code": "def inc(x):\r\n  return x + 1",
    "test_imports": ["import math"],
    "test_list": ["assert inc(1) == 2", "assert math.isclose(inc(0.5), 1.5)"],
}


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    try:
        return probe(trusted_generated=False)
    except SandboxError as error:
        pytest.skip(str(error))


def written(folder: Path) -> dict[str, Source]:
    """Both files, and the sources that say they are the published ones."""
    data = {
        "humaneval": gzip.compress(json.dumps(HEADER).encode()),
        "mbpp": json.dumps([TEXT, TEXT | {"task_id": 901}]).encode(),
    }
    for name, content in data.items():
        (folder / SOURCES[name].file).write_bytes(content)
    return {n: replace(SOURCES[n], digest=f"sha256:{hashlib.sha256(c).hexdigest()}", size=len(c)) for n, c in data.items()}


@pytest.fixture
def most(tmp_path: Path) -> Problem:
    return problems("humaneval", tmp_path, written(tmp_path))[0]


def passes(problem: Problem, source: str, sandbox: Sandbox) -> bool:
    return next(run([(problem, source)], sandbox)).passed


def test_canonical_solutions_pass_and_mutants_fail(tmp_path: Path, sandbox: Sandbox) -> None:
    sources = written(tmp_path)
    both = [*problems("humaneval", tmp_path, sources), *problems("mbpp", tmp_path, sources)]
    assert len(mutants(both[0])) == 3
    found = verify(both, sandbox)
    assert found.sound
    assert (found.problems, found.failed, found.unharmed) == (3, (), ())
    assert found.survivors == 0
    weak = replace(both[1], canonical="def inc(x):\n    return x")
    assert verify([weak], sandbox).failed == (weak.id,)


CHEATS = {
    "exits early": "raise SystemExit(0)",
    "exits early, for good": "import os\nprint('test_problem.py::test_problem PASSED')\nos._exit(0)",
    "exits when called": "import os\ndef most(xs):\n    os._exit(0)",
    "prints what a report looks like": "def most(xs):\n    print({'test_problem.py::test_problem': 'PASSED'})\n    return 0",
    "turns assertions off": "import builtins\nbuiltins.AssertionError = type('Calm', (Exception,), {})\n"
    "def most(xs):\n    return 0",
    "replaces print and json": "import builtins, json\nbuiltins.print = json.dumps = lambda *a, **k: 'PASSED'\n"
    "def most(xs):\n    return 0",
    "equals everything": "class Any(int):\n    def __eq__(self, other): return True\n"
    "    __ne__ = __lt__ = __gt__ = lambda s, o: False\n"
    "    __rmul__ = __mul__ = lambda s, o: s\ndef most(xs):\n    return Any()",
    "looks for the key": "import gc, pathlib, sys\ndef most(xs):\n    text = ''.join(p.read_text(errors='replace') for p in "
    "pathlib.Path('.').rglob('*') if p.is_file())\n    assert 'candidate([1, 7, 3])' not in text\n"
    "    return [o for o in gc.get_objects() if isinstance(o, dict) and 'key' in o]",
    "raises what the test may catch": "def most(xs):\n    raise AssertionError",
    "is not there": "",
}


@pytest.mark.parametrize("cheat", CHEATS)
def test_a_program_that_does_not_solve_the_problem_fails_whatever_it_does(most: Problem, sandbox: Sandbox, cheat: str) -> None:
    assert not passes(most, CHEATS[cheat], sandbox)


def test_a_program_that_does_not_end_is_late(most: Problem, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eval.coding.run.SECONDS", 1.0)
    (ran,) = run([(most, "def most(xs):\n    while True:\n        pass")], sandbox)
    assert (ran.passed, ran.late) == (False, True)


GOOD = "def most(xs):\n    return max(xs, default=-1)"
ANSWERS = {
    "a block": f"```python\n{GOOD}\n```",
    "prose around it": f"Sure! Here it is:\n\n```py\n{GOOD}\n```\nThis def of most(xs) uses max.",
    "a thought before": f"<think>\ndef most(xs): return 0\n```python\ndef most(xs): return 0\n```\n</think>\n```\n{GOOD}\n```",
    "the last of several": "First:\n```python\ndef most(xs):\n    return max(xs)\n```\n"
    f"Fails for []. Better:\n```python\n{GOOD}\n```",
    "a usage example behind": f"```python\n{GOOD}\n```\nUse it:\n```python\nprint(most([1, 2]))\n```",
    "a shell block before": f"```sh\npip install most\n```\n```python\n{GOOD}\n```",
    "no fence": f"Here is the function.\n\n{GOOD}\n\nIt returns the largest value, doesn't it?",
    "nothing but code": GOOD,
    "an open fence": f"```python\n{GOOD}\n",
    "cut in the next function": f"```python\n{GOOD}\n\n\ndef helper(x):\n    return (x +",
    "cut in a second block": f"```python\n{GOOD}\n```\nOr:\n```python\ndef most(xs):\n    return (",
    "a body alone": f"```python\n{BODY}```",
    "an indented block": "1. Do:\n   ```python\n   " + GOOD.replace("\n", "\n   ") + "\n   ```",
    "tildes and carriage returns": f"~~~python\n{GOOD}\n~~~\n".replace("\n", "\r\n"),
    "an import from the future": f"```python\nfrom __future__ import annotations\n{GOOD}\n```",
    "its own main": f"```python\n{GOOD}\n\nif __name__ == '__main__':\n    raise SystemExit(most([1]))\n```",
}


def test_the_program_is_found_however_it_is_said(most: Problem, sandbox: Sandbox) -> None:
    ran = run([(most, program(most, said)) for said in ANSWERS.values()], sandbox)
    assert [name for name, one in zip(ANSWERS, ran, strict=True) if not one.passed] == []


@pytest.mark.parametrize(
    "said",
    [
        "",
        "I cannot.",
        f"<think>\n```python\n{GOOD}\n```",
        "```python\n```",
        "\ud800\0def most(",
        "```\n" * 5_000,
        "(" * MAX_CHARS,
    ],
)
def test_what_holds_no_program_makes_none_that_passes_and_breaks_nothing(most: Problem, sandbox: Sandbox, said: str) -> None:
    assert not passes(most, program(most, said), sandbox)


def test_prompts_show_no_hidden_test(tmp_path: Path) -> None:
    sources = written(tmp_path)
    (asked,) = prompt(problems("humaneval", tmp_path, sources)[0])
    assert "The largest, or -1." in asked.content
    assert "candidate" not in asked.content
    (asked,) = prompt(problems("mbpp", tmp_path, sources)[0])
    assert all(line in asked.content for line in ("adds one", *TEXT["test_list"]))
    assert "x + 1" not in asked.content


def test_a_file_that_is_missing_or_not_the_published_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvalError, match="sleepyctl data fetch humaneval"):
        problems("humaneval", tmp_path)
    written(tmp_path)
    with pytest.raises(EvalError, match=r"not the published file.*sleepyctl data fetch mbpp"):
        problems("mbpp", tmp_path)


class Coder(ScriptedModel):
    """Solves the first MBPP problem with the bare base, both with an adapter called good, none with any other."""

    def __init__(self) -> None:
        super().__init__(speaks="text")
        self.adapter = ""
        self.asked = 0

    @property
    def fingerprint(self) -> str:
        return f"coder{self.adapter}"

    def use(self, adapter: Path | None) -> None:
        self.adapter = adapter.name if adapter else ""

    def complete(
        self, conversations: Sequence[Sequence[Message]], sampling: Sampling, keys: Sequence[str] = ()
    ) -> list[Completion]:
        self.asked += len(conversations)
        step = {"": "1", "good": "1"}.get(self.adapter, "2")
        return [Completion(f"```python\ndef inc(x):\n    return x + {step}\n```", 5, 9, seconds=0.5) for _ in conversations]


def guard(folder: Path, sandbox: Sandbox, model: ScriptedModel, tokens: int = 64, name: Benchmark = "mbpp") -> CodingGuard:
    return CodingGuard(name, folder, model, sandbox, tokens=tokens, block=1, sources=written(folder))


def test_each_adapter_answers_every_problem_once_and_the_bare_base_serves_what_is_not_named(
    tmp_path: Path, sandbox: Sandbox
) -> None:
    model = Coder()
    one = guard(tmp_path, sandbox, model)
    plain = list(one.items({}))
    assert sorted(plain) == ["MBPP/900", "MBPP/901"]
    assert one.items({"*": Path("bad")}) == plain
    routes = {"a/b": Path("bad"), "c": Path("bad"), "d": Path("good")}
    items = one.items(routes)
    assert sorted(items) == ["a/b:MBPP/900", "a/b:MBPP/901", "d:MBPP/900", "d:MBPP/901"]
    answers = one.answer(items, routes)
    assert list(answers) == items
    assert {item: answer.score for item, answer in answers.items()} == {i: float(i.startswith("d:")) for i in items}
    assert model.adapter == ""
    model.asked = 0
    base = one.answer(items, {})
    assert all(answer.score == 1 for answer in base.values())
    assert model.asked == 2, "the same question to the same artefact is asked once"
    assert {base[i].said == answers[i].said for i in items if i.startswith("a/b")} == {False}
    assert one.answer(plain, {"*": Path("bad"), "a/b": Path("good")})[plain[0]].score == 0
    assert base[items[0]].seconds == 0.5


def test_its_digest_depends_on_what_is_asked_and_not_on_what_is_served(tmp_path: Path, sandbox: Sandbox) -> None:
    model = Coder()
    first = guard(tmp_path, sandbox, model).digest
    model.use(Path("good"))
    assert guard(tmp_path, sandbox, model).digest == first
    assert guard(tmp_path, sandbox, model, tokens=65).digest != first
    assert guard(tmp_path, sandbox, model, name="humaneval").digest != first


def test_a_broken_sandbox_or_an_unknown_item_is_no_answer(tmp_path: Path) -> None:
    class Broken:
        name: str = "broken"

        def run(self, argv: Sequence[str], workspace: Workspace, limits: object) -> object:
            raise SandboxError("no bwrap")

    one = guard(tmp_path, Broken(), Coder())  # type: ignore[arg-type]
    with pytest.raises(EvalError, match="no bwrap"):
        one.answer(one.items({}), {})
    with pytest.raises(EvalError, match="no item"):
        one.answer(["MBPP/1"], {})


@pytest.mark.parametrize(("name", "count"), [("humaneval", 164), ("mbpp", 427)])
def test_real_problems_can_be_solved_and_tell_mutants_apart(name: Benchmark, count: int, sandbox: Sandbox) -> None:
    chosen = _real(name)
    assert len(chosen) == len({problem.id for problem in chosen}) == count
    found = verify(chosen[3 :: count // 5], sandbox)
    assert found.sound, found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["humaneval", "mbpp"])
def test_all_real_problems_can_be_solved_and_tell_mutants_apart(name: Benchmark, sandbox: Sandbox) -> None:
    found = verify(_real(name), sandbox)
    assert found.sound, found


def _real(name: Benchmark) -> list[Problem]:
    if not (DATA / SOURCES[name].file).is_file():
        pytest.skip(f"needs {SOURCES[name].file} (SLEEPYD_DATA names its folder); the project may not carry benchmark data")
    return problems(name, DATA)
