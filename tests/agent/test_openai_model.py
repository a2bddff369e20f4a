"""Servers that speak Chat Completions: what is special about vLLM, llama-server, LM Studio and hosted ones; and bad days."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.adapters import adapter_digest
from agent.errors import ModelError, ModelUnavailable
from agent.full import FULL
from agent.model import Message, Sampling
from agent.models.openai_model import KEY_VARIABLE, OpenAIModel
from agent.models.remote import Patience
from tests.agent import loras
from tests.agent.servers import KEY, NAME, Brain, ChatDouble, Kind, serving

ASK = [Message("user", "issue in shop\n`total_fee` always gives None.")]
SHORT = Sampling(max_tokens=8)
Open = Callable[..., tuple[OpenAIModel, ChatDouble]]


@pytest.fixture(scope="module")
def brain() -> Brain:
    return Brain(160)


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def patience(waits: list[float]) -> Patience:
    return Patience(attempts=4, seconds=30, sleep=waits.append)


@pytest.fixture
def opened(brain: Brain, patience: Patience) -> Iterator[Open]:
    with contextlib.ExitStack() as stack:

        def start(
            kind: Kind = "vllm", started_with: dict[str, Path] | None = None, **options: object
        ) -> tuple[OpenAIModel, ChatDouble]:
            double = ChatDouble(brain, kind, started_with)
            url = stack.enter_context(serving(double.app))
            model = OpenAIModel(f"{url}/v1", NAME, patience=patience, **options)  # type: ignore[arg-type]
            return stack.enter_context(contextlib.closing(model)), double

        yield start


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("adapters")
    return [loras.good(folder / str(seed), seed) for seed in (1, 2)]


def name_of(adapter: Path) -> str:
    return f"sleepy-{adapter_digest(adapter)[:16]}"


def text(model: OpenAIModel) -> str:
    return model.complete([ASK], SHORT)[0].text


def reply(content: str | None, usage: dict[str, object] | None = None, ended: str = "stop", **more: object) -> str:
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **more}, "finish_reason": ended}
    return json.dumps({"choices": [choice], **({"usage": usage} if usage else {})})


class TestVllm:
    def test_only_the_adapter_in_use_is_loaded_there(self, opened: Open, adapters: list[Path]) -> None:
        model, double = opened()
        for adapter in (*adapters, adapters[0]):
            model.use(adapter)
            assert list(double.loaded) == [name_of(adapter)]
            text(model)
            assert double.faults.bodies("completions")[-1]["model"] == name_of(adapter)
        model.use(None)
        assert double.loaded == {}
        text(model)
        assert double.faults.bodies("completions")[-1]["model"] == NAME

    def test_an_adapter_that_is_loaded_already_is_used(self, opened: Open, adapters: list[Path]) -> None:
        model, double = opened()
        double.loaded[name_of(adapters[0])] = adapters[0]
        model.use(adapters[0])
        assert text(model)

    def test_after_a_restart_of_the_server_the_adapter_is_loaded_again(self, opened: Open, adapters: list[Path]) -> None:
        model, double = opened()
        model.use(adapters[0])
        before = text(model)
        double.loaded.clear()
        assert text(model) == before
        assert list(double.loaded) == [name_of(adapters[0])]

    def test_a_refused_adapter_is_not_asked_for_again_and_again(
        self, opened: Open, adapters: list[Path], tmp_path: Path, waits: list[float]
    ) -> None:
        model, double = opened()
        with pytest.raises(ModelError, match="train the adapter on this base"):
            model.use(loras.bad(tmp_path)["of another base"])
        assert (len(double.faults.bodies("load_lora_adapter")), waits) == (1, [])

    def test_a_server_with_another_file_system_is_told_its_own_path(self, opened: Open, adapters: list[Path]) -> None:
        model, double = opened(path_there=lambda folder: f"/there/{folder.name}")
        with pytest.raises(ModelError, match="No adapter found for /there/1"):
            model.use(adapters[0])
        assert double.faults.bodies("/load_lora_adapter") == [{"lora_name": name_of(adapters[0]), "lora_path": "/there/1"}]

    def test_the_fingerprint_follows_server_version_and_options(self, opened: Open, patience: Patience) -> None:
        model, double = opened()
        url = model._server.http.shown
        prints = [model.fingerprint]
        with contextlib.closing(OpenAIModel(url, NAME, patience=patience, options={"top_p": 0.5})) as other:
            prints.append(other.fingerprint)
        double.version = "0.31.0"
        with contextlib.closing(OpenAIModel(url, NAME, patience=patience)) as later:
            prints.append(later.fingerprint)
        assert len(set(prints)) == 3


class TestLlamaServer:
    def test_adapters_given_at_its_start_are_switched_and_its_cache_is_not_trusted(
        self, opened: Open, adapters: list[Path]
    ) -> None:
        vllm, _ = opened()
        expected = []
        for adapter in (None, *adapters):
            vllm.use(adapter)
            expected.append(text(vllm))
        assert len(set(expected)) == 3
        model, double = opened("llama", {f"/a/{name_of(adapter)}.gguf": adapter for adapter in adapters})
        for number in (0, 1, 2, 0, 1):
            model.use((None, *adapters)[number])
            assert text(model) == expected[number]
        assert double.scales == [0.0, 0.0]

    def test_an_adapter_it_was_not_started_with_is_refused_with_what_to_do(self, opened: Open, adapters: list[Path]) -> None:
        model, _ = opened("llama", {f"/a/{name_of(adapters[0])}.gguf": adapters[0]})
        model.use(adapters[0])
        before = text(model)
        with pytest.raises(ModelError, match=f"only at its start.*{name_of(adapters[1])}.gguf"):
            model.use(adapters[1])
        assert text(model) == before

    def test_a_restart_without_the_adapter_is_not_answered_by_the_base(self, opened: Open, adapters: list[Path]) -> None:
        model, double = opened("llama", {f"/a/{name_of(adapters[0])}.gguf": adapters[0]})
        model.use(adapters[0])
        double.given, double.scales = [], []
        model._server.http.breaks += 1
        with pytest.raises(ModelError, match="only at its start"):
            text(model)


class TestOtherServers:
    @pytest.mark.parametrize("kind", ["lmstudio", "hosted"])
    def test_without_adapters_the_error_says_so_and_the_base_goes_on(
        self, opened: Open, adapters: list[Path], kind: Kind, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SLEEPY_TEST_KEY", KEY)
        model, _ = opened(kind, key_variable="SLEEPY_TEST_KEY")
        before = text(model)
        with pytest.raises(ModelError, match="cannot load adapters while it runs"):
            model.use(adapters[0])
        assert text(model) == before
        model.use(None)

    def test_a_service_that_wants_another_name_for_the_limit_gets_it(
        self, opened: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SLEEPY_TEST_KEY", KEY)
        model, double = opened("hosted", key_variable="SLEEPY_TEST_KEY")
        assert model.complete([ASK], Sampling(max_tokens=2))[0].completion_tokens == 2
        assert text(model)
        assert ["max_tokens" in body for body in double.faults.bodies("completions")] == [True, False, False]

    def test_templates_that_demand_alternating_roles_are_served(self, opened: Open) -> None:
        model, double = opened()
        double.alternate = True
        talk = [Message("system", FULL.system[:20]), *ASK, Message("user", "now"), Message("assistant", "test")]
        assert model.complete([[*talk, Message("tool", "1 failed"), Message("user", "go on")]], SHORT)[0]
        sent = double.faults.bodies("completions")[-1]["messages"]
        assert [turn["role"] for turn in sent] == ["system", "user", "assistant", "user"]
        assert sent[-1]["content"] == "1 failed\n\ngo on"


class TestAnswers:
    def test_thoughts_are_kept_apart_wherever_they_come(self, opened: Open) -> None:
        model, double = opened()
        usage = {"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 7}}
        for body in (
            reply("test", usage, reasoning_content="Hm."),
            reply("test", usage, reasoning="Hm."),
            reply("<think>\nHm.\n</think>\n\ntest", usage),
            reply("Hm.\n</think>\n\ntest", usage),
        ):
            double.faults.add(200, body)
            answer = model.complete([ASK], SHORT)[0]
            assert (answer.text, answer.thinking, answer.cached_tokens) == ("test", "Hm.", 7)
        double.faults.add(200, reply(None, usage, "length", reasoning_content="Hm"))
        cut = model.complete([ASK], Sampling(max_tokens=5))[0]
        assert (cut.text, cut.thinking, cut.finish_reason) == ("", "Hm", "length")

    @pytest.mark.parametrize(
        ("ended", "reason"), [("stop", "stop"), ("tool_calls", "stop"), ("content_filter", "stop"), (None, "stop")]
    )
    def test_every_end_is_one_of_three(self, opened: Open, ended: str, reason: str) -> None:
        model, double = opened()
        double.faults.add(200, reply("test", None, ended))
        answer = model.complete([ASK], SHORT)[0]
        assert answer.finish_reason == reason
        assert answer.prompt_tokens > 0
        assert answer.completion_tokens > 0

    def test_an_answer_cut_before_its_limit_was_cut_by_the_context(self, opened: Open) -> None:
        model, double = opened()
        double.faults.add(200, reply("te", {"prompt_tokens": 155, "completion_tokens": 5}, "length"))
        assert model.complete([ASK], SHORT)[0].finish_reason == "context"

    def test_the_owners_context_counts_where_it_is_the_smaller_one(self, opened: Open) -> None:
        model, double = opened(context=12)
        assert double.brain.context > 12
        assert model.complete([ASK], SHORT)[0].finish_reason == "context"

    @pytest.mark.parametrize(
        "body",
        [
            "",
            "no JSON",
            "null",
            "[]",
            '{"choices": []}',
            '{"choices": [{"message": {"content": 7}}]}',
            '{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": -1}}',
            "[" * 100_000,
        ],
    )
    def test_what_is_no_answer_is_one_clear_error(self, opened: Open, body: str) -> None:
        model, double = opened()
        double.faults.add(200, body)
        with pytest.raises(ModelError, match="check the URL"):
            text(model)
        assert text(model)

    def test_an_endless_answer_is_not_read_to_its_end(self, opened: Open) -> None:
        model, double = opened()
        double.faults.add(200, " " * (17 << 20))
        with pytest.raises(ModelError, match="more than 16 MB"):
            text(model)

    def test_half_pairs_and_nuls_in_an_answer_are_mended(self, opened: Open) -> None:
        model, double = opened()
        double.faults.add(200, '{"choices": [{"message": {"content": "a\\ud800b\\u0000c"}}]}')
        assert text(model) == "a\ufffdb\ufffdc"

    def test_options_are_sent_and_none_leaves_a_field_out(self, opened: Open) -> None:
        model, double = opened(think=False, options={"seed": None, "top_p": 0.9})
        text(model)
        body = double.faults.bodies("completions")[-1]
        assert ("seed" in body, body["top_p"], body["chat_template_kwargs"]) == (False, 0.9, {"enable_thinking": False})


class TestBadDays:
    @pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
    def test_what_may_pass_is_asked_again(self, opened: Open, status: int, waits: list[float]) -> None:
        model, double = opened()
        double.faults.add(status, '{"error": {"message": "later"}}', count=2)
        assert text(model)
        assert len(waits) == 2
        assert 0.5 <= waits[0] <= 1.0 <= waits[1] <= 1.5

    def test_the_server_says_how_long_to_wait(self, opened: Open, waits: list[float]) -> None:
        model, double = opened()
        double.faults.add(429, "{}", retry_after="7")
        assert text(model)
        assert waits == [7.0]

    @pytest.mark.parametrize("after", ["3600", "1e999", "Wed, 21 Oct 2099 07:28:00 GMT"])
    def test_a_rest_longer_than_patience_is_not_sat_out(self, opened: Open, waits: list[float], after: str) -> None:
        model, double = opened()
        double.faults.add(429, "{}", retry_after=after)
        with pytest.raises(ModelUnavailable, match=r"429.* of rest"):
            text(model)
        assert waits == []

    @pytest.mark.parametrize("after", ["soon", "-5", "nan", "Wed, 21 Oct 2015 07:28:00 GMT", ""])
    def test_nonsense_instead_of_a_time_is_ignored(self, opened: Open, waits: list[float], after: str) -> None:
        model, double = opened()
        double.faults.add(503, "{}", retry_after=after)
        assert text(model)
        assert waits[0] <= 1.0

    def test_patience_ends(self, opened: Open, waits: list[float]) -> None:
        model, double = opened()
        double.faults.add(503, "{}", count=4)
        with pytest.raises(ModelUnavailable, match="start the server, or wait"):
            text(model)
        assert len(waits) == 3
        assert text(model)

    def test_a_stopped_server_is_a_state_with_a_clear_message(self, patience: Patience) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        with contextlib.closing(OpenAIModel(f"http://owner:secret@127.0.0.1:{port}/v1", NAME, patience=patience)) as model:
            with pytest.raises(
                ModelUnavailable, match=f"http://127.0.0.1:{port}/v1 does not answer .*start the server"
            ) as error:
                text(model)
            assert "secret" not in str(error.value)
            with pytest.raises(ModelUnavailable):
                _ = model.fingerprint

    def test_a_server_that_hangs_up_or_never_answers_is_unavailable(self, patience: Patience) -> None:
        for hold in (False, True):
            with socket.create_server(("127.0.0.1", 0)) as listener:
                kept = []

                def accept(listener: socket.socket = listener, hold: bool = hold, kept: list[socket.socket] = kept) -> None:
                    with contextlib.suppress(OSError):
                        while True:
                            kept.append(listener.accept()[0])
                            if not hold:
                                kept.pop().close()

                threading.Thread(target=accept, daemon=True).start()
                url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
                with (
                    contextlib.closing(OpenAIModel(url, NAME, patience=patience, timeout=0.2)) as model,
                    pytest.raises(ModelUnavailable),
                ):
                    text(model)
                for one in kept:
                    one.close()

    def test_one_refusal_stops_the_batch_and_is_told(self, opened: Open) -> None:
        model, double = opened(width=2)
        text(model)
        double.faults.add(400, '{"error": {"message": "no such thing"}}')
        with pytest.raises(ModelError, match="no such thing"):
            model.complete([ASK] * 40, SHORT)
        assert len(double.faults.bodies("completions")) < 20

    def test_an_unknown_model_is_named(self, opened: Open, patience: Patience) -> None:
        model, _ = opened()
        with (
            contextlib.closing(OpenAIModel(model._server.http.shown, "other", patience=patience)) as other,
            pytest.raises(ModelError, match="`other` does not exist"),
        ):
            text(other)

    @pytest.mark.parametrize(
        "url", ["", "127.0.0.1:8000/v1", "ftp://127.0.0.1/v1", "http://", "http://[::1/v1", "http://a:b/v1"]
    )
    def test_what_is_no_url_is_refused_at_once(self, url: str) -> None:
        with pytest.raises(ModelError, match="write one such as"):
            OpenAIModel(url, NAME)


class TestKeys:
    def test_https_without_a_key_is_refused_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(KEY_VARIABLE, raising=False)
        with pytest.raises(ModelError, match=f"set {KEY_VARIABLE}"):
            OpenAIModel("https://models.example/v1", NAME)

    def test_a_key_for_one_service_is_not_sent_to_another(self, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(KEY_VARIABLE, KEY)
        model, double = opened()
        text(model)
        assert not any(KEY in json.dumps(headers) for _, _, headers in double.faults.asked)

    def test_a_refused_key_is_shown_in_no_error(self, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SLEEPY_TEST_KEY", wrong := "sk-wrong-key-1234567890")
        model, _ = opened("hosted", key_variable="SLEEPY_TEST_KEY")
        with pytest.raises(ModelError, match=r"401.*\*\*\*") as error:
            text(model)
        seen: BaseException | None = error.value
        while seen is not None:
            assert wrong not in str(seen)
            seen = seen.__cause__ or seen.__context__
