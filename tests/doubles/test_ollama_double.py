"""The Ollama double keeps what the API promises, as the official client sees it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import ollama
import pytest

from agent.adapters import read_peft
from agent.model import Message, Sampling
from agent.pocket.model import PocketModel
from consolidation.layouts.gguf import write_gguf_adapter
from tests.agent import loras
from tests.doubles import pocket_ollama as pocket_ollama_double
from tests.doubles.ollama import CUT, OllamaDouble
from tests.doubles.ollama_engine import LlamaEngine
from tests.doubles.pocket_ollama import NAME, TOKENIZER, pocket_ollama

ASK = [{"role": "user", "content": "issue in shop\n`total_fee` always gives None."}]
ASKED = [Message("user", ASK[0]["content"])]
GREEDY = {"temperature": 0, "num_predict": 24}


shared = pocket_ollama_double.shared


@pytest.fixture
def double(shared: OllamaDouble) -> OllamaDouble:
    shared.reset()
    return shared


@pytest.fixture
def client(double: OllamaDouble) -> Iterator[ollama.Client]:
    with ollama.Client(host=double.host, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return loras.good(tmp_path_factory.mktemp("adapter"), 1)


@pytest.fixture(scope="module")
def gguf(adapter: Path) -> Path:
    write_gguf_adapter(read_peft(adapter), adapter / "adapter.gguf")
    return adapter / "adapter.gguf"


def refused(status: int, words: str, call: object, *args: object, **kwargs: object) -> None:
    with pytest.raises(ollama.ResponseError, match=words) as error:
        call(*args, **kwargs)  # type: ignore[operator]
    assert error.value.status_code in (status, -1)


def test_models_are_listed_and_shown(client: ollama.Client, double: OllamaDouble) -> None:
    (listed,) = [model for model in client.list().models if model.model == f"{NAME}:latest"]
    shown = client.show(NAME)
    assert len(listed.digest or "") == 64
    assert (listed.details, shown.details) == (shown.details, listed.details)
    assert shown.modelinfo is not None
    assert (shown.modelinfo["general.architecture"], shown.modelinfo["qwen2.context_length"]) == ("qwen2", 2048)
    blob = next(line for line in (shown.modelfile or "").splitlines() if line.startswith("FROM "))[5:]
    assert Path(blob).read_bytes()[:4] == b"GGUF"
    assert httpx.get(f"{double.host}/api/version").json() == {"version": "0.33.0"}


def test_answers_are_the_pocket_models_whole_or_in_parts(client: ollama.Client) -> None:
    expected = PocketModel(threads=1).complete([ASKED], Sampling(max_tokens=24))[0]
    whole = client.chat(NAME, ASK, options=GREEDY)
    parts = list(client.chat(NAME, ASK, options=GREEDY, stream=True))
    assert whole.message.content == expected.text == "".join(part.message.content or "" for part in parts)
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert (whole.done_reason, whole.prompt_eval_count, whole.eval_count) == (
        "stop", expected.prompt_tokens, expected.completion_tokens,
    )  # fmt: skip
    assert client.generate(NAME, ASK[0]["content"], options=GREEDY).response == expected.text
    assert client.chat(NAME, ASK, options={**GREEDY, "num_predict": 2}).done_reason == "length"


def test_seeds_make_samples_repeatable(client: ollama.Client) -> None:
    hot = [client.chat(NAME, ASK, options={"temperature": 6, "num_predict": 8, "seed": seed}) for seed in (1, 1, 2)]
    assert hot[0].message == hot[1].message != hot[2].message


def test_what_does_not_fit_is_cut_in_silence(client: ollama.Client) -> None:
    talk = [{"role": "system", "content": "be brief"}, *[{"role": "user", "content": f"line {i} " * 8} for i in range(20)]]
    told = TOKENIZER.prompt([Message(m["role"], m["content"]) for m in talk])  # type: ignore[arg-type]
    kept = TOKENIZER.prompt([Message(m["role"], m["content"]) for m in [talk[0], talk[-1]]])  # type: ignore[arg-type]
    for messages in (talk, [{"role": "user", "content": "word " * 300}]):
        answer = client.chat(NAME, messages, options={**GREEDY, "num_ctx": 128})
        assert len(kept) // 2 < (answer.prompt_eval_count or 0) <= 128 < len(told)
        assert answer.message.content


def test_what_does_not_fit_is_refused_where_cutting_is_forbidden(double: OllamaDouble) -> None:
    body = {"model": NAME, "messages": [{"role": "user", "content": "x " * 300}], "truncate": False, "stream": False}
    answer = httpx.post(f"{double.host}/api/chat", json={**body, "options": {"num_ctx": 128}}, timeout=30)
    assert (answer.status_code, "context size" in answer.json()["error"]) == (400, True)
    double.habits.truncate = False
    assert httpx.post(f"{double.host}/api/chat", json={**body, "options": {"num_ctx": 128}}, timeout=30).status_code == 200


def test_a_full_context_shifts_or_ends(double: OllamaDouble) -> None:
    body = {"model": NAME, "messages": [{"role": "user", "content": "x " * 50}], "stream": False}
    body["options"] = {"num_ctx": 64, "temperature": 6, "num_predict": 40}
    ended = httpx.post(f"{double.host}/api/chat", json={**body, "shift": False}, timeout=30).json()
    shifted = httpx.post(f"{double.host}/api/chat", json=body, timeout=30).json()
    assert (ended["done_reason"], ended["prompt_eval_count"] + ended["eval_count"]) == ("length", 64)
    assert shifted["prompt_eval_count"] + shifted["eval_count"] > 64


@pytest.mark.parametrize("counts", ["whole", "computed"])
def test_a_cached_prompt_may_be_counted_or_not(client: ollama.Client, double: OllamaDouble, counts: str) -> None:
    double.habits.counts = counts
    client.generate(NAME, keep_alive=0)
    first, second = (client.chat(NAME, ASK, options=GREEDY).prompt_eval_count for _ in range(2))
    assert first == len(TOKENIZER.prompt(ASKED))
    assert second == (first if counts == "whole" else 1)


def test_models_come_and_go(client: ollama.Client, double: OllamaDouble) -> None:
    client.generate(NAME, keep_alive=0)
    assert client.ps().models == []
    loads = double.scheduler.loads
    assert client.generate(NAME, options={"num_ctx": 256}).done_reason == "load"
    first, second = (client.chat(NAME, ASK, options={**GREEDY, "num_ctx": 256}) for _ in range(2))
    (held,) = client.ps().models
    assert (held.model, held.context_length, int(held.size or 0) > 10_000_000) == (f"{NAME}:latest", 256, True)
    assert double.scheduler.loads == loads + 1
    assert (second.load_duration or 0) < (first.total_duration or 0)
    client.chat(NAME, [], options={"num_ctx": 4096})
    assert [m.context_length for m in client.ps().models] == [2048]
    assert client.chat(NAME, [], keep_alive=0).done_reason == "unload"
    assert client.ps().models == []
    client.chat(NAME, [], keep_alive=0.05)
    time.sleep(0.1)
    assert client.ps().models == []
    refused(404, "not found", client.chat, "nothing", ASK)


def test_an_adapter_changes_answers_and_is_inherited(
    client: ollama.Client, double: OllamaDouble, adapter: Path, gguf: Path
) -> None:
    model = PocketModel(threads=1)
    model.use(adapter)
    expected = model.complete([ASKED], Sampling(max_tokens=24))[0].text
    blob = client.create_blob(gguf)
    steps = [line.status for line in client.create("tuned", from_=NAME, adapters={"a.gguf": blob}, stream=True)]
    assert (steps[0], steps[-1]) == ("writing manifest", "success")
    client.create("again", from_="tuned")
    loads, answers = double.scheduler.loads, []
    for name in ("tuned", NAME, "again"):
        answers.append(client.chat(name, ASK, options=GREEDY).message.content)
    assert answers[0] == answers[2] == expected != answers[1]
    assert double.scheduler.loads >= loads + 2, "one runner for each base, loaded anew for other adapters"
    assert f"ADAPTER {double.store.blob(blob)}" in (client.show("again").modelfile or "")
    for name in ("tuned", "again"):
        client.delete(name)
    assert not double.store.blob(blob).exists()


def test_what_create_refuses(client: ollama.Client, double: OllamaDouble, adapter: Path, gguf: Path) -> None:
    blob = client.create_blob(gguf)
    weights = client.create_blob(adapter / "adapter_model.safetensors")
    refused(400, "unsupported", client.create, "t", from_=NAME, adapters={"adapter_model.safetensors": weights})
    refused(400, "only one adapter", client.create, "t", from_=NAME, adapters={"a.gguf": blob, "b.gguf": blob})
    refused(400, "GGUF", client.create, "t", from_=NAME, adapters={"a.gguf": f"sha256:{'0' * 64}"})
    refused(400, "neither", client.create, "t")
    refused(404, "not found", client.create, "t", from_="nothing")
    double.habits.adapters = "refuse"
    refused(400, "no longer supported", client.create, "t", from_=NAME, adapters={"a.gguf": blob})
    double.habits.adapters = "ignore"
    client.create("t", from_=NAME, adapters={"a.gguf": blob})
    assert "ADAPTER" not in (client.show("t").modelfile or "")
    client.delete("t")
    refused(404, "not found", client.show, "t")


def test_blobs_are_what_they_are_called(double: OllamaDouble) -> None:
    url = f"{double.host}/api/blobs/sha256:{'0' * 64}"
    assert httpx.head(url).status_code == 404
    answer = httpx.post(url, content=b"something else")
    assert (answer.status_code, "digest mismatch" in answer.json()["error"]) == (400, True)
    assert httpx.head(url).status_code == 404


def test_quantising_makes_a_smaller_model_that_answers(client: ollama.Client) -> None:
    client.create("small", from_=NAME, quantize="q8_0")
    listed = {model.model: model for model in client.list().models}
    one, two = listed["small:latest"], listed[f"{NAME}:latest"]
    assert int(one.size or 0) < 0.4 * int(two.size or 0)
    assert one.details is not None
    assert client.chat("small", ASK, options=GREEDY).message.content
    client.delete("small")


def test_copies_are_the_same_model(client: ollama.Client) -> None:
    client.copy(NAME, "other:one")
    digests = {model.model: model.digest for model in client.list().models}
    assert digests["other:one"] == digests[f"{NAME}:latest"]
    client.delete("other:one")
    assert client.show(NAME)
    refused(404, "not found", client.copy, "nothing", "x")


@pytest.mark.parametrize("flaw", ["no location", "wrong bytes", "no manifest"])
def test_a_registry_that_is_not_quite_one_is_pulled_from_in_vain(client: ollama.Client, flaw: str) -> None:
    content, digest = b"GGUF", f"sha256:{'1' * 64}"
    layer = {"mediaType": "application/vnd.ollama.image.adapter", "digest": digest, "size": 4}

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002

        def do_GET(self) -> None:
            manifest = json.dumps({"layers": [layer], "config": layer}).encode()
            body = manifest if "manifests" in self.path else content
            self.send_response(404 if flaw == "no manifest" else 200)
            if flaw != "no location":
                self.send_header("Location", self.path)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    words = {"no location": "no Location header", "wrong bytes": "digest mismatch", "no manifest": "does not exist"}[flaw]
    refused(500, words, client.pull, f"127.0.0.1:{server.server_port}/a/b:c", insecure=True)
    server.shutdown()
    server.server_close()


def test_faults_meet_one_request_each(client: ollama.Client, double: OllamaDouble) -> None:
    double.habits.faults = {"/api/chat": [(503, "server busy"), CUT]}
    refused(503, "busy", client.chat, NAME, ASK)
    with pytest.raises(httpx.RemoteProtocolError):
        list(client.chat(NAME, ASK, options=GREEDY, stream=True))
    assert client.chat(NAME, ASK, options=GREEDY).message.content


@pytest.mark.llamacpp
def test_llama_cpp_answers_as_the_pocket_network_does(tmp_path: Path, adapter: Path, gguf: Path) -> None:
    pytest.importorskip("llama_cpp")
    model = PocketModel(threads=1)
    with (
        pocket_ollama(tmp_path, engine=LlamaEngine) as double,
        ollama.Client(host=double.host, trust_env=False) as client,
    ):
        client.create("tuned", from_=NAME, adapters={"a.gguf": client.create_blob(gguf)})
        for name, folder in ((NAME, None), ("tuned", adapter), (NAME, None)):
            model.use(folder)
            expected = model.complete([ASKED], Sampling(max_tokens=24))[0].text
            assert client.chat(name, ASK, options=GREEDY).message.content == expected
