"""A model served by Ollama: prompts that were cut, a server that is away, thinking, adapters, memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from agent.errors import ModelError, ModelUnavailable
from agent.model import Message, Sampling
from agent.models.ollama_model import OllamaModel
from agent.models.remote import Patience
from agent.pocket.model import PocketModel
from tests.agent import loras
from tests.doubles import pocket_ollama as pocket_ollama_double
from tests.doubles.ollama import CUT, Habits, OllamaDouble
from tests.doubles.ollama_engine import PocketEngine
from tests.doubles.pocket_ollama import BRISK, EVERYWHERE, NAME, TOKENIZER, any_ollama, pocket_ollama

ASK = [Message("user", "issue in shop\n`total_fee` always gives None.")]
ASKS = [ASK, [*ASK, Message("assistant", "search total_fee"), Message("tool", "shop/fees.py:3: def total_fee(prices):")]]
GREEDY, CONTEXT = Sampling(max_tokens=16), 256
WORDS = "count rows before the last limit is reached and name every wrong word "


shared = pocket_ollama_double.shared


@pytest.fixture
def double(shared: OllamaDouble) -> OllamaDouble:
    shared.reset()
    return shared


@pytest.fixture
def model(double: OllamaDouble) -> Iterator[OllamaModel]:
    with closing(OllamaModel(NAME, double.host, CONTEXT, tokenizer=TOKENIZER, patience=BRISK)) as model:
        yield model


@pytest.fixture
def unsure(double: OllamaDouble) -> Iterator[OllamaModel]:
    """Without a tokenizer, so that it must estimate."""
    with closing(OllamaModel(NAME, double.host, CONTEXT, patience=BRISK)) as model:
        yield model


@pytest.fixture(scope="module", params=EVERYWHERE)
def anywhere(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OllamaModel]:
    with (
        any_ollama(request.param, tmp_path_factory.mktemp("any")) as (host, name, double),
        closing(OllamaModel(name, host, CONTEXT, tokenizer=TOKENIZER if double else None)) as model,
    ):
        yield model


class Speaking(PocketEngine):
    """Says what it is told, whatever it is asked."""

    says = ""

    def tokens(self, ids: Sequence[int], window: int, temperature: float, seed: int) -> Iterator[int]:
        self.computed, self.ended = len(ids), False
        yield from self.tokenizer.encode(self.says)
        self.ended = True


def long(tokens: int) -> list[Message]:
    """A conversation of old messages, of at least so many tokens."""
    talk = [Message("system", "be brief")]
    while len(TOKENIZER.prompt(talk)) < tokens:
        talk += [Message("user", WORDS), Message("assistant", "search x")]
    return [*talk, *ASK]


def test_answers_come_in_order_and_are_repeatable(anywhere: OllamaModel) -> None:
    together = anywhere.complete(ASKS, GREEDY)
    assert [c.text for c in together] == [anywhere.complete([ask], GREEDY)[0].text for ask in ASKS]
    assert all(c.text and c.completion_tokens and c.prompt_tokens and c.seconds for c in together)
    hot = [anywhere.complete([ASK] * 2, Sampling(6.0, 8, seed), ["a", "b"]) for seed in (1, 1, 2)]
    assert [c.text for c in hot[0]] == [c.text for c in hot[1]]
    assert len({c.text for c in [*hot[0], *hot[2]]}) > 2
    assert anywhere.complete([ASK], Sampling(max_tokens=1))[0].finish_reason == "length"


def test_what_is_loaded_can_be_seen_and_unloaded(anywhere: OllamaModel) -> None:
    anywhere.warm()
    assert anywhere.resident() > 4_000_000
    anywhere.unload(30)
    assert anywhere.resident() == 0
    assert anywhere.complete([ASK], GREEDY)[0].text


def test_a_conversation_that_does_not_fit_is_never_answered_in_silence(anywhere: OllamaModel) -> None:
    (answer,) = anywhere.complete([long(CONTEXT)], GREEDY)
    assert (answer.text, answer.finish_reason) == ("", "context")


def test_it_answers_as_the_pocket_model_does(model: OllamaModel, double: OllamaDouble) -> None:
    expected = PocketModel(threads=1).complete(ASKS, GREEDY)
    found = model.complete(ASKS, GREEDY)
    assert [(c.text, c.prompt_tokens, c.finish_reason) for c in found] == [
        (c.text, c.prompt_tokens, c.finish_reason) for c in expected
    ]
    (options,) = {
        tuple(sorted((k, v) for k, v in b["options"].items() if k != "seed")) for p, b in double.asked if b.get("messages")
    }
    assert dict(options) | {"temperature": 0.0, "num_ctx": CONTEXT, "num_predict": 16, "repeat_penalty": 1.0} == dict(options)


def test_other_models_are_told_the_protocol_and_see_observations_as_the_users(
    unsure: OllamaModel, double: OllamaDouble
) -> None:
    unsure.complete(ASKS[1:], GREEDY)
    assert [m["role"] for m in double.asked[-1][1]["messages"]] == ["user", "assistant", "user"]
    assert unsure.speaks == "text"


@pytest.mark.parametrize("knows", [True, False])
@pytest.mark.parametrize("exact", [True, False])
def test_a_cut_is_told_from_an_answer_whatever_the_server_knows(
    model: OllamaModel, unsure: OllamaModel, double: OllamaDouble, knows: bool, exact: bool
) -> None:
    double.habits.truncate = knows
    double.habits.version = "0.33.0" if knows else "0.11.0"
    asked = model if exact else unsure
    fits, cut = asked.complete([long(CONTEXT // 2), long(CONTEXT)], GREEDY)
    assert (cut.text, cut.finish_reason) == ("", "context")
    assert (bool(fits.text), fits.finish_reason != "context") == (True, True)


def test_a_server_that_cuts_although_it_must_not_is_caught(model: OllamaModel, double: OllamaDouble) -> None:
    model.warm()
    double.habits.truncate = False
    model._known = model._known and type(model._known)(model._known.version, 4 * CONTEXT, False)
    double.scheduler.runner = _narrow(double, 64)  # type: ignore[method-assign]
    (answer,) = model.complete([long(CONTEXT // 2)], GREEDY)
    del double.scheduler.runner
    assert (answer.text, answer.finish_reason) == ("", "context")


def _narrow(double: OllamaDouble, window: int):  # type: ignore[no-untyped-def]
    whole = double.scheduler.runner
    return lambda name, context, keep: whole(name, window, keep)


@pytest.mark.parametrize("version", ["0.30.0", "0.3.14"])
def test_a_cached_prompt_is_not_taken_for_a_cut_one(model: OllamaModel, double: OllamaDouble, version: str) -> None:
    double.habits.version, double.habits.counts = version, "computed"
    model.unload()
    first, second = (model.complete([ASK], GREEDY)[0] for _ in range(2))
    assert (second.text, second.prompt_tokens) == (first.text, len(TOKENIZER.prompt(ASK)))
    assert (first.cached_tokens, second.cached_tokens) == (0, second.prompt_tokens - 1)


def test_the_context_is_no_longer_than_the_model_was_trained_on(double: OllamaDouble) -> None:
    with closing(OllamaModel(NAME, double.host, 1 << 16, tokenizer=TOKENIZER, patience=BRISK)) as model:
        long_one, short = model.complete([long(2048), ASK], GREEDY)
    assert (long_one.finish_reason, short.finish_reason) == ("context", "stop")
    assert all(body["options"]["num_ctx"] == 2048 for path, body in double.asked if path == "/api/chat")


@pytest.mark.parametrize("apart", [True, False])
def test_what_was_thought_is_kept_apart(tmp_path: Path, apart: bool) -> None:
    Speaking.says = "<think>first look</think>search total_fee"
    with (
        pocket_ollama(tmp_path, Habits(thinks=apart), Speaking) as double,
        closing(OllamaModel(NAME, double.host, CONTEXT, think=True, patience=BRISK)) as model,
    ):
        (answer,) = model.complete([ASK], Sampling(max_tokens=200))
    assert (answer.text, answer.thinking) == ("search total_fee", "first look")
    assert ("think" in double.asked[-1][1]) == apart


def test_a_stopped_server_is_a_state_with_advice(tmp_path: Path) -> None:
    with pocket_ollama(tmp_path) as double:
        model = OllamaModel(NAME, double.host, CONTEXT, tokenizer=TOKENIZER, patience=BRISK)
        model.complete([ASK], GREEDY)
    calls = [lambda: model.complete([ASK], GREEDY), lambda: model.fingerprint, model.warm, model.unload, model.resident]
    for call in calls:
        with pytest.raises(ModelUnavailable, match="ollama serve"):
            call()
    model.close()


def test_what_passes_is_waited_for_and_what_does_not_is_told(model: OllamaModel, double: OllamaDouble) -> None:
    before = model.complete([ASK], GREEDY)[0].text
    double.habits.faults = {"/api/chat": [(503, "server busy, please try again")]}
    assert model.complete([ASK], GREEDY)[0].text == before
    double.habits.faults = {"/api/chat": [(503, "server busy")] * 9}
    with pytest.raises(ModelUnavailable, match="server busy"):
        model.complete([ASK], GREEDY)
    double.habits.faults = {"/api/chat": [(400, "invalid options: temperature")]}
    with pytest.raises(ModelError, match="invalid options") as error:
        model.complete([ASK], GREEDY)
    assert not isinstance(error.value, ModelUnavailable)


def test_a_server_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no address"):
        OllamaModel(NAME, "ftp://127.0.0.1")
    import http.server

    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    with closing(OllamaModel(NAME, f"127.0.0.1:{server.server_port}", patience=BRISK)) as model, pytest.raises(ModelError):
        model.complete([ASK], GREEDY)
    server.shutdown()
    server.server_close()


def test_an_answer_that_takes_too_long_is_not_waited_for(double: OllamaDouble) -> None:
    class Slow(PocketEngine):
        def tokens(self, *args: object) -> Iterator[int]:
            time.sleep(1.0)
            yield from super().tokens(*args)  # type: ignore[arg-type]

    engine, double.scheduler._engine = double.scheduler._engine, Slow
    hasty = OllamaModel(NAME, double.host, 128, timeout=0.4, tokenizer=TOKENIZER, patience=Patience(1, 1.0))
    with closing(hasty) as model, pytest.raises(ModelUnavailable, match="ReadTimeout"):
        model.complete([ASK], GREEDY)
    double.scheduler._engine = engine


def test_a_missing_model_says_how_to_get_it(double: OllamaDouble) -> None:
    with closing(OllamaModel("coder:7b", double.host, patience=BRISK)) as model:
        for call in (lambda: model.complete([ASK], GREEDY), lambda: model.fingerprint):
            with pytest.raises(ModelError, match="ollama pull coder:7b"):
                call()


def test_an_adapter_is_served_under_the_name_it_was_given(double: OllamaDouble, tmp_path: Path) -> None:
    adapter = loras.good(tmp_path / "adapter", 3)
    httpx.post(f"{double.host}/api/copy", json={"source": NAME, "destination": "sleepy-pocket:abc"})
    asked: list[Path] = []

    def provide(folder: Path) -> str:
        asked.append(folder)
        return "sleepy-pocket:abc"

    with closing(OllamaModel(NAME, double.host, CONTEXT, tokenizer=TOKENIZER, provide=provide, patience=BRISK)) as model:
        base = model.fingerprint
        model.use(adapter)
        model.use(adapter)
        model.complete([ASK], GREEDY)
        assert (double.asked[-1][1]["model"], asked, model.fingerprint != base) == ("sleepy-pocket:abc", [adapter], True)
        model.use(None)
        model.complete([ASK], GREEDY)
        assert (double.asked[-1][1]["model"], model.fingerprint) == (NAME, base)


def test_what_cannot_be_published_is_refused_and_what_was_served_goes_on(
    model: OllamaModel, double: OllamaDouble, tmp_path: Path
) -> None:
    adapter, before = loras.good(tmp_path / "adapter", 3), model.fingerprint
    with pytest.raises(ModelError, match="published"):
        model.use(adapter)
    model._provide = lambda folder: "sleepy-pocket:not-there"
    with pytest.raises(ModelError, match="sleepy-pocket:not-there"):
        model.use(adapter)
    assert (model.adapter, model.fingerprint) == (None, before)
    assert model.complete([ASK], GREEDY)[0].text


def test_the_fingerprint_follows_everything_that_decides_an_answer(model: OllamaModel, double: OllamaDouble) -> None:
    before = model.fingerprint
    assert model.fingerprint == before
    double.habits.version = "0.33.1"
    assert model.fingerprint != before
    double.habits.version = "0.33.0"
    with closing(OllamaModel(NAME, double.host, CONTEXT + 1, tokenizer=TOKENIZER, patience=BRISK)) as other:
        assert other.fingerprint != before
    raw = double.store.raw(next(name for name in double.store.names() if name.model == NAME))
    double.create({"model": NAME, "from": NAME, "system": "be brief"}, lambda _: None)
    assert model.fingerprint != before
    double.store.write(next(name for name in double.store.names() if name.model == NAME), raw)
    assert model.fingerprint == before


def test_a_base_that_carries_an_adapter_is_no_base(double: OllamaDouble, tmp_path: Path) -> None:
    from agent.adapters import read_peft
    from consolidation.layouts.gguf import write_gguf_adapter

    write_gguf_adapter(read_peft(loras.good(tmp_path / "a", 1)), tmp_path / "a.gguf")
    digest, _ = double.store.keep(iter([(tmp_path / "a.gguf").read_bytes()]))
    double.create({"model": "tuned", "from": NAME, "adapters": {"a.gguf": digest}}, lambda _: None)
    with closing(OllamaModel("tuned", double.host, patience=BRISK)) as model, pytest.raises(ModelError, match="pristine"):
        model.complete([ASK], GREEDY)


def test_a_model_that_does_not_leave_is_told(model: OllamaModel, double: OllamaDouble) -> None:
    model.warm()
    double.habits.unload_seconds = 0.3
    began = time.monotonic()
    model.unload(5)
    assert (model.resident(), time.monotonic() - began > 0.25) == (0, True)
    model.warm()
    double.habits.stuck = True
    with pytest.raises(ModelError, match="ollama stop pocket"):
        model.unload(0.2)


def test_a_broken_line_in_the_middle_is_tried_again(model: OllamaModel, double: OllamaDouble) -> None:
    double.habits.faults = {"/api/create": [CUT]}
    model.server.follow(lambda client: client.create("again", from_=NAME, stream=True))
    assert "again:latest" in model.server.digests()
