"""What serves a mixture: the folder its router asks for, made whole, checked, and refused where it is hostile."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from agent.model import Model
from agent.pocket import WEIGHTS
from consolidation.adapters import artefact_hash
from consolidation.errors import AdapterError
from consolidation.layouts.peft import write_peft
from consolidation.mixture.serving import MIXTURES, Served, materialise
from tests.consolidation.mixing import RANKS, answers, experts, issue, issues, mixture, routing

torch.set_num_threads(1)


class TestServing:
    def test_an_adapter_without_a_router_serves_itself(self, tmp_path: Path) -> None:
        assert Served().choose(tmp_path / "plain", issue(0, 0)) == tmp_path / "plain"

    def test_the_router_is_part_of_the_artefacts_identity(self, tmp_path: Path) -> None:
        one, two = mixture(tmp_path / "one"), mixture(tmp_path / "two", routing(2))
        assert artefact_hash(one) != artefact_hash(two)
        assert artefact_hash(one) == artefact_hash(mixture(tmp_path / "again"))

    def test_each_mixture_is_made_once_and_its_bytes_are_always_the_same(self, tmp_path: Path) -> None:
        folder = mixture(tmp_path / "m")
        one, two = (Served(tmp_path / name).choose(folder, issue(1, 9)) for name in ("a", "b"))
        assert one is not None
        assert two is not None
        assert one.name == two.name == f"{artefact_hash(folder)}-0-4-0"
        assert artefact_hash(one) == artefact_hash(two)
        made = (one / "adapter_model.safetensors").stat()
        assert Served(tmp_path / "a").choose(folder, issue(1, 10)) == one
        assert (one / "adapter_model.safetensors").stat().st_ino == made.st_ino

    def test_a_damaged_mixture_is_made_again(self, tmp_path: Path) -> None:
        folder = mixture(tmp_path / "m")
        path = Served().choose(folder, issue(0, 0))
        assert path is not None
        assert path.parent == tmp_path / MIXTURES
        right = artefact_hash(path)
        for damage in (lambda: (path / "adapter_config.json").unlink(), lambda: _scaled(path)):
            damage()
            assert Served().choose(folder, issue(0, 0)) == path
            assert artefact_hash(path) == right

    def test_several_at_once_make_the_same(self, tmp_path: Path) -> None:
        folder = mixture(tmp_path / "m", routing(2))
        asked = [query for query, _ in issues(2)] * 2
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda query: Served().choose(folder, query), asked))
        assert found == [Served().choose(folder, query) for query in asked]
        assert not [path for path in (tmp_path / MIXTURES).iterdir() if path.name.startswith(".")]

    def test_another_embedder_than_the_one_it_was_trained_with_is_refused(self, tmp_path: Path) -> None:
        folder = mixture(tmp_path / "m", routing(embedder="hashing-0-384"))
        with pytest.raises(AdapterError, match="embedded by hashing-0-384, not by hashing-1-384"):
            Served().choose(folder, issue(0, 0))


@pytest.mark.parametrize("engine", ["torch", pytest.param("mlx", marks=pytest.mark.slow)])
def test_engines_serve_mixtures(engine: str, tmp_path: Path) -> None:
    model, folder = _engine(engine), mixture(tmp_path / "m")
    alone, some = (materialise(folder, RANKS, q, tmp_path / f"made-{q[0]}") for q in ((4, 0, 0), (2, 1, 1)))
    write_peft(experts()[0], tmp_path / "expert", WEIGHTS.name)
    said = [tuple(answers(model, place)) for place in (None, tmp_path / "expert", alone, some)]
    assert said[1] == said[2]
    assert len(set(said)) == 3


def _engine(name: str) -> Model:
    if name == "torch":
        from agent.models.torch_model import TorchModel

        return TorchModel(WEIGHTS, "cpu", 400)
    pytest.importorskip("mlx_lm", reason="MLX is not installed")
    from agent.models.mlx_model import MlxModel

    return MlxModel(WEIGHTS, context=400)


def _scaled(folder: Path) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({name: t * 2 for name, t in tensors.items()}, folder / "adapter_model.safetensors")


def _config(**changed: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "router.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changed))

    return spoil


def _text(text: str) -> Callable[[Path], None]:
    return lambda folder: void((folder / "router.json").write_text(text))


def _tensors(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Path], None]:
    return lambda folder: save_file(change(load_file(folder / "router.safetensors")), folder / "router.safetensors")


def _linked(folder: Path) -> None:
    (folder / "router.json").rename(folder.parent / "elsewhere.json")
    (folder / "router.json").symlink_to(folder.parent / "elsewhere.json")


def _huge(folder: Path) -> None:
    with (folder / "router.safetensors").open("r+b") as file:
        file.truncate(1 << 34)


def void(_: object) -> None:
    return None


HOSTILE = {
    "no weights": lambda folder: (folder / "router.safetensors").unlink(),
    "no settings": lambda folder: (folder / "router.json").unlink(),
    "deep": _text("[" * 100_000),
    "no object": _text("[]"),
    "not text": lambda folder: void((folder / "router.json").write_bytes(b"\xff\xfe\x00")),
    "large settings": _text(" " * (2 << 20) + "{}"),
    "a path for a category": _config(categories=["../../x", "b", "c"]),
    "one category twice": _config(categories=["a", "a", "c"]),
    "no floor": _text('{"floor": NaN}'),
    "other parts": _config(parts=100),
    "an unknown setting": _config(run="rm"),
    "no dimensions": _config(dimensions=0),
    "endless": _config(hidden=10**9),
    "ranks of another adapter": _config(ranks=[3, 3, 3]),
    "a negative rank": _config(ranks=[9, -1, -1]),
    "not a number": _tensors(lambda t: t | {"out.bias": t["out.bias"] * np.nan}),
    "another shape": _tensors(lambda t: t | {"out.bias": np.zeros(9, np.float32)}),
    "another type": _tensors(lambda t: t | {"out.bias": t["out.bias"].astype(np.float64)}),
    "one tensor too many": _tensors(lambda t: t | {"more": t["out.bias"]}),
    "huge": _huge,
    "linked": _linked,
}


@pytest.mark.parametrize("how", HOSTILE)
def test_hostile_routers_are_refused_with_one_error(how: str, tmp_path: Path) -> None:
    folder = mixture(tmp_path / "m")
    HOSTILE[how](folder)
    with pytest.raises(AdapterError) as refused:
        Served().choose(folder, issue(0, 0))
    assert len(str(refused.value)) < 1000
    assert not (tmp_path / MIXTURES).exists()
