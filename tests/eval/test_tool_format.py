"""The tool-format exam: it can be passed, it tells formats apart, and it says what went wrong."""

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import pytest

from agent.full import FULL, FULL_NATIVE
from agent.model import Completion, Message, Sampling, Speech
from agent.models.scripted import ScriptedModel
from agent.pocket.model import PocketModel
from agent.turns import FULL_TOOLS, TOOLS, arguments_of, parse_full
from consolidation.guards import Answer
from eval.exams import summarise
from eval.tool_format.guard import ToolFormatGuard
from eval.tool_format.prompts import CATEGORIES
from eval.tool_format.score import called

NAMES = tuple(tool.name for tool in FULL_TOOLS)


class Examinee(ScriptedModel):
    """Says for each prompt what it was told to; with every seed the same, unless it is told for `prompt#seed`."""

    def __init__(self, speaks: Speech, lines: Mapping[str, Sequence[Completion | str]]) -> None:
        super().__init__(speaks=speaks)
        self.lines = lines
        self.sampled: set[tuple[float, int]] = set()
        self.tools = 0

    def complete(
        self, conversations: Sequence[Sequence[Message]], sampling: Sampling, keys: Sequence[str] = ()
    ) -> list[Completion]:
        self.sampled.add((sampling.temperature, sampling.seed))
        self.tools = len(sampling.tools)
        answers = []
        for key, messages in zip(keys, conversations, strict=True):
            script = self.lines.get(key) or self.lines.get(key.partition("#")[0]) or self.lines[""]
            said = sum(message.role == "assistant" for message in messages)
            line = script[said - self.begins[key.partition("#")[0]]]
            answers.append(line if isinstance(line, Completion) else Completion(line, 0, 4, seconds=0.25))
        return answers

    @cached_property
    def begins(self) -> dict[str, int]:
        """How many turns there were before each prompt."""
        return {prompt.id: len(prompt.done) for prompt in ToolFormatGuard(self).prompts.values()}


def right(guard: ToolFormatGuard) -> dict[str, list[str]]:
    """The right answers to all prompts."""
    return {prompt.id: [turn.call for turn in prompt.turns] for prompt in guard.prompts.values()}


def sat(speaks: Speech, lines: Mapping[str, Sequence[Completion | str]], seeds: int = 1) -> dict[str, Answer]:
    """The exam, sat by a model with these answers."""
    guard = ToolFormatGuard(Examinee(speaks, lines), seeds=seeds)
    return dict(guard.answer(guard.items({}), {}))


@pytest.mark.parametrize("speaks", ["terse", "text", "native"])
def test_right_answers_to_all_prompts_are_worth_everything(speaks: Speech) -> None:
    guard = ToolFormatGuard(Examinee(speaks, {}))
    assert min(Counter(prompt.category for prompt in guard.prompts.values()).values()) >= 4
    assert {prompt.category for prompt in guard.prompts.values()} == set(CATEGORIES)
    assert {item: answer.score for item, answer in sat(speaks, right(guard)).items() if answer.score < 1} == {}


def test_a_native_model_is_given_its_tools_and_the_real_system_prompt() -> None:
    model = Examinee("native", {"": ["no"]})
    guard = ToolFormatGuard(model)
    guard.answer(guard.items({})[:1], {})
    assert model.tools == len(FULL_TOOLS)
    assert (guard.toolkit, ToolFormatGuard(Examinee("text", {})).toolkit) == (FULL_NATIVE, FULL)


