"""Adapters put to work in Ollama: three routes to a tag, canaries, the alias and back, and everything that can break off."""

from __future__ import annotations

import fcntl
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent.adapters import read_peft
from agent.errors import ModelError, ModelUnavailable
from agent.model import Message, Sampling
from agent.models.ollama_model import OllamaModel
from agent.pocket import WEIGHTS
from agent.pocket.model import PocketModel
from consolidation.adapters import AdapterStore
from consolidation.fuse import fuse
from consolidation.publishing import PublishError
from consolidation.publishing.desk import LOCK, STATE, slug
from consolidation.publishing.ollama import PROMPTS, OllamaPublisher
from consolidation.publishing.registry import Registry
from tests.agent import loras
from tests.consolidation.adapting import stored
from tests.doubles import pocket_ollama as pocket_ollama_double
from tests.doubles.ollama import CUT, HALF, OllamaDouble
from tests.doubles.ollama_engine import LlamaEngine
from tests.doubles.pocket_ollama import BRISK, EVERYWHERE, NAME, TOKENIZER, any_ollama, pocket_ollama

ASK = [Message("user", "issue in shop\n`total_fee` always gives None.")]
PROMPT = ((ASK[0],),)
CONTEXT, SHORT, SCOPE = 512, Sampling(max_tokens=16), "team/shop"
Open = Callable[..., OllamaPublisher]


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("adapters")
    return [loras.good(folder / str(seed), seed, size=2.0) for seed in range(3)]


@pytest.fixture(scope="module")
def guarded(adapters: list[Path]) -> list[str]:
    """Greedy answers of the engine on which the adapters were guarded."""
    model, found = PocketModel(threads=1), []
    for adapter in adapters:
        model.use(adapter)
        found.append(model.complete([ASK], SHORT)[0].text)
    return found


shared = pocket_ollama_double.shared


@pytest.fixture
def double(shared: OllamaDouble) -> OllamaDouble:
    shared.reset()
    for name in shared.store.names():
        if name.model != NAME:
            shared.store.remove(name)
    shared.store.fetched.clear()
    return shared


@pytest.fixture
def publisher(double: OllamaDouble, tmp_path: Path) -> Iterator[Open]:
    opened: list[OllamaPublisher] = []

    def make(**given: Any) -> OllamaPublisher:
        given = {"prompts": PROMPT, "context": CONTEXT, "patience": BRISK, **given}
        opened.append(OllamaPublisher(double.host, NAME, tmp_path / "state", **given))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def said(double: OllamaDouble, model: str) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": ASK[0].content}], "stream": False}
    body["options"] = {"temperature": 0, "num_predict": 16, "num_ctx": CONTEXT}
    return str(httpx.post(f"{double.host}/api/chat", json=body, timeout=60).json()["message"]["content"])


def tags(double: OllamaDouble) -> set[str]:
    return {name.shown for name in double.store.names()} - {f"{NAME}:latest"}


@pytest.mark.parametrize("route", ["create", "pull", "merge"])
def test_every_route_serves_what_was_guarded(
    publisher: Open, double: OllamaDouble, adapters: list[Path], guarded: list[str], route: Any
) -> None:
    before = said(double, NAME)
    published = publisher(route=route).publish(adapters[0], [guarded[0]])
    assert (published.route, published.tag) == (route, publisher().tag(adapters[0]))
    assert said(double, published.tag) == guarded[0] != before == said(double, NAME)
    assert tags(double) == {published.tag}, "nothing is left of the way there"
    model = double.store.manifest(next(n for n in double.store.names() if n.shown == published.tag))
    layers = [layer["mediaType"].rpartition(".")[2] for layer in model["layers"]]
    assert sorted(layers) == sorted(["model", "template", "params", *(["adapter"] if route != "merge" else [])])


def test_only_the_adapter_travels_when_it_is_pulled(publisher: Open, double: OllamaDouble, adapters: list[Path]) -> None:
    publisher(route="pull").publish(adapters[0])
    (digest,) = double.store.fetched
    assert double.store.blob(digest).stat().st_size < 200_000
    (pulled,) = [body["model"] for path, body in double.asked if path == "/api/pull"]
    host, _, port = pulled.partition("/")[0].partition(":")
    assert host == "127.0.0.1"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=1).close()


