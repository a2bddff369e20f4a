"""Anthropic's Message Batches API: half the price, nothing paid twice, a ceiling that holds, and bad days."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.errors import ModelError, ModelUnavailable
from agent.model import Message, Sampling
from agent.models.anthropic_batches import AnthropicBatches
from agent.models.anthropic_model import KEY_VARIABLE
from agent.models.purse import Price
from agent.models.remote import Patience
from memory.store import Store
from tests.agent.servers import serving
from tests.doubles.anthropic_batches import KEY, BatchDouble, error, errored, said, succeeded

PRICE = Price(3.0, 15.0)
EACH = 0.5 * (100 * 3 + 100 * 15) / 1e6
SHORT = Sampling(max_tokens=200)


def ask(*texts: str) -> list[list[Message]]:
    return [[Message("system", "Be brief."), Message("user", text)] for text in texts]


def echo(params: dict[str, Any], times: int) -> dict[str, Any]:
    return succeeded(said("to " + params["messages"][-1]["content"][0]["text"]))


class Killed(BaseException):
    """The process dies here."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "s.db") as store:
        yield store


Open = Callable[..., AnthropicBatches]


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def opened(store: Store, waits: list[float], monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    with contextlib.ExitStack() as stack:
        urls: dict[int, str] = {}

        def start(double: BatchDouble, budget: float = 1.0, **settings: Any) -> AnthropicBatches:
            url = urls.get(id(double)) or urls.setdefault(id(double), stack.enter_context(serving(double.app)))
            given = {"price": PRICE, "patience": Patience(4, 30, waits.append), "pause": lambda seconds: None, "url": url}
            return stack.enter_context(contextlib.closing(AnthropicBatches("claude-x", budget, store, **(given | settings))))

        yield start


def texts(model: AnthropicBatches, *questions: str) -> list[str]:
    return [answer.text for answer in model.complete(ask(*questions), SHORT)]


def test_many_go_as_one_batch_at_half_the_price_and_come_back_in_order(opened: Open) -> None:
    double = BatchDouble(echo, polls=3)
    model = opened(double)
    assert texts(model, "a", "b", "a") == ["to a", "to b", "to a"]
    assert (len(double.batches), len(double.processed)) == (1, 2)
    assert model.spent_usd == pytest.approx(2 * EACH)
    (params, _) = double.processed
    assert params["system"] == [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    assert "cache_control" not in params["messages"][-1]["content"][-1], "nothing will ever read that entry"


class TestKilled:
    def test_a_night_that_was_killed_while_it_waited_takes_the_same_batch(self, opened: Open) -> None:
        double = BatchDouble(echo, polls=2)
        first = opened(double, wait_seconds=0.0)
        with pytest.raises(ModelUnavailable, match=r"has not finished batch msgbatch_0001 \(2 of 2 to do\)"):
            texts(first, "a", "b")
        assert first.spent_usd > 2 * EACH, "what is not known yet counts with the most that it can be"
        assert texts(opened(double), "a", "b") == ["to a", "to b"]
        assert texts(opened(double), "b") == ["to b"], "part of it can be read again"
        assert (len(double.batches), len(double.processed)) == (1, 2)
        assert opened(double).spent_usd == pytest.approx(2 * EACH)

    def test_one_killed_before_it_knew_its_batch_finds_it_by_its_requests(self, opened: Open, store: Store) -> None:
        double = BatchDouble(echo)

        def dies(name: str, value: str, keep: Callable[[str, str], None] = store.set_note) -> None:
            if "msgbatch" in value:
                raise Killed
            keep(name, value)

        store.set_note = dies  # type: ignore[method-assign]
        with pytest.raises(Killed):
            texts(opened(double), "a", "b")
        del store.set_note  # type: ignore[method-assign]
        texts(opened(double, account="another"), "c", "d")  # newer, of the same size, and not ours
        assert texts(opened(double), "a", "b") == ["to a", "to b"]
        assert (len(double.batches), len(double.processed)) == (2, 4)

    def test_one_killed_before_anything_was_sent_sends_it_and_owes_nothing_more(self, opened: Open, store: Store) -> None:
        double = BatchDouble(echo)
        dead = opened(double)
        body = dead._body(ask("a")[0], SHORT.max_tokens)
        dead._client.close()
        with pytest.raises(Exception, match="closed"):
            dead._send({"n": body})
        assert dead.spent_usd > 0
        assert texts(model := opened(double), "a") == ["to a"]
        assert len(double.batches) == 1
        assert model.spent_usd <= EACH + dead._worst(body)

    @pytest.mark.parametrize("how", [0, 500, 502])
    def test_a_batch_whose_answer_was_lost_on_the_way_is_not_sent_again(self, opened: Open, how: int) -> None:
        double = BatchDouble(echo)
        double.faults.append(("POST", "/batches", lambda: how))
        assert texts(opened(double), "a") == ["to a"]
        assert (len(double.batches), len(double.processed)) == (1, 1)

    def test_an_interruption_cancels_the_batch_and_what_it_did_not_do_is_asked_again(self, opened: Open) -> None:
        double = BatchDouble(echo, polls=9)

        def interrupted(seconds: float) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            texts(opened(double, pause=interrupted), "a")
        assert double.batches["msgbatch_0001"]["canceled"]
        assert texts(model := opened(double), "a") == ["to a"]
        assert (len(double.batches), len(double.processed)) == (2, 1)
        assert model.spent_usd == pytest.approx(EACH)


class TestCeiling:
    def test_only_what_surely_fits_is_sent_and_the_rest_is_counted(self, opened: Open) -> None:
        double = BatchDouble(lambda params, n: succeeded(said("dear", tokens=(140, 200))))
        model = opened(double, budget=0.005)
        assert texts(model, *"abcdefgh") == ["dear"] * 2 + [""] * 6
        assert 0 < model.spent_usd <= 0.005
        assert model.problems == {"over_budget": 6}
        assert len(double.processed) == 2

    def test_it_holds_across_processes_and_is_kept_by_account(self, opened: Open) -> None:
        double = BatchDouble(lambda params, n: succeeded(said("dear", tokens=(140, 200))))
        for question in "abcdefgh":
            texts(opened(double, budget=0.005), question)
        assert 0.0025 < opened(double).spent_usd <= 0.005
        assert opened(double, account="other").spent_usd == 0

    def test_it_holds_where_each_is_asked_by_itself(self, opened: Open) -> None:
        double = BatchDouble(lambda params, n: succeeded(said("dear", tokens=(140, 200))), batched=False)
        model = opened(double, budget=0.0095)
        assert texts(model, *"abcdefgh") == ["dear"] * 2 + [""] * 6
        assert (model.batched, 0 < model.spent_usd <= 0.0095, model.problems) == (False, True, {"over_budget": 6})


class TestBadDays:
    @pytest.mark.parametrize("kind", ["errored", "expired", "malformed"])
    def test_what_failed_is_tried_once_more_and_no_oftener(self, opened: Open, kind: str) -> None:
        bad = {"errored": errored("api_error"), "expired": {"type": "expired"}, "malformed": {"type": "succeeded"}}[kind]
        double = BatchDouble(lambda params, n: bad if n == 0 else echo(params, n))
        assert texts(model := opened(double), "a", "b") == ["to a", "to b"]
        assert model.problems == {}
        always = BatchDouble(lambda params, n: bad)
        assert texts(model := opened(always, account="2"), "a") == [""]
        assert (model.problems, len(always.batches)) == ({kind: 1}, 2)
        texts(again := opened(always, account="2"), "a")
        assert (again.problems, len(always.batches)) == ({kind: 1}, 2), "a later process tries no more either"

    @pytest.mark.parametrize("result", [succeeded(said("", "refusal")), errored("invalid_request_error")])
    def test_what_was_refused_is_not_asked_again(self, opened: Open, result: dict[str, Any]) -> None:
        double = BatchDouble(lambda params, n: result)
        assert texts(model := opened(double), "a") == [""]
        assert (model.problems, len(double.batches)) == ({"refused": 1}, 1)

    def test_lines_that_cannot_be_read_cost_their_own_request_only(self, opened: Open) -> None:
        double = BatchDouble(echo)
        double.mangle = lambda lines: (
            'not json\n{"custom_id": 7}\n' + "[" * 9_000 + "\n" + lines.replace('"to b"', '"to b', 1) + "\n"
        )
        assert texts(model := opened(double), "a", "b", "c") == ["to a", "", "to c"]
        assert model.problems == {"malformed": 1}
        assert model.spent_usd > 3 * EACH, "an answer that cannot be read may have been paid for"

    def test_rate_limits_are_waited_out_at_every_step(self, opened: Open, waits: list[float]) -> None:
        double = BatchDouble(echo)
        for method, path in (("POST", "/batches"), ("GET", "/msgbatch_0001"), ("GET", "/results")):
            double.faults.append((method, path, lambda: error(429, "rate_limit_error", "slow down", **{"retry-after": "7"})))
        assert texts(opened(double), "a") == ["to a"]
        assert waits == [7.0, 7.0, 7.0]
        assert len(double.batches) == 1

    def test_a_batch_that_is_gone_is_made_again(self, opened: Open) -> None:
        double = BatchDouble(echo, polls=5)
        with pytest.raises(ModelUnavailable):
            texts(opened(double, wait_seconds=0.0), "a")
        double.batches["msgbatch_0001"]["id"] = "x"
        double.batches["x"] = double.batches.pop("msgbatch_0001")
        assert texts(opened(double), "a") == ["to a"]

    def test_a_refused_batch_costs_nothing(self, opened: Open) -> None:
        double = BatchDouble(echo)
        double.faults.append(("POST", "/batches", lambda: error(400, "invalid_request_error", "no such model")))
        with pytest.raises(ModelError, match="no such model"):
            texts(model := opened(double), "a")
        assert model.spent_usd == 0.0
