"""The adapter store and what is live: content-addressed, checked, reversible."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from consolidation.adapters import AdapterStore, Manifest
from consolidation.errors import AdapterError
from consolidation.skill import Publisher, skill_id
from tests.daemon.disks import mounted

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


def test_a_manifest_of_before_still_loads(store: AdapterStore, tmp_path: Path) -> None:
    adapter = store.admit(trained(tmp_path / "a", b"w"), MANIFEST)
    path = adapter.folder / "manifest.json"
    old = {k: v for k, v in json.loads(path.read_text()).items() if k not in ("rank", "alpha", "targets", "parents")}
    path.write_text(json.dumps(old))
    assert store.get(adapter.id) == adapter
    assert (adapter.manifest.rank, adapter.manifest.targets) == (0, ())


def test_one_damaged_adapter_hides_no_other(store: AdapterStore, tmp_path: Path) -> None:
    good = store.admit(trained(tmp_path / "a", b"w"), MANIFEST)
    changed = store.admit(trained(tmp_path / "b", b"v"), MANIFEST)
    (changed.folder / "adapter_model.safetensors").write_bytes(b"x")
    nameless = store.admit(trained(tmp_path / "c", b"u"), MANIFEST)
    (nameless.folder / "manifest.json").write_text('{"created_at": "2026-01-01T00:00:00"}')
    judged = store.admit(trained(tmp_path / "d", b"t"), MANIFEST)
    (judged.folder / "state.json").write_text('{"state": "live"}')
    (store.root / "stray").mkdir()
    found = {adapter.id: adapter for adapter in store.list()}
    assert found[good.id] == good
    assert found[changed.id].manifest == MANIFEST
    assert found[nameless.id].manifest.strategy == "unknown"
    why = {name: a.damaged for name, a in found.items() if a.damaged}
    assert set(why) == {changed.id, nameless.id, judged.id, "stray"}
    assert "was changed" in why[changed.id]
    assert "not a manifest" in why[nameless.id]
    assert "not a judgement" in why[judged.id]
    for name in why:
        with pytest.raises(AdapterError):
            store.get(name)


def test_what_the_gate_found_stands_beside_the_content(store: AdapterStore, tmp_path: Path) -> None:
    adapter = store.admit(trained(tmp_path / "a", b"w"), MANIFEST)
    assert adapter.standing.state == "candidate"
    store.judge(adapter.id, "rejected", "too weak", {"format.drop": 0.2})
    assert store.admit(tmp_path / "a", MANIFEST).standing.state == "rejected"  # training it again forgets nothing
    [found] = store.list()
    assert (found.id, found.manifest) == (adapter.id, adapter.manifest)
    assert (found.standing.why, found.standing.scores) == ("too weak", {"format.drop": 0.2})
    assert store.judge(adapter.id, "passed").standing.state == "passed"
    with pytest.raises(AdapterError, match="no adapter"):
        store.judge("nope", "passed")


def test_another_base_is_refused_in_one_sentence(store: AdapterStore, tmp_path: Path) -> None:
    adapter = store.admit(trained(tmp_path / "a", b"w"), MANIFEST)
    assert store.get(adapter.id, base="b") == adapter
    with pytest.raises(AdapterError, match="was trained on base model b, not on other; serve its own base"):
        store.get(adapter.id, base="other")


@pytest.mark.parametrize("name", ["", ".", "..", "../adapters", "a/b", "/etc"])
def test_an_id_is_no_path(store: AdapterStore, tmp_path: Path, name: str) -> None:
    adapter = store.admit(trained(tmp_path / "a", b"w"), MANIFEST)
    (adapter.folder / "b").mkdir()
    with pytest.raises(AdapterError, match="no adapter"):
        store.get(name)


def test_a_full_disk_admits_nothing_half(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=64k") as disk:
        with pytest.raises(AdapterError, match="nothing was left"):
            AdapterStore(disk).admit(trained(tmp_path / "a", b"w" * 100_000), MANIFEST)
        assert not list(disk.iterdir())