def test_the_layers_are_read_from_disk_where_the_server_does_not_push(
    publisher: Open, double: OllamaDouble, adapters: list[Path], guarded: list[str]
) -> None:
    double.habits.faults = {"/api/push": [(404, "no such command")] * 3}
    published = publisher(route="pull").publish(adapters[0], [guarded[0]])
    assert said(double, published.tag) == guarded[0]


@pytest.mark.parametrize(("version", "habit"), [("0.34.1", "refuse"), ("0.33.9", "refuse"), ("0.33.9", "ignore")])
def test_the_route_is_found_by_version_and_by_trying_and_remembered(
    publisher: Open, double: OllamaDouble, adapters: list[Path], version: str, habit: str
) -> None:
    double.habits.version, double.habits.adapters = version, habit
    assert publisher().publish(adapters[0]).route == "pull"
    assert any(path == "/api/create" for path, _ in double.asked) == (version == "0.33.9")
    double.asked.clear()
    assert publisher().publish(adapters[1]).route == "pull"
    assert all(path != "/api/create" for path, _ in double.asked)


def test_a_server_that_passes_over_the_adapter_is_seen_through(
    publisher: Open, double: OllamaDouble, adapters: list[Path]
) -> None:
    double.habits.adapters = "ignore"
    with pytest.raises(PublishError, match="without the adapter"):
        publisher(route="create").publish(adapters[0])


def test_where_nothing_works_each_reason_is_told(publisher: Open, double: OllamaDouble, adapters: list[Path]) -> None:
    double.habits.faults = {"/api/pull": [(403, "pulling is off")], "/api/create": [(403, "creating is off")] * 2}
    with pytest.raises(PublishError, match=r"create: .*creating is off.*pull: .*pulling is off.*merge: .*creating is off"):
        publisher().publish(adapters[0])
    assert tags(double) == set()


def test_a_wrong_answer_or_none_that_differs_is_not_published(
    publisher: Open, double: OllamaDouble, adapters: list[Path], guarded: list[str], tmp_path: Path
) -> None:
    with pytest.raises(PublishError, match="canary 0"):
        publisher().publish(adapters[0], [guarded[0] + "!"])
    faint = loras.good(tmp_path / "faint", 1, size=1e-6)
    with pytest.raises(PublishError, match="as its base does"):
        publisher(route="create").publish(faint)
    with pytest.raises(PublishError, match="one for each"):
        publisher().publish(adapters[0], [])
    assert tags(double) == set()
    with pytest.raises(PublishError, match="not what was published"):
        publisher().make_live(SCOPE, publisher().tag(faint))


def test_a_bad_adapter_leaves_nothing_behind(publisher: Open, double: OllamaDouble, tmp_path: Path) -> None:
    for way, folder in loras.bad(tmp_path / "bad").items():
        with pytest.raises(PublishError, match="was not published"):
            publisher(route="pull").publish(folder)
        assert tags(double) == set(), way
        assert said(double, NAME)


def test_what_is_there_already_is_not_made_again(publisher: Open, double: OllamaDouble, adapters: list[Path]) -> None:
    first = publisher().publish(adapters[0])
    double.asked.clear()
    again = publisher().publish(adapters[0])
    assert (again.tag, again.digest, again.route) == (first.tag, first.digest, first.route)
    assert not {path for path, _ in double.asked} & {"/api/create", "/api/pull", "/api/chat"}
    double.create({"model": first.tag, "from": NAME}, lambda _: None)
    publisher().publish(adapters[0])
    assert publisher().server.digest(first.tag) == first.digest, "a tag that was changed is made anew"


