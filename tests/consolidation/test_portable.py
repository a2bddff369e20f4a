"""Mixtures on their way out: everything that is served goes along, or it is said what does not."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.adapters import read_peft
from agent.models.weights import folder_hash
from agent.pocket import WEIGHTS
from consolidation.adapters import Adapter, AdapterStore, Manifest, artefact_hash
from consolidation.errors import AdapterError
from consolidation.layouts import check_same
from consolidation.layouts.mlx import read_mlx
from consolidation.mixture.serving import Served
from consolidation.portable import LAYOUTS, caution, export, import_adapter
from tests.agent import loras
from tests.consolidation import mixing
from tests.consolidation.adapting import stored


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    return AdapterStore(tmp_path / "adapters")


@pytest.fixture
def mixture(store: AdapterStore, tmp_path: Path) -> Adapter:
    made = datetime(2026, 1, 1, tzinfo=UTC)
    known = {
        "base": folder_hash(WEIGHTS),
        "strategy": "mixture",
        "seed": 0,
        "data": "d",
        "scope": ("bank",),
        "config_hash": "c",
    }
    manifest = Manifest.model_validate({"created_at": made, **known, "loss_first": 2.0, "loss_last": 1.0})
    return store.admit(mixing.mixture(tmp_path / "mixture"), manifest)


def test_the_router_travels_with_a_peft_export(mixture: Adapter, tmp_path: Path) -> None:
    out = tmp_path / "out"
    names = {path.name for path in export(mixture, "peft", out)}
    assert {"router.json", "router.safetensors", "adapter_model.safetensors", "adapter_config.json"} < names
    assert artefact_hash(out) == mixture.id
    switch = Served(tmp_path / "cache")
    for query, _ in mixing.issues(2):
        assert (switch.choose(out, query) is None) == (switch.choose(mixture.folder, query) is None)


def test_a_router_that_was_changed_is_not_exported(mixture: Adapter, tmp_path: Path) -> None:
    path = mixture.folder / "router.json"
    path.write_text(path.read_text().replace('"top_k":1', '"top_k":2').replace('"top_k": 1', '"top_k": 2'))
    with pytest.raises(AdapterError, match="was changed"):
        export(mixture, "peft", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_where_nothing_routes_it_is_the_mean_of_the_experts_and_is_said_to_be(mixture: Adapter, tmp_path: Path) -> None:
    export(mixture, "mlx", tmp_path / "out")
    check_same(read_peft(mixture.folder), read_mlx(tmp_path / "out"), "the mean")
    assert "the mean of a mixture's experts" in caution(mixture, "mlx")
    assert "the mean of a mixture's experts" in caution(mixture, "gguf")
    assert "only this program asks it" in caution(mixture, "peft")


def test_it_comes_back_as_the_plain_adapter_that_others_read(mixture: Adapter, store: AdapterStore, tmp_path: Path) -> None:
    export(mixture, "peft", tmp_path / "out")
    again = import_adapter(store, tmp_path / "out", folder_hash(WEIGHTS))
    assert caution(again, "gguf") == ""


@pytest.mark.parametrize("layout", LAYOUTS)
def test_of_a_plain_adapter_there_is_nothing_to_say(store: AdapterStore, tmp_path: Path, layout: str) -> None:
    adapter = stored(store, read_peft(loras.good(tmp_path / "lora", 1)), WEIGHTS)
    assert caution(adapter, layout) == ""