OTHER_FORMS = {
    "JSON": lambda name, given: json.dumps({"name": name, "arguments": given}),
    "JSON in a fence": lambda name, given: f"```json\n{json.dumps({'tool': name, 'args': given}, indent=1)}\n```",
    "JSON in tags": lambda name, given: f'<tool_call>\n{{"name": "functions.{name}", "arguments": {{}}}}\n</tool_call>',
    "JSON keyed by the tool": lambda name, given: json.dumps({name: given}),
    "a function call": lambda name, given: f"I'll do that.\n\n{name}({', '.join(f'{k}={v!r}' for k, v in given.items())})",
    "a call in Python": lambda name, given: f"```python\nresult = tools.{name}()\nprint(result)\n```",
    "an XML tag": lambda name, given: f"<{name}>\n<path>x</path>\n</{name}>",
    "an XML tag by name": lambda name, given: f'<function_calls><invoke name="{name}"><parameter/></invoke></function_calls>',
    "a function tag": lambda name, given: f"<function={name}><parameter=path>x</parameter></function>",
    "a label": lambda name, given: f"Thought: I should do it.\nAction: {name}\nAction Input: x",
    "inline code": lambda name, given: f"Next I call\n`{name} x.py`",
    "a shell": lambda name, given: f"$ {name} x.py",
}


@pytest.mark.parametrize("form", OTHER_FORMS)
def test_the_right_tool_in_another_format_is_worth_half(form: str) -> None:
    calls = {name: parse_full(turns[0]) for name, turns in right(ToolFormatGuard(Examinee("text", {}))).items()}
    answers = sat("text", {name: [OTHER_FORMS[form](call.tool, arguments_of(call))] for name, call in calls.items()})
    assert {item: answer.score for item, answer in answers.items() if answer.score != 0.5} == {}
    assert all(answer.facts == {"timeout": 0, "malformed": 1} for answer in answers.values())


def test_a_call_without_its_fence_is_half_behind_prose_and_whole_alone() -> None:
    assert sat("text", {"": ["no"], "text-1": ["I look at it.\n\nview shop/cart.py"]})["text-1#0"].score == 0.5
    assert sat("text", {"": ["no"], "text-1": ["view shop/cart.py"]})["text-1#0"].score == 1
    two = "```\nview shop/cart.py\n```\n```\ntest\n```"
    assert sat("text", {"": ["no"], "text-1": [two]})["text-1#0"].score == 0.5


@pytest.mark.parametrize("speaks", ["terse", "text"])
@pytest.mark.parametrize(
    "said",
    [
        "",
        "I'll help you find it. First I need to view the file, then I would test it.",
        "I should search for the definition, edit it, run the tests (test) and submit.",
        '{"name": "execute_code", "arguments": {"code": "ls"}}',
        "```python\nprint('done')\n```",
        "<think>I will call\nview shop/cart.py\n</think>\nDone.",
    ],
)
def test_a_tool_that_is_only_spoken_of_is_worth_nothing(speaks: Speech, said: str) -> None:
    assert {answer.score for answer in sat(speaks, {"": [said]}).values()} == {0.0}


@pytest.mark.parametrize(
    ("prompt", "said", "score"),
    [
        ("text-1", "```\nview shop/prices.py\n```", 0.0),
        ("text-1", "```\nsearch Cart\n```", 0.0),
        ("text-2", "```\nview shop/cart.py\n```", 0.0),
        ("text-1", "```\nview ./shop/cart.py 1-20\n```", 1.0),
        ("valid-2", "```\ntest\n```", 0.0),
        ("tree-1", "```\nedit shop/cart.py\n    def count_lines(self):\n=>\n    def size(self, x):\n```", 0.0),
        ("tree-1", "```\nedit shop/cart.py 19\n    def size( self ) :\n```", 1.0),
        ("tree-1", "```\nedit shop/cart.py 999\n    def size(self):\n```", 0.0),
        ("tree-2", "```\nedit shop/report.py 1\n'''What was sold.'''\nfrom collections import defaultdict\n```", 1.0),
        ("git-2", "```\nsubmit\n```", 0.0),
    ],
)
def test_the_right_format_with_other_arguments_is_worth_nothing_and_spelling_does_not_matter(
    prompt: str, said: str, score: float
) -> None:
    guard = ToolFormatGuard(Examinee("text", {prompt: [said]}))
    assert guard.answer([f"{prompt}#0"], {})[f"{prompt}#0"].score == score