def test_the_alias_flips_back_and_forth(
    publisher: Open, double: OllamaDouble, adapters: list[Path], guarded: list[str]
) -> None:
    desk = publisher()
    one, two = (desk.publish(adapter).tag for adapter in adapters[:2])
    alias, base = desk.alias(SCOPE), said(double, NAME)
    assert (desk.live(SCOPE), desk.previous(SCOPE)) == (NAME, NAME)
    desk.make_live(SCOPE, one)
    desk.make_live(SCOPE, two)
    desk.make_live(SCOPE, two)
    assert (desk.live(SCOPE), desk.previous(SCOPE), said(double, alias)) == (two, one, guarded[1])
    assert (desk.rollback(SCOPE), said(double, alias)) == (one, guarded[0])
    assert (desk.rollback(SCOPE), said(double, alias)) == (two, guarded[1])
    desk.make_live("other", one)
    assert (desk.rollback("other"), said(double, desk.alias("other"))) == (NAME, base)
    assert publisher().live(SCOPE) == two


def test_only_what_nobody_can_return_to_is_deleted(publisher: Open, double: OllamaDouble, adapters: list[Path]) -> None:
    desk = publisher()
    one, two, three = (desk.publish(adapter).tag for adapter in adapters)
    desk.make_live(SCOPE, one)
    desk.make_live(SCOPE, two)
    assert desk.prune(keep=[three]) == []
    double.create({"model": f"127.0.0.1:1/sleepy{'0' * 32}/model:latest", "from": NAME}, lambda _: None)
    assert desk.prune() == [three]
    assert tags(double) == {one, two, desk.alias(SCOPE)}
    with pytest.raises(PublishError, match="not what was published"):
        desk.make_live(SCOPE, three)


@pytest.mark.parametrize(
    ("route", "faults"),
    [
        ("create", {"/api/create": [CUT] * 3}),
        ("create", {"/api/blobs": [(500, "write: no space left on device")] * 3}),
        ("pull", {"/api/pull": [CUT] * 3}),
        ("pull", {"/api/copy": [(500, "no space left on device")] * 6}),
        ("create", {"/api/chat": [(500, "llama runner process has terminated")] * 3}),
        ("create", {"/api/tags": [(500, "no")] * 2}),
    ],
)
def test_a_step_that_fails_changes_nothing_that_is_live(
    publisher: Open, double: OllamaDouble, adapters: list[Path], guarded: list[str], route: Any, faults: Any
) -> None:
    desk = publisher(route=route)
    desk.make_live(SCOPE, publisher().publish(adapters[0]).tag)
    double.habits.faults = faults
    with pytest.raises(PublishError, match="was not published"):
        desk.publish(adapters[1])
    double.habits.faults = {}
    assert (desk.live(SCOPE), said(double, desk.alias(SCOPE))) == (desk.tag(adapters[0]), guarded[0])
    desk.make_live(SCOPE, desk.publish(adapters[1], [guarded[1]]).tag)
    assert said(double, desk.alias(SCOPE)) == guarded[1]


def test_what_was_begun_and_not_finished_is_deleted_later(publisher: Open, double: OllamaDouble, adapters: list[Path]) -> None:
    desk = publisher(route="create")
    double.habits.faults = {"/api/chat": [CUT, (503, "busy"), (503, "busy")], "/api/delete": [(503, "busy")] * 2}
    with pytest.raises(PublishError, match="busy"):
        desk.publish(adapters[0])
    double.habits.faults = {}
    assert tags(double) == {(left := f"{desk.tag(adapters[0])}-new")}
    assert desk.prune() == [left]
    assert tags(double) == set()


def test_a_tag_that_is_in_use_survives_a_publish_that_fails(
    publisher: Open, double: OllamaDouble, adapters: list[Path], guarded: list[str]
) -> None:
    tag = publisher(route="create").publish(adapters[0]).tag
    publisher().make_live(SCOPE, tag)
    with pytest.raises(PublishError, match="canary 0"):
        publisher(route="pull").publish(adapters[0], ["something else"])
    publisher().make_live("other", tag)
    assert tags(double) == {tag, publisher().alias(SCOPE), publisher().alias("other")}
    assert said(double, tag) == guarded[0]


