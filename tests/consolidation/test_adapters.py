"""The adapter store and what is live: content-addressed, checked, reversible."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from consolidation.adapters import AdapterStore, Manifest
from consolidation.errors import AdapterError
from consolidation.skill import Publisher, skill_id

MANIFEST = Manifest(
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
    base="b",
    strategy="s",
    seed=0,
    data="d",
    scope=("bank",),
    config_hash="c",
    loss_first=2.0,
    loss_last=1.0,
)


def trained(folder: Path, weights: bytes) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(weights)
    (folder / "README.md").write_text("left out")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    return AdapterStore(tmp_path / "adapters")


def test_the_same_bytes_are_the_same_adapter(store: AdapterStore, tmp_path: Path) -> None:
    one = store.admit(trained(tmp_path / "a", b"w"), MANIFEST)
    two = store.admit(trained(tmp_path / "b", b"w"), MANIFEST)
    other = store.admit(trained(tmp_path / "c", b"v"), MANIFEST)
    assert one == two
    assert other.id != one.id
    assert {a.id for a in store.list()} == {one.id, other.id}
    assert not (one.folder / "README.md").exists()
    assert not [p for p in store.root.iterdir() if p.name.startswith(".")]


def test_a_changed_adapter_is_refused(store: AdapterStore, tmp_path: Path) -> None:
    adapter = store.admit(trained(tmp_path / "a", b"w"), MANIFEST)
    (adapter.folder / "adapter_model.safetensors").write_bytes(b"x")
    with pytest.raises(AdapterError, match="was changed"):
        store.get(adapter.id)


def test_missing_adapters_and_manifests_are_named(store: AdapterStore, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="no adapter 'nope'"):
        store.get("nope")
    adapter = store.admit(trained(tmp_path / "a", b"w"), MANIFEST)
    (adapter.folder / "manifest.json").write_text("{")
    with pytest.raises(AdapterError, match=r"manifest\.json"):
        store.get(adapter.id)


def test_going_back_is_one_step_and_can_be_undone(store: AdapterStore, tmp_path: Path) -> None:
    publisher = Publisher(tmp_path / "live", store)
    one = store.admit(trained(tmp_path / "a", b"w"), MANIFEST).id
    two = store.admit(trained(tmp_path / "b", b"v"), MANIFEST).id
    assert publisher.live() == {}
    publisher.make_live({"bank": one})
    publisher.make_live({"bank": two})
    assert publisher.rollback() == {"bank": one} == publisher.live()
    assert publisher.rollback() == {"bank": two} == publisher.live()
    assert publisher.routes() == {"bank": store.get(two).folder}


def test_nothing_damaged_goes_live(store: AdapterStore, tmp_path: Path) -> None:
    publisher = Publisher(tmp_path / "live", store)
    one = store.admit(trained(tmp_path / "a", b"w"), MANIFEST)
    (one.folder / "adapter_config.json").write_text("{ }")
    with pytest.raises(AdapterError, match="was changed"):
        publisher.make_live({"bank": one.id})
    assert publisher.live() == {}


def test_a_damaged_routing_table_says_what_to_do(store: AdapterStore, tmp_path: Path) -> None:
    publisher = Publisher(tmp_path / "live", store)
    publisher.make_live({})
    (tmp_path / "live" / "live.json").write_text("[1")
    with pytest.raises(AdapterError, match="delete it to serve the bare base"):
        publisher.live()


def test_the_id_of_a_skill_is_its_content() -> None:
    assert skill_id({"a": "1", "b": "2"}) == skill_id({"b": "2", "a": "1"}) != skill_id({"a": "2", "b": "1"})
