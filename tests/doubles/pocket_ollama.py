"""The pocket model in Ollama: in the double, or in a real server where OLLAMA_HOST names one that answers."""

from __future__ import annotations

import atexit
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import ollama
import pytest

from agent.models.ollama_model import OllamaModel
from agent.models.remote import Patience
from agent.pocket import WEIGHTS
from agent.pocket.tokenizer import PocketTokenizer
from consolidation.layouts.gguf_base import write_gguf_base
from consolidation.publishing.ollama import OllamaPublisher
from tests.doubles.ollama import Habits, OllamaDouble, serving
from tests.doubles.ollama_engine import Engine, PocketEngine

NAME, REAL = "pocket", "sleepy-test-pocket"
TOKENIZER = PocketTokenizer(WEIGHTS / "tokenizer.json")
BRISK = Patience(attempts=2, seconds=5.0, sleep=lambda _: None)
EVERYWHERE: list[Any] = ["double", pytest.param("real", marks=pytest.mark.ollama)]


@cache
def base_gguf() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="pocket-gguf-")
    atexit.register(folder.cleanup)
    path = Path(folder.name) / "pocket.gguf"
    write_gguf_base(WEIGHTS, path)
    return path


@contextmanager
def pocket_ollama(
    root: Path, habits: Habits | None = None, engine: Callable[[Path, Sequence[Path]], Engine] = PocketEngine
) -> Iterator[OllamaDouble]:
    """A double whose store holds the model `pocket`."""
    double = OllamaDouble(root, habits or Habits(), engine)
    digest, _ = double.store.keep(iter([base_gguf().read_bytes()]))
    given = {"files": {"pocket.gguf": digest}, "template": "{{ .Prompt }}", "parameters": {"stop": ["<|end|>"]}}
    double.create({"model": NAME, **given}, lambda _: None)
    with serving(double):
        yield double


@contextmanager
def published(context: int, native: bool = False) -> Iterator[OllamaModel]:
    """The pocket model on a double (`model.double`), its adapters published by whatever route works."""
    habits = Habits(tools=native)
    with tempfile.TemporaryDirectory() as folder, pocket_ollama(Path(folder) / "models", habits) as double:
        desk = OllamaPublisher(double.host, NAME, Path(folder) / "state", context=context, patience=BRISK)
        given: dict[str, Any] = {"tokenizer": TOKENIZER, "provide": desk.provide, "patience": BRISK}
        given |= {"speaks": "native"} if native else {}
        with closing(desk), closing(OllamaModel(NAME, double.host, context, **given)) as model:
            model.double = double  # type: ignore[attr-defined]
            yield model


def loaded(model: Any) -> Any:
    """The engine that computes a published model's answers."""
    model.warm()
    (runner,) = model.double.scheduler._runners.values()
    return runner.engine


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OllamaDouble]:
    """One double for a whole module; `OllamaDouble.reset` between tests."""
    with pocket_ollama(tmp_path_factory.mktemp("ollama")) as double:
        yield double


@contextmanager
def any_ollama(kind: str, root: Path) -> Iterator[tuple[str, str, OllamaDouble | None]]:
    """Address, name of the pocket model there, and the double if it is one. A real server is left as it was."""
    if kind == "double":
        with pocket_ollama(root) as double:
            yield double.host, NAME, double
        return
    host = os.environ.get("OLLAMA_HOST", "")
    with ollama.Client(host=host or None, timeout=120) as client:
        yield from _real(host, client)


def _real(host: str, client: ollama.Client) -> Iterator[tuple[str, str, None]]:
    try:
        known = {model.model for model in client.list().models}
    except (ConnectionError, httpx.HTTPError):
        pytest.skip("no Ollama answers at OLLAMA_HOST")
    client.create(REAL, files={"pocket.gguf": client.create_blob(base_gguf())})
    try:
        yield host, REAL, None
    finally:
        for name in {model.model for model in client.list().models} - known:
            with suppress(ollama.ResponseError):
                client.delete(str(name))