def test_half_an_alias_is_made_whole_again(
    publisher: Open, double: OllamaDouble, adapters: list[Path], guarded: list[str]
) -> None:
    desk = publisher()
    one, two = (desk.publish(adapter).tag for adapter in adapters[:2])
    desk.make_live(SCOPE, one)
    double.habits.faults = {"/api/copy": [HALF, (500, "no space left on device")]}
    with pytest.raises(PublishError, match="not made live"):
        desk.make_live(SCOPE, two)
    assert (desk.live(SCOPE), said(double, desk.alias(SCOPE))) == (one, guarded[0])


@pytest.mark.parametrize("copied", [True, False])
def test_a_flip_that_died_in_the_middle_is_known_by_what_the_server_has(
    publisher: Open, double: OllamaDouble, adapters: list[Path], tmp_path: Path, copied: bool
) -> None:
    desk = publisher()
    one, two = (desk.publish(adapter).tag for adapter in adapters[:2])
    desk.make_live(SCOPE, one)
    state = json.loads((tmp_path / "state" / STATE).read_text())
    (tmp_path / "state" / STATE).write_text(json.dumps({**state, "wanted": {SCOPE: two}}))
    if copied:
        httpx.post(f"{double.host}/api/copy", json={"source": two, "destination": desk.alias(SCOPE)})
    assert (desk.live(SCOPE), desk.previous(SCOPE)) == ((two, one) if copied else (one, NAME))


def test_a_server_that_is_gone_is_told_and_nothing_is_lost(tmp_path: Path, adapters: list[Path]) -> None:
    with pocket_ollama(tmp_path / "models") as double:
        desk = OllamaPublisher(double.host, NAME, tmp_path / "state", prompts=PROMPT, context=CONTEXT, patience=BRISK)
        tag = desk.publish(adapters[0]).tag
        desk.make_live(SCOPE, tag)
    with closing(desk):
        for call in (lambda: desk.publish(adapters[1]), lambda: desk.rollback(SCOPE), desk.prune):
            with pytest.raises(PublishError, match="ollama serve"):
                call()
        with pytest.raises(ModelUnavailable, match="ollama serve"):
            desk.provide(adapters[1])
        assert desk.live(SCOPE) == tag


def test_of_two_publishers_the_second_is_told_to_wait(publisher: Open, adapters: list[Path], tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    with (tmp_path / "state" / LOCK).open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)  # even who only looks keeps others away
        lock.write("4711\n")
        lock.flush()
        for call in (lambda: publisher().publish(adapters[0]), lambda: publisher().make_live(SCOPE, NAME), publisher().prune):
            with pytest.raises(PublishError, match="process 4711 is publishing"):
                call()
    assert publisher().publish(adapters[0])


def test_two_at_once_leave_one_whole_model(publisher: Open, double: OllamaDouble, adapters: list[Path]) -> None:
    made: list[str] = []

    def run(desk: OllamaPublisher, adapter: Path) -> None:
        with suppress(PublishError):
            made.append(desk.publish(adapter).tag)

    threads = [threading.Thread(target=run, args=(publisher(), adapter)) for adapter in adapters[:2]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(made) == tags(double) != set()


@pytest.mark.parametrize("content", ["{", '{"live": 3}', '{"live": {}, "more": 1}'])
def test_a_damaged_state_is_named(publisher: Open, tmp_path: Path, content: str) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / STATE).write_text(content)
    with pytest.raises(PublishError, match=STATE):
        publisher().live(SCOPE)


def test_a_base_that_carries_an_adapter_is_refused(
    publisher: Open, double: OllamaDouble, adapters: list[Path], tmp_path: Path
) -> None:
    tag = publisher().publish(adapters[0]).tag
    other = OllamaPublisher(double.host, tag, tmp_path / "other", prompts=PROMPT, patience=BRISK)
    with closing(other) as desk, pytest.raises(PublishError, match="pristine"):
        desk.publish(adapters[1])