def test_several_turns_are_worth_the_worst_and_end_there() -> None:
    exam = right(ToolFormatGuard(Examinee("text", {})))["multi-2"]
    half = '{"name": "edit"}'
    assert sat("text", {"": ["no"], "multi-2": [exam[0], half]})["multi-2#0"].score == 0.5
    assert sat("text", {"": ["no"], "multi-2": [exam[0], exam[1], "no"]})["multi-2#0"].score == 0
    whole = sat("text", {"": ["no"], "multi-2": exam})["multi-2#0"]
    assert (whole.score, whole.seconds) == (1, 0.75)


def test_thinking_that_eats_the_tokens_is_a_time_out() -> None:
    lost = Completion("", 0, 512, finish_reason="length", thinking="Okay, the user wants")
    raw = Completion("<think>Okay, I could view", 0, 512, finish_reason="length")
    fine = Completion("```\nview shop/cart.py\n```", 0, 40, thinking="The user wants")
    found = sat("text", {"": ["no"], "text-1": [fine], "text-2": [lost], "text-3": [raw]})
    assert {key: found[f"text-{key}#0"].facts["timeout"] for key in (1, 2, 3, 4)} == {1: 0, 2: 1, 3: 1, 4: 0}
    assert [found[f"text-{key}#0"].score for key in (1, 2, 3)] == [1, 0, 0]


def test_seeds_are_sampled_and_their_spread_is_told() -> None:
    exam = right(ToolFormatGuard(Examinee("terse", {})))
    worse: dict[str, Sequence[Completion | str]] = {**exam, **{f"{name}#1": ["no"] for name in exam}}
    model = Examinee("terse", worse)
    guard = ToolFormatGuard(model, seeds=2, temperature=0.5)
    answers = sat("terse", worse, seeds=2)
    guard.answer(guard.items({})[:1] + guard.items({})[-1:], {})
    assert model.sampled == {(0.0, 0), (0.5, 1)}
    told = summarise(guard, answers)
    assert (told.items, told.score, told.seeds, told.spread) == (56, 0.5, {"0": 1.0, "1": 0.0}, 0.5)
    assert told.categories == dict.fromkeys(sorted(CATEGORIES), 0.5)
    assert (told.seconds, told.facts) == (0.25, {"malformed": 0.5, "timeout": 0.0})


def test_items_begin_with_all_categories_and_digests_tell_exams_apart() -> None:
    guard = ToolFormatGuard(Examinee("text", {}))
    assert len({guard.category(item) for item in guard.items({})[:14]}) == len(CATEGORIES)
    assert guard.items({"a/b": Path("x")})[0].startswith("a/b:")
    assert guard.category("a/b:text-1#2") == "text tools"
    exams = [ToolFormatGuard(Examinee(speaks, {})) for speaks in ("text", "native", "terse")]  # type: ignore[arg-type]
    exams += [ToolFormatGuard(Examinee("text", {}), tokens=99), ToolFormatGuard(Examinee("terse", {}), seed=1)]
    assert len({exam.digest for exam in exams}) == len(exams)
    assert exams[0].digest == guard.digest


@pytest.mark.parametrize("tools", [NAMES, TOOLS])
def test_hostile_text_is_read_in_no_time(tools: tuple[str, ...]) -> None:
    texts = ["view " * 5_000, '"name": "' * 2_000, "<tool " * 3_000, "a." * 9_000 + "view(", "\t" * 20_000, "search x " * 2_000]
    began = time.monotonic()
    for text in (*texts, "\n".join(texts)):
        called(text, tools)
    assert time.monotonic() - began < 2


def test_the_pocket_model_speaks_its_format() -> None:
    guard = ToolFormatGuard(PocketModel(threads=1), seeds=1, tokens=96)
    items = guard.items({})
    answers = guard.answer(items, {})
    told = summarise(guard, answers)
    assert told.score > 0.7, told
    alone = guard.answer(items[:2], {})
    assert [answers[item].said for item in items[:2]] == [alone[item].said for item in items[:2]]
