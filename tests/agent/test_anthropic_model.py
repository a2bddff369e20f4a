"""Anthropic's Messages API: prompt caching, what it costs, a budget that holds, and bad days."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.errors import ModelError, ModelUnavailable
from agent.full import FULL
from agent.model import Message, Sampling
from agent.models.anthropic_model import KEY_VARIABLE, AnthropicModel
from agent.models.purse import Price, Purse, Usage
from agent.models.remote import Patience
from tests.agent.servers import KEY, AnthropicDouble, Brain, serving

SYSTEM = FULL.system[:800]
ASK = [Message("system", SYSTEM), Message("user", "issue in shop\n`total_fee` always gives None.")]
SHORT = Sampling(max_tokens=8)
PRICE, DEAR = Price(input=3.0, output=15.0), Price(input=60.0, output=300.0)
NAME = "claude-test"
Open = Callable[..., tuple[AnthropicModel, AnthropicDouble]]
OVERLOADED = '{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}, "request_id": "req_1"}'


@pytest.fixture(scope="module")
def brain() -> Brain:
    return Brain(1280)


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def patience(waits: list[float]) -> Patience:
    return Patience(attempts=4, seconds=30, sleep=waits.append)


@pytest.fixture
def opened(brain: Brain, patience: Patience, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    with contextlib.ExitStack() as stack:

        def start(budget_usd: float = 1.0, least: int = 16, **options: object) -> tuple[AnthropicModel, AnthropicDouble]:
            double = AnthropicDouble(brain, least)
            settings = {"options": {"temperature": 0}, "price": PRICE, "patience": patience, **options}
            model = AnthropicModel(NAME, budget_usd, url=stack.enter_context(serving(double.app)), **settings)  # type: ignore[arg-type]
            return stack.enter_context(contextlib.closing(model)), double

        yield start


def answered(text: str, **usage: int) -> str:
    counts = {"input_tokens": 9, "output_tokens": 2} | usage
    content = [{"type": "text", "text": text}]
    return json.dumps({"type": "message", "role": "assistant", "content": content, "stop_reason": "end_turn", "usage": counts})


class TestCaching:
    def test_every_turn_reads_what_the_turn_before_wrote(self, opened: Open) -> None:
        model, _ = opened()
        talk = list(ASK)
        counts = []
        for _ in range(3):
            answer = model.complete([talk], SHORT)[0]
            counts.append((answer.prompt_tokens, answer.cached_tokens))
            talk += [Message("assistant", answer.text), Message("tool", "shop/fees.py:3: def total_fee(prices):")]
        assert counts[0][1] == 0
        for (before, _), (now, cached) in itertools.pairwise(counts):
            assert now > cached >= before - 1  # all but the mark where the assistant speaks

    def test_the_system_prompt_is_shared_between_conversations(self, opened: Open) -> None:
        model, double = opened()
        model.complete([ASK], SHORT)
        other = model.complete([[ASK[0], Message("user", "issue in farm\n`count_cow` is wrong.")]], SHORT)[0]
        assert other.cached_tokens == double.brain.tokens([{"role": "system", "content": SYSTEM}]) - 1

    def test_a_prompt_too_short_for_the_cache_is_paid_in_full(self, opened: Open) -> None:
        model, _ = opened(least=10_000)
        assert [model.complete([ASK], SHORT)[0].cached_tokens for _ in range(2)] == [0, 0]

    def test_tool_observations_and_neighbours_of_one_role_are_one_users_turn(self, opened: Open) -> None:
        model, double = opened()
        talk = [*ASK, Message("assistant", "test"), Message("tool", ""), Message("user", "go on\0 \ud800")]
        assert model.complete([talk], SHORT)[0]
        body = double.faults.bodies("messages")[-1]
        assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]
        assert body["messages"][-1]["content"][0]["text"] == "(empty)\n\ngo on\ufffd \ufffd"
        assert body["system"][0]["text"] == SYSTEM


class TestBudget:
    def test_cost_is_the_sum_over_all_kinds_of_tokens(self) -> None:
        usage = Usage(input_tokens=1_000, cache_creation_input_tokens=2_000, cache_read_input_tokens=10_000, output_tokens=500)
        assert PRICE.of(usage) == pytest.approx((1_000 * 3 + 2_000 * 3.75 + 10_000 * 0.3 + 500 * 15) / 1e6)
        assert Price(3, 15, write=6, read=1).of(usage) == pytest.approx((3_000 + 12_000 + 10_000 + 7_500) / 1e6)

    def test_what_was_spent_is_what_the_server_counted(self, opened: Open) -> None:
        model, double = opened(spent_usd=0.25)
        double.faults.add(200, answered("test", input_tokens=1_000, cache_creation_input_tokens=100, output_tokens=10))
        model.complete([ASK], SHORT)
        assert model.spent_usd == pytest.approx(0.25 + (3_000 + 375 + 150) / 1e6)

    def test_the_call_that_might_exceed_the_limit_is_not_made(self, opened: Open) -> None:
        model, double = opened(budget_usd=0.2, least=10_000, price=DEAR)
        with pytest.raises(ModelError, match=r"the budget is spent: \$0\.\d{4} of \$0\.20.*raise the budget"):
            model.complete([ASK] * 100, SHORT)
        made, spent = len(double.faults.bodies("messages")), model.spent_usd
        assert 1 <= made < 100
        assert 0 < spent <= 0.2
        with pytest.raises(ModelError, match="the budget is spent"):
            model.complete([ASK], SHORT)
        assert (len(double.faults.bodies("messages")), model.spent_usd) == (made, spent)

    def test_a_call_waits_for_others_whose_cost_may_turn_out_lower(self) -> None:
        purse = Purse(1.0)
        order = []

        def later() -> None:
            with purse.bill(0.8) as cost:
                order.append("second")
                cost.append(0.1)

        with purse.bill(0.8) as cost:
            thread = threading.Thread(target=later)
            thread.start()
            time.sleep(0.05)
            order.append("first")
            cost.append(0.1)
        thread.join(5)
        assert (order, purse.spent) == (["first", "second"], pytest.approx(0.2))

    def test_refusals_and_overload_cost_nothing(self, opened: Open) -> None:
        model, double = opened()
        double.faults.add(529, OVERLOADED, count=4)
        with pytest.raises(ModelUnavailable):
            model.complete([ASK], SHORT)
        double.faults.add(400, '{"type": "error", "error": {"type": "invalid_request_error", "message": "no"}}')
        with pytest.raises(ModelError):
            model.complete([ASK], SHORT)
        assert model.spent_usd == 0.0

    def test_an_answer_that_never_came_is_counted_at_its_dearest(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(KEY_VARIABLE, KEY)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            patience = Patience(attempts=2, sleep=lambda _: None)
            model = AnthropicModel(NAME, 1.0, timeout=0.3, price=PRICE, url=url, patience=patience)
            with contextlib.closing(model), pytest.raises(ModelUnavailable):
                model.complete([ASK], SHORT)
        worst = PRICE.at_most(len("".join(m.content for m in ASK)), SHORT.max_tokens)
        assert 2 * worst <= model.spent_usd < 3 * worst

    def test_a_server_that_is_not_there_costs_nothing(self, monkeypatch: pytest.MonkeyPatch, patience: Patience) -> None:
        monkeypatch.setenv(KEY_VARIABLE, KEY)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        model = AnthropicModel(NAME, 1.0, price=PRICE, url=url, patience=patience)
        with contextlib.closing(model), pytest.raises(ModelUnavailable, match=f"^{url} does not answer"):
            model.complete([ASK], SHORT)
        assert model.spent_usd == 0.0

    def test_a_model_without_a_price_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(KEY_VARIABLE, KEY)
        with pytest.raises(ModelError, match="no price is known for 'claude-unheard-of'"):
            AnthropicModel("claude-unheard-of", 1.0)
        for name in ("claude-opus-4-8", "claude-sonnet-4-6", "claude-haiku-4-5"):
            AnthropicModel(name, 1.0).close()


class TestThinking:
    def test_thoughts_are_kept_apart_and_paid_for(self, opened: Open) -> None:
        model, double = opened(thinking_tokens=1024)
        answer = model.complete([ASK], SHORT)[0]
        assert (answer.thinking, "leap" in answer.text) == (double.thought, False)
        assert double.faults.bodies("messages")[-1]["max_tokens"] == 1024 + 8

    def test_blocks_of_kinds_not_known_are_passed_over(self, opened: Open) -> None:
        model, double = opened()
        body = json.loads(answered("test"))
        body["content"] = [{"type": "redacted_thinking", "data": "x"}, {"type": "new"}, *body["content"]]
        double.faults.add(200, json.dumps(body))
        assert model.complete([ASK], SHORT)[0].text == "test"

    def test_too_little_to_think_is_refused_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(KEY_VARIABLE, KEY)
        with pytest.raises(ModelError, match="at least 1024"):
            AnthropicModel(NAME, 1.0, price=PRICE, thinking_tokens=100)


class TestBadDays:
    @pytest.mark.parametrize(("status", "body"), [(529, OVERLOADED), (429, "{}"), (500, "{}"), (503, "<html>")])
    def test_overload_and_rate_limits_are_waited_out(self, opened: Open, status: int, body: str, waits: list[float]) -> None:
        model, double = opened()
        double.faults.add(status, body, count=2, retry_after="3")
        assert model.complete([ASK], SHORT)[0].text
        assert waits == [3.0, 3.0]
        assert len(double.faults.bodies("messages")) == 3

    def test_patience_ends(self, opened: Open, waits: list[float]) -> None:
        model, double = opened()
        double.faults.add(529, OVERLOADED, count=4)
        with pytest.raises(ModelUnavailable, match="529 Overloaded"):
            model.complete([ASK], SHORT)
        assert len(waits) == 3

    @pytest.mark.parametrize("body", ["", "no JSON", "[]", '{"content": 7}', '{"content": [], "usage": {"input_tokens": -1}}'])
    def test_what_is_no_answer_is_one_clear_error(self, opened: Open, body: str) -> None:
        model, double = opened()
        double.faults.add(200, body)
        with pytest.raises(ModelError, match="check the URL"):
            model.complete([ASK], SHORT)
        assert model.spent_usd > 0  # it may have to be paid for

    def test_a_missing_key_is_one_clear_error_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(KEY_VARIABLE, " ")
        with pytest.raises(ModelError, match=f"no API key: set {KEY_VARIABLE}"):
            AnthropicModel("claude-sonnet-4-6", 1.0)

    def test_a_refused_key_is_shown_in_no_error(self, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SLEEPY_TEST_KEY", wrong := "sk-wrong-key-1234567890")
        model, _ = opened(key_variable="SLEEPY_TEST_KEY")
        with pytest.raises(ModelError, match=r"401 invalid x-api-key: \*\*\*") as error:
            model.complete([ASK], SHORT)
        assert wrong not in str(error.value)

    def test_it_takes_no_adapters(self, opened: Open, tmp_path: Path) -> None:
        model, _ = opened()
        with pytest.raises(ModelError, match="takes no adapters"):
            model.use(tmp_path)
        model.use(None)

    def test_the_fingerprint_is_of_the_model_as_the_server_names_it(self, opened: Open) -> None:
        model, double = opened()
        other, _ = opened(options={})
        assert model.fingerprint == model.fingerprint != other.fingerprint
        assert double.faults.asked == []  # nothing was asked that costs