def test_the_served_model_swaps_adapters_by_publishing_them(
    publisher: Open, double: OllamaDouble, adapters: list[Path], guarded: list[str], tmp_path: Path
) -> None:
    given = {"tokenizer": TOKENIZER, "provide": publisher().provide, "patience": BRISK}
    with closing(OllamaModel(NAME, double.host, CONTEXT, **given)) as model:
        base, before = model.complete([ASK], SHORT)[0].text, model.fingerprint
        for adapter, expected in zip(adapters, guarded, strict=True):
            model.use(adapter)
            assert model.complete([ASK], SHORT)[0].text == expected
        with pytest.raises(ModelError, match="not published"):
            model.use(loras.bad(tmp_path / "bad")["too wide"])
        assert model.complete([ASK], SHORT)[0].text == guarded[-1]
        model.use(None)
        assert (model.complete([ASK], SHORT)[0].text, model.fingerprint) == (base, before)


def test_publishing_takes_no_second(publisher: Open, adapters: list[Path]) -> None:
    desk = publisher(prompts=PROMPTS)
    desk.publish(adapters[0])
    seconds = min(desk.publish(adapter).seconds for adapter in adapters[1:])
    print(f"publish to the double: {seconds:.2f} s")
    assert seconds <= 1.0


@pytest.mark.parametrize("kind", EVERYWHERE)
def test_an_adapter_is_published_made_live_and_rolled_back(kind: str, tmp_path: Path, adapters: list[Path]) -> None:
    with (
        any_ollama(kind, tmp_path / "models") as (host, name, _),
        closing(OllamaPublisher(host, name, tmp_path / "state", context=CONTEXT)) as desk,
    ):
        published = desk.publish(adapters[0])
        print(f"{published.route} {published.seconds:.2f} s")
        desk.make_live(SCOPE, published.tag)
        assert desk.server.digest(desk.alias(SCOPE)) == published.digest
        assert desk.rollback(SCOPE) == name
        assert desk.server.digest(desk.alias(SCOPE)) == desk.server.digest(name)


@pytest.mark.llamacpp
@pytest.mark.parametrize("route", ["create", "pull", "merge"])
def test_llama_cpp_serves_what_was_guarded_by_every_route(
    tmp_path: Path, adapters: list[Path], guarded: list[str], route: Any
) -> None:
    pytest.importorskip("llama_cpp")
    with pocket_ollama(tmp_path / "models", engine=LlamaEngine) as double:
        given = {"route": route, "prompts": PROMPT, "context": CONTEXT, "patience": BRISK}
        with closing(OllamaPublisher(double.host, NAME, tmp_path / "state", **given)) as desk:
            desk.publish(adapters[0], [guarded[0]])
            desk.make_live(SCOPE, desk.publish(adapters[1], [guarded[1]]).tag)
            assert said(double, desk.alias(SCOPE)) == guarded[1]


