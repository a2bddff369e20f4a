"""Native tool calls: what a model calls becomes that turn or none, and every turn can be told its server again."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from anthropic.types import MessageParam, ToolParam
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from agent.errors import CallError, ModelUnavailable
from agent.full import FULL_NATIVE
from agent.loop import Attempt, Budget, NoRecorder, run
from agent.model import Message, Model, Sampling
from agent.models.anthropic_model import AnthropicModel
from agent.models.calls import conversation, turn
from agent.models.engines import ModelConfig
from agent.models.ollama_model import OllamaModel
from agent.models.openai_model import OpenAIModel
from agent.models.payloads import block_messages, chat_message, described, functions
from agent.models.purse import Price
from agent.models.remote import Patience
from agent.models.replay import ReplayModel
from agent.tools import TestRun
from agent.toolset import FULL_TOOLS
from agent.turns import Call, call_of, parse_full, render_full, render_refused
from agent.workplace import tree_diff
from agent.workspace import Workspace, write_tree
from memory.trajectories import Outcome, Trajectory
from tests.agent.servers import KEY, NAME, AnthropicDouble, Brain, ChatDouble, Kind, serving
from tests.doubles import pocket_ollama as pocket_ollama_double
from tests.doubles.ollama import OllamaDouble
from tests.doubles.pocket_ollama import BRISK, TOKENIZER
from tests.doubles.tool_calls import blocks_problem, chat_problem

ASK = [Message("user", "issue in shop\n`total_fee` always gives None.")]
SEEN = Message("tool", "shop/fees.py:3: def total_fee(prices):")
OFFERED = Sampling(max_tokens=24, tools=FULL_TOOLS)
VIEW = ("view", {"path": "shop/fees.py", "start": 3})
EDIT = ("edit", {"path": "a.py", "old": "```\nx = 1\n=>\n", "new": "```\n</think>\n"})
BAD: list[tuple[str, object]] = [
    ("view", {"path": 7}),
    ("view", {"file": "a.py"}),
    ("view", {"path": "a.py\nsubmit"}),
    ("view", "{'path': 'a.py'}"),
    ("view", '{"path": "a.py", "start": NaN}'),
    ("view", "[" * 5_000),
    ("view", None),
    ("create", {"path": "a.py", "text": "x" * 30_000}),
    ("view", {"file": "</think> submit "}),
    ("edit", {"path": "</think>\n```\nsubmit\n```"}),
    ("rm -rf", {"path": "/"}),
    ("", {}),
    ("submit", ["now"]),
    ("submit", {"now": "\ud800\0"}),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
WORDS = st.text() | st.sampled_from(["```\nsubmit\n```", "<think>", "</think>\nsubmit", "submit", "````\nx"])


def arguments() -> st.SearchStrategy[Any]:
    names = sorted({name for tool in FULL_TOOLS for name in tool.arguments})
    near = st.dictionaries(st.sampled_from(names), WORDS | st.integers(1, 99) | st.lists(WORDS, max_size=2))
    return near | JSON | near.map(json.dumps) | st.text()


def called(text: str) -> Call | None:
    try:
        return parse_full(text)
    except CallError:
        return None


def meant(name: str, given: Any) -> Call | None:
    """The call that these arguments are, as `agent.turns` has it."""
    with contextlib.suppress(CallError, ValueError):
        given = json.loads(given) if isinstance(given, str) else given
        return call_of(name, given) if isinstance(given, dict) else None
    return None


class TestTurns:
    @given(WORDS, st.sampled_from([tool.name for tool in FULL_TOOLS]) | st.text(), arguments())
    def test_any_call_becomes_the_turn_that_was_meant_or_one_that_is_no_call(self, prose: str, name: str, given: Any) -> None:
        text = turn(prose, [(name, given)])
        assert called(text) in (meant(name, given), None)
        assert text == text.encode("utf-8", "replace").decode()

    @example(['{"name": "view", "arguments": {"path": 1e999}}'])
    @given(st.lists(WORDS | st.tuples(st.sampled_from([t.name for t in FULL_TOOLS]) | st.text(), arguments()), max_size=5))
    def test_any_conversation_is_told_by_the_rules_of_each_api(self, said: list[Any]) -> None:
        talk = list(ASK)
        for one in said:
            talk += [Message("assistant", one if isinstance(one, str) else turn("", [one])), SEEN]
        told = conversation(talk, FULL_TOOLS)
        assert chat_problem([chat_message(one) for one in told]) == ""
        body = {"tools": [described(tool) for tool in FULL_TOOLS], "messages": block_messages(told)}
        assert blocks_problem(body) == ""
        assert json.loads(json.dumps(body, allow_nan=False)) == body

    def test_requests_are_of_the_official_clients_types(self) -> None:
        chat = pytest.importorskip("openai.types.chat")
        talk = [Message("system", "mend it"), *ASK]
        for one in (VIEW, EDIT, ("view", {"path": 7})):
            talk += [Message("assistant", turn("I look.", [one])), SEEN]
        told = conversation(talk, FULL_TOOLS)
        for kind, made in (
            (chat.ChatCompletionMessageParam, [chat_message(one) for one in told]),
            (chat.ChatCompletionToolParam, functions(FULL_TOOLS)),
            (MessageParam, block_messages(told)),
            (ToolParam, [described(tool) for tool in FULL_TOOLS]),
        ):
            adapter = TypeAdapter(list[kind])  # type: ignore[valid-type]
            for one in adapter.validate_python(made):
                for part in one.values():
                    list(part or ())  # iterables are checked as they are read

    def test_what_was_said_before_a_call_is_kept_and_told_again(self) -> None:
        for name, wanted in (VIEW, EDIT):
            text = turn("\nLet me look.\n", [(name, wanted)])
            assert called(text) == call_of(name, wanted)
            told = conversation([*ASK, Message("assistant", text), SEEN], FULL_TOOLS)
            assert (told[1].text, told[1].use and told[1].use.name, told[2].role) == ("Let me look.", name, "tool")
            assert told[1].use
            assert told[1].use == told[2].use
            assert call_of(name, told[1].use.arguments) == call_of(name, wanted)

    def test_prose_that_would_hide_the_call_is_dropped(self) -> None:
        assert turn("```\nsubmit\n```", [VIEW]) == render_full(call_of(*VIEW))
        assert turn("<think>", [VIEW]) == render_full(call_of(*VIEW))

    def test_of_several_calls_only_the_first_counts(self) -> None:
        assert turn("", [VIEW, ("submit", {})]) == render_full(call_of(*VIEW))
        assert called(turn("", [("nothing", {}), ("submit", {})])) is None

    @pytest.mark.parametrize(("name", "given"), BAD)
    def test_what_is_no_call_of_ours_is_never_read_as_one(self, name: str, given: object) -> None:
        text = turn("", [(name, given)])
        assert called(text) is None
        assert called(render_refused(name, given)) is None

    @pytest.mark.parametrize(
        ("name", "given", "words"),
        [
            ("grep", {}, "there is no tool 'grep'; use one of: map, search"),
            ("view", {"file": "a"}, "view takes no 'file'"),
            ("view", {}, "view needs path"),
            ("view", {"path": 7}, "path of view must be a string"),
            ("edit", '{"path": "a', "arguments of 'edit' are no whole JSON object"),
            ("create", {"path": "a.py", "text": "x" * 30_000}, "in parts"),
        ],
    )
    def test_what_is_wrong_with_a_call_is_said(self, name: str, given: object, words: str) -> None:
        with pytest.raises(CallError, match=re.escape(words)):
            parse_full(turn("I try.", [(name, given)]))

    @pytest.mark.parametrize("given", [{}, "{}", {"path": "a.py", "text": "x"}])
    def test_a_call_that_was_cut_is_never_carried_out(self, given: object) -> None:
        for name in ("submit", "create"):
            assert called(turn("I do.", [(name, given)], whole=False)) is None

    def test_pairs_are_made_anew_the_same_way_however_long_the_talk_grows(self) -> None:
        talk = [*ASK, *(m for _ in range(3) for m in (Message("assistant", render_full(call_of(*VIEW))), SEEN))]
        whole = conversation(talk, FULL_TOOLS)
        uses = [said.use.id for said in whole if said.use and said.role == "assistant"]
        assert len(set(uses)) == 3
        assert all(len(one) == 9 and one.isalnum() for one in uses)
        assert whole[:3] == conversation(talk[:3], FULL_TOOLS)

    def test_a_call_without_a_result_is_told_as_text(self) -> None:
        text = render_full(call_of(*VIEW))
        told = conversation([*ASK, Message("assistant", text), Message("user", "stop")], FULL_TOOLS)
        assert [(said.role, said.use) for said in told] == [("user", None), ("assistant", None), ("user", None)]


@pytest.fixture(scope="module")
def brain() -> Brain:
    return Brain(512)


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def start(brain: Brain, waits: list[float]) -> Iterator[Callable[..., Any]]:
    with contextlib.ExitStack() as stack:

        def chat(kind: Kind = "vllm", tools: bool = True, **options: Any) -> tuple[OpenAIModel, ChatDouble]:
            double = ChatDouble(brain, kind)
            double.tools = tools
            url, patience = stack.enter_context(serving(double.app)), Patience(3, 30, waits.append)
            return stack.enter_context(contextlib.closing(OpenAIModel(f"{url}/v1", NAME, patience=patience, **options))), double

        yield chat


def asked(double: ChatDouble) -> list[Any]:
    return double.faults.bodies("completions")


def reply(calls: list[tuple[str, object]], content: str | None = None, ended: str = "tool_calls") -> str:
    made = [{"id": "x", "type": "function", "function": {"name": name, "arguments": given}} for name, given in calls]
    return json.dumps({"choices": [{"message": {"content": content, "tool_calls": made}, "finish_reason": ended}]})


class TestOpenAI:
    @pytest.mark.parametrize("kind", ["vllm", "llama", "lmstudio", "hosted"])
    @pytest.mark.parametrize("tools", [True, False])
    def test_a_server_is_tried_once_and_spoken_to_as_it_can(
        self, start: Any, kind: Kind, tools: bool, waits: list[float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SLEEPY_TEST_KEY", KEY)
        model, double = start(kind, tools, key_variable="SLEEPY_TEST_KEY" if kind == "hosted" else "")
        assert model.speaks == ("native" if tools else "text")
        tried = len(asked(double))
        assert called(model.complete([ASK], OFFERED)[0].text) == call_of("search", {"pattern": "total_fee"})
        assert model.speaks == ("native" if tools else "text")
        assert ["tools" in body for body in asked(double)[tried:]] == [tools]
        assert waits == []

    def test_a_refusal_for_another_reason_is_not_taken_for_a_lack_of_tools(self, start: Any) -> None:
        model, double = start()
        double.faults.add(400, '{"error": {"message": "could not finish the message: max_tokens was reached"}}')
        assert model.speaks == "native"

    def test_a_server_that_is_away_is_asked_again_later(self, start: Any) -> None:
        model, double = start()
        double.faults.add(503, "{}", count=3)
        with pytest.raises(ModelUnavailable):
            _ = model.speaks
        assert model.speaks == "native"

    def test_how_it_speaks_is_part_of_the_fingerprint(self, start: Any) -> None:
        prints = set()
        for speaks in ("native", "text"):
            model, double = start(speaks=speaks)
            model._server.http.shown = "the same"
            prints.add(model.fingerprint)
            assert asked(double) == []
        assert len(prints) == 2

    def test_tools_are_offered_to_none_that_speaks_text(self, start: Any) -> None:
        model, double = start(speaks="text")
        model.complete([ASK], OFFERED)
        assert "tools" not in asked(double)[-1]

    @pytest.mark.parametrize(("name", "given"), [*BAD, ("view", {"path": "a" * 99_999}), ("x" * 99_999, "{}")])
    def test_a_bad_call_is_a_turn_to_correct_and_the_next_request_is_taken(self, start: Any, name: str, given: object) -> None:
        model, double = start(speaks="native")
        double.faults.add(200, reply([(name, given)]))
        said = model.complete([ASK], OFFERED)[0]
        assert called(said.text) is None
        later = [*ASK, Message("assistant", said.text[:300]), Message("tool", "no such call")]
        assert model.complete([later], OFFERED)[0].text
        assert asked(double)[-1]["messages"][-1]["content"] == "no such call"

    def test_the_first_of_several_calls_counts_and_only_it_is_told_again(self, start: Any) -> None:
        model, double = start(speaks="native")
        double.faults.add(200, reply([VIEW, ("submit", "{}")], "I look."))
        said = model.complete([ASK], OFFERED)[0].text
        assert called(said) == call_of(*VIEW)
        model.complete([[*ASK, Message("assistant", said), SEEN]], OFFERED)
        _, made, result = asked(double)[-1]["messages"]
        assert (made["content"], [call["function"]["name"] for call in made["tool_calls"]]) == ("I look.", ["view"])
        assert json.loads(made["tool_calls"][0]["function"]["arguments"]) == {"path": "shop/fees.py", "start": 3, "end": 3}
        assert (result["role"], result["tool_call_id"]) == ("tool", made["tool_calls"][0]["id"])

    def test_an_answer_without_a_call_is_its_text(self, start: Any) -> None:
        model, double = start(speaks="native")
        double.faults.add(200, reply([], text := "Done so:\n```\ntest\n```", "stop"))
        assert model.complete([ASK], OFFERED)[0].text == text

    def test_a_call_that_was_cut_off_is_not_carried_out(self, start: Any) -> None:
        model, double = start(speaks="native")
        double.faults.add(200, reply([("submit", "{}")], ended="length"))
        answer = model.complete([ASK], OFFERED)[0]
        assert (called(answer.text), answer.finish_reason) == (None, "length")

    @pytest.mark.parametrize("said", ["Failed to parse input at pos 9: <tool_call>", "error parsing tool call: raw='{', err=x"])
    def test_a_call_that_the_server_could_not_read_is_the_models_mistake(
        self, start: Any, waits: list[float], said: str
    ) -> None:
        model, double = start(speaks="native")
        double.faults.add(500, json.dumps({"error": {"code": 500, "message": said}}))
        answer = model.complete([ASK], OFFERED)[0]
        assert (called(answer.text), said.split()[0] in answer.text, waits) == (None, True, [])
        assert called(model.complete([[*ASK, Message("assistant", answer.text), SEEN]], OFFERED)[0].text)


class Shop:
    """A workplace whose tests are one look at the file."""

    def __init__(self, root: Path) -> None:
        write_tree(root, {"fees.py": "FEE = 1\n"})
        self.workspace = Workspace(root)

    def test(self, targets: Sequence[str] = ()) -> TestRun:
        good = "FEE = 2" in self.workspace.read("fees.py")
        return TestRun(good, "1 passed" if good else "1 failed")

    def diff(self) -> str:
        return tree_diff({"fees.py": "FEE = 1\n"}, self.workspace.snapshot())

    def grade(self) -> tuple[Outcome, str]:
        return (Outcome.RESOLVED if self.test().passed else Outcome.UNRESOLVED), "looked"

    def close(self) -> None:
        """Nothing to do."""


def test_a_whole_attempt_in_native_calls_is_kept_as_text_and_can_be_replayed(start: Any, tmp_path: Path) -> None:
    model, double = start(speaks="native")
    edit = ("edit", {"path": "fees.py", "old": "FEE = 1", "new": "FEE = 2"})
    for number, call in enumerate(
        [("look", {}), ("view", '{"path": "fees.py"}'), edit, ("test", {}), ("submit", "{}"), ("submit", {})]
    ):
        double.faults.add(200, reply([call], f"Thought {number}."))
    toolkit, sampling = FULL_NATIVE, Sampling(tools=FULL_NATIVE.tools)

    def play(model: Model, name: str) -> Trajectory:
        common = {"task_id": "t", "repo": "shop", "prompt": "mend it", "model": model.name, "config_hash": "0"}
        began = datetime(2026, 1, 1, tzinfo=UTC)
        trajectory = Trajectory(id=name, system=toolkit.system, started_at=began, **common)  # type: ignore[arg-type]
        attempt = Attempt(trajectory, lambda: Shop(tmp_path / name), Budget(), toolkit)
        (ended,) = run([attempt], model, NoRecorder(), sampling)
        return ended

    lived = play(model, "a")
    assert (lived.outcome, [step.tool for step in lived.steps][:4]) == (Outcome.RESOLVED, ["malformed", "view", "edit", "test"])
    assert "there is no tool 'look'" in lived.steps[0].observation
    assert lived.steps[2].said == "Thought 2.\n\n```\nedit fees.py\nFEE = 1\n=>\nFEE = 2\n```"
    assert all(chat_problem(body["messages"]) == "" for body in asked(double))
    assert sum(len(message.get("tool_calls", ())) for message in asked(double)[-1]["messages"]) == len(lived.steps) - 2
    again = play(ReplayModel([lived], "native"), "b")
    assert [(step.said, step.observation) for step in again.steps] == [(step.said, step.observation) for step in lived.steps]


shared = pocket_ollama_double.shared


@pytest.fixture
def ollama(shared: OllamaDouble) -> OllamaDouble:
    shared.reset()
    shared.habits.tools = True
    return shared


@pytest.fixture
def native(ollama: OllamaDouble) -> Iterator[OllamaModel]:
    with contextlib.closing(OllamaModel(NAME, ollama.host, 512, patience=BRISK)) as model:
        yield model


class TestOllama:
    @pytest.mark.parametrize(
        ("tools", "version", "speaks"), [(True, "0.33.0", "native"), (False, "0.33.0", "text"), (True, "0.11.0", "text")]
    )
    def test_what_the_server_says_of_the_model_decides(
        self, native: OllamaModel, ollama: OllamaDouble, tools: bool, version: str, speaks: str
    ) -> None:
        ollama.habits.tools, ollama.habits.version = tools, version
        assert native.speaks == speaks
        native.complete([ASK], OFFERED)
        assert bool(ollama.asked[-1][1].get("tools")) == (speaks == "native")

    def test_a_model_that_nights_train_is_not_spoken_to_natively(self, ollama: OllamaDouble) -> None:
        with contextlib.closing(OllamaModel(NAME, ollama.host, 512, tokenizer=TOKENIZER, patience=BRISK)) as model:
            assert model.speaks == "terse"

    def test_calls_and_results_are_told_as_ollama_has_them(self, native: OllamaModel, ollama: OllamaDouble) -> None:
        said = native.complete([ASK], OFFERED)[0].text
        assert called(said) == call_of("search", {"pattern": "total_fee"})
        native.complete([[*ASK, Message("assistant", said), SEEN]], OFFERED)
        _, made, result = ollama.asked[-1][1]["messages"]
        assert made["tool_calls"] == [{"function": {"name": "search", "arguments": {"pattern": "total_fee"}}}]
        assert (result["role"], result["tool_name"], result["content"]) == ("tool", "search", SEEN.content)
        offered = ollama.asked[-1][1]["tools"]
        assert [tool["function"]["name"] for tool in offered] == [tool.name for tool in FULL_TOOLS]

    @pytest.mark.parametrize("said", ["error parsing tool call: raw='ls', err=invalid", "unexpected end of JSON input"])
    def test_a_call_that_the_server_could_not_read_is_the_models_mistake(
        self, native: OllamaModel, ollama: OllamaDouble, said: str
    ) -> None:
        native.warm()
        ollama.habits.faults = {"/api/chat": [(500, said)]}
        answer = native.complete([ASK], OFFERED)[0]
        assert (called(answer.text), answer.finish_reason) == (None, "stop")
        assert called(native.complete([[*ASK, Message("assistant", answer.text), SEEN]], OFFERED)[0].text)


@pytest.fixture
def claude(brain: Brain, monkeypatch: pytest.MonkeyPatch, waits: list[float]) -> Iterator[Callable[..., Any]]:
    monkeypatch.setenv("SLEEPY_TEST_KEY", KEY)
    with contextlib.ExitStack() as stack:

        def open_one(**options: Any) -> tuple[AnthropicModel, AnthropicDouble]:
            double = AnthropicDouble(brain)
            given: dict[str, Any] = {"budget_usd": 1.0, "price": Price(3, 15), "options": {"temperature": 0}} | options
            url, patience = stack.enter_context(serving(double.app)), Patience(3, 30, waits.append)
            model = AnthropicModel("claude-test", url=url, key_variable="SLEEPY_TEST_KEY", patience=patience, **given)
            return stack.enter_context(contextlib.closing(model)), double

        yield open_one


def used(uses: list[tuple[str, object]], text: str = "", ended: str = "tool_use") -> str:
    content: list[dict[str, object]] = [{"type": "text", "text": text}] if text else []
    content += [{"type": "tool_use", "id": "toolu_1", "name": name, "input": given} for name, given in uses]
    return json.dumps({"content": content, "stop_reason": ended, "usage": {"input_tokens": 9, "output_tokens": 2}})


class TestAnthropic:
    def test_every_turn_reads_what_the_turn_before_wrote(self, claude: Any) -> None:
        model, double = claude()
        talk, cached = [Message("system", "Fix the issue. " * 9), *ASK], []
        for _ in range(3):
            answer = model.complete([talk], OFFERED)[0]
            assert called(answer.text)
            cached.append(answer.cached_tokens)
            talk += [Message("assistant", answer.text), SEEN]
        assert 0 == cached[0] < cached[1] < cached[2]
        assert double.faults.bodies("messages")[-1]["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}

    @pytest.mark.parametrize(("name", "given"), BAD)
    def test_a_bad_call_is_a_turn_to_correct_and_the_next_request_is_taken(self, claude: Any, name: str, given: object) -> None:
        model, double = claude()
        double.faults.add(200, used([(name, given)], "I try."))
        said = model.complete([ASK], OFFERED)[0].text
        assert called(said) is None
        later = [*ASK, Message("assistant", said[:300]), Message("tool", "no such call")]
        assert model.complete([later], OFFERED)[0].text

    def test_the_first_call_counts_and_one_that_was_cut_does_not(self, claude: Any) -> None:
        model, double = claude()
        double.faults.add(200, used([VIEW, ("submit", {})], "I look."))
        assert called(model.complete([ASK], OFFERED)[0].text) == call_of(*VIEW)
        double.faults.add(200, used([("submit", {})], ended="max_tokens"))
        assert called(model.complete([ASK], OFFERED)[0].text) is None

    @pytest.mark.parametrize("options", [{"thinking_tokens": 1024}, {"options": {"thinking": {"type": "adaptive"}}}])
    def test_one_that_thinks_speaks_text_because_its_thoughts_are_not_kept(self, claude: Any, options: Any) -> None:
        model, double = claude(**options)
        talk = [*ASK, Message("assistant", render_full(call_of(*VIEW))), SEEN]
        assert (model.speaks, bool(model.complete([talk], OFFERED)[0].text)) == ("text", True)
        assert "tools" not in double.faults.bodies("messages")[-1]

    def test_the_tools_are_within_the_budget(self, claude: Any) -> None:
        told = sum(len(json.dumps(tool.schema)) for tool in FULL_TOOLS)
        model, double = claude(budget_usd=Price(3, 15).at_most(told, 24))
        with pytest.raises(Exception, match="the budget is spent"):
            model.complete([ASK], OFFERED)
        assert double.faults.asked == []
        assert model.complete([ASK], Sampling(max_tokens=24))[0].text


class TestConfiguration:
    @pytest.mark.parametrize("kind", ["ollama:coder", "openai:http://127.0.0.1:1/v1#coder", "anthropic:claude-sonnet-4-6"])
    @pytest.mark.parametrize(("given", "base", "speaks"), [("text", "", "text"), ("auto", "pocket", "terse")])
    def test_the_configuration_decides_before_any_server_is_asked(
        self, kind: str, given: Any, base: str, speaks: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from agent.models.engines import open_model

        monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
        model: Model = open_model(ModelConfig(kind=kind, tool_calls=given, base=base))
        assert model.speaks == ("text" if kind.startswith("anthropic") else speaks)

    @pytest.mark.parametrize("config", [{"kind": "pocket"}, {"kind": "ollama:coder", "base": "pocket"}, {"kind": "torch:/x"}])
    def test_weights_that_nights_train_are_not_spoken_to_natively(self, config: dict[str, str], tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="nights train these weights on text"):
            ModelConfig(**config, tool_calls="native")  # type: ignore[arg-type]
        assert ModelConfig(kind="ollama:coder", tool_calls="native").tool_calls == "native"