class TestRegistry:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        path = tmp_path / "blob"
        path.write_bytes(bytes(range(256)) * 40)
        return path

    @pytest.fixture
    def registry(self, file: Path) -> Iterator[Registry]:
        with Registry() as registry:
            registry.offer(b'{"layers": []}', {"sha256:a": file})
            yield registry

    def url(self, registry: Registry, path: str) -> str:
        host, namespace, _ = registry.name.split("/")
        return f"http://{host}/v2/{namespace}/model/{path}"

    def test_a_blob_is_given_whole_and_in_ranges(self, registry: Registry, file: Path) -> None:
        url, content = self.url(registry, "blobs/sha256:a"), file.read_bytes()
        whole = httpx.get(url)
        assert (whole.content, httpx.URL(url).join(whole.headers["location"])) == (content, httpx.URL(url))
        assert httpx.head(url).headers["content-length"] == str(len(content))
        for asked, first, last in (("3-9", 3, 9), ("0-0", 0, 0), ("10000-", 10_000, 10_239), ("10000-99999", 10_000, 10_239)):
            part = httpx.get(url, headers={"Range": f"bytes={asked}"})
            assert (part.status_code, part.content) == (206, content[first : last + 1])
            assert part.headers["content-range"] == f"bytes {first}-{last}/{len(content)}"
        assert httpx.get(url, headers={"Range": "bytes=20000-20001"}).status_code == 416

    @pytest.mark.parametrize("path", ["blobs/sha256:b", "manifests/other", "blobs/../../etc/passwd", "tags/list", ""])
    def test_nothing_else_is_there(self, registry: Registry, path: str) -> None:
        assert httpx.get(self.url(registry, path)).status_code == 404

    def test_who_does_not_know_the_name_learns_nothing(self, registry: Registry) -> None:
        url = self.url(registry, "manifests/latest")
        assert httpx.get(url).content == b'{"layers": []}'
        assert httpx.get(url.replace("/sleepy", "/sleepx")).status_code == 404
        host = registry.name.partition("/")[0]
        assert [httpx.get(f"http://{host}{path}").status_code for path in ("/", "/v2/", "/v2/_catalog")] == [404] * 3
        with Registry() as other:
            assert other.name.split("/")[1] != registry.name.split("/")[1]
            assert len(other.name.split("/")[1]) == len("sleepy") + 32

    def test_a_manifest_is_only_taken_while_it_learns(self, registry: Registry) -> None:
        url = self.url(registry, "manifests/latest")
        assert httpx.put(url, content=b"{}").status_code == 404
        registry.learn()
        assert httpx.put(url, content=b"x" * (2 << 20)).status_code == 404
        assert httpx.put(url.replace("latest", "other"), content=b"{}").status_code == 404
        assert httpx.head(self.url(registry, "blobs/sha256:any")).status_code == 200
        assert (httpx.put(url, content=b"{}").status_code, registry.learnt) == (201, b"{}")
        assert httpx.put(url, content=b"[]").status_code == 404

    def test_what_is_no_http_does_not_stop_it(self, registry: Registry) -> None:
        host, _, port = registry.name.partition("/")[0].partition(":")
        for content in (b"\0\xff\r\n\r\n", b"GET", b"PUT / HTTP/1.1\r\nContent-Length: x\r\n\r\n"):
            with socket.create_connection((host, int(port)), timeout=5) as stranger:
                stranger.sendall(content)
        assert httpx.get(self.url(registry, "blobs/sha256:a")).status_code == 200


def test_any_text_becomes_a_part_of_a_name() -> None:
    assert slug("qwen2.5-coder:7b") == "qwen2.5-coder-7b"
    names = [slug(text) for text in ("a/b", "a-b", "../x", "", "Ä", "x" * 300, ":", "a b")]
    assert len(set(names)) == len(names)
    assert all(len(name) <= 80 and name[0].isalnum() and name.isascii() and "/" not in name for name in names)


@pytest.mark.parametrize("quantise", ["", "q8_0"])
def test_a_fused_model_is_served_as_it_was_made_and_can_be_made_live(
    publisher: Open, double: OllamaDouble, adapters: list[Path], guarded: list[str], tmp_path: Path, quantise: str
) -> None:
    adapter = stored(AdapterStore(tmp_path / "adapters"), read_peft(adapters[0]), WEIGHTS)
    fuse(WEIGHTS, adapter, tmp_path / "fused")
    one = publisher()
    published = one.publish_fused(tmp_path / "fused", quantise)
    assert published.route == "fused"
    assert said(double, published.tag) != said(double, NAME)
    if not quantise:
        assert said(double, published.tag) == guarded[0]
    one.make_live(SCOPE, published.tag)
    assert said(double, one.alias(SCOPE)) == said(double, published.tag)
    assert one.rollback(SCOPE) == NAME


def test_a_fused_model_that_was_changed_since_is_not_published(
    publisher: Open, double: OllamaDouble, adapters: list[Path], tmp_path: Path
) -> None:
    fuse(WEIGHTS, stored(AdapterStore(tmp_path / "adapters"), read_peft(adapters[0]), WEIGHTS), tmp_path / "fused")
    with (tmp_path / "fused" / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x00")
    with pytest.raises(PublishError, match="is not what was made"):
        publisher().publish_fused(tmp_path / "fused")
    assert tags(double) == set()
