"""Fused and quantised models: made of this adapter and this base, and provably still what was made."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from agent.adapters import Lora
from agent.models.weights import folder_hash
from agent.pocket import WEIGHTS
from agent.pocket.model import PocketModel
from consolidation.adapters import Adapter, AdapterStore
from consolidation.errors import AdapterError
from consolidation.fuse import PROVENANCE, fuse, quantise_mlx, verify
from tests.consolidation.adapting import ATTENTION, random_lora, stored, tiny_qwen2
from tests.daemon.disks import mounted


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    return AdapterStore(tmp_path / "store")


@pytest.fixture
def adapter(store: AdapterStore) -> Adapter:
    return stored(store, random_lora(), WEIGHTS)


@pytest.fixture
def fused(adapter: Adapter, tmp_path: Path) -> Path:
    fuse(WEIGHTS, adapter, tmp_path / "fused")
    return tmp_path / "fused"


def test_only_the_targets_change_shard_by_shard(store: AdapterStore, tmp_path: Path) -> None:
    base = tiny_qwen2(tmp_path / "base", tied=False, dtype=torch.bfloat16, max_shard_size="200KB")
    shards = sorted(base.glob("*.safetensors"))
    assert len(shards) > 2
    lora = random_lora(base, layers=(0, 2))
    fuse(base, stored(store, lora, base), tmp_path / "fused")
    changed = set()
    for shard in shards:
        before, after = load_file(shard), load_file(tmp_path / "fused" / shard.name)
        assert before.keys() == after.keys()
        for name, weight in before.items():
            assert after[name].dtype == torch.bfloat16
            if not after[name].equal(weight):
                changed.add(name.removesuffix(".weight"))
                assert after[name].equal((weight.float() + lora.delta(name.removesuffix(".weight"))).bfloat16())
    assert changed == set(lora.layers)
    for name in ("config.json", "tokenizer.json", "model.safetensors.index.json"):
        assert (tmp_path / "fused" / name).read_bytes() == (base / name).read_bytes()


def test_a_fused_model_says_what_it_was_made_of(fused: Path, adapter: Adapter) -> None:
    signed = verify(fused)
    assert (signed.made, signed.base, signed.adapter) == ("fused", folder_hash(WEIGHTS), adapter.id)
    assert set(signed.files) == {"README.md", "config.json", "model.safetensors", "tokenizer.json"}
    PocketModel(fused)  # it is a model like any other
    assert folder_hash(fused) != folder_hash(WEIGHTS)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda f: (f / "config.json").write_text("{}"),
        lambda f: (f / "tokenizer.json").unlink(),
        lambda f: shutil.copyfile(f / "model.safetensors", f / "more.safetensors"),
        lambda f: (f / PROVENANCE).write_text((f / PROVENANCE).read_text().replace('"output": "', '"output": "0')),
    ],
    ids=["changed", "removed", "added", "signature"],
)
def test_a_changed_model_is_refused(fused: Path, spoil: Callable[[Path], object]) -> None:
    spoil(fused)
    with pytest.raises(AdapterError, match=r"is not what was made \(.* was changed\); fuse again"):
        verify(fused)
    with pytest.raises(AdapterError, match="is not what was made"):
        quantise_mlx(fused, fused.parent / "q")


def test_one_flipped_bit_is_found_whatever_the_clock_says(fused: Path) -> None:
    path = fused / "model.safetensors"
    found, data = path.stat(), bytearray(path.read_bytes())
    folder_hash(fused)  # fills the cache of hashes
    data[-100] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    with pytest.raises(AdapterError, match=r"model\.safetensors was changed"):
        verify(fused)


def test_no_other_checkpoint_can_be_fused(store: AdapterStore, adapter: Adapter, tmp_path: Path) -> None:
    other = stored(store, random_lora(seed=9), WEIGHTS)
    weights = "adapter_model.safetensors"
    shutil.copyfile(other.folder / weights, adapter.folder / weights)  # as a concurrent job did
    with pytest.raises(AdapterError, match="was changed"):
        fuse(WEIGHTS, adapter, tmp_path / "fused")
    assert not (tmp_path / "fused").exists()


def test_another_base_is_refused(store: AdapterStore, adapter: Adapter, tmp_path: Path) -> None:
    base = tiny_qwen2(tmp_path / "base", tied=True)
    with pytest.raises(AdapterError, match=r"was trained on base model \w+, and .* is \w+"):
        fuse(base, adapter, tmp_path / "fused")
    with pytest.raises(AdapterError, match=r"has no layer .* of the adapter's shape"):
        fuse(base, stored(store, random_lora(), base), tmp_path / "fused")  # the hash is right, the shapes are not
    assert not (tmp_path / "fused").exists()


@pytest.mark.parametrize(("factor", "why"), [(1e-6, "changes nothing"), (1e38, "not finite")])
def test_what_the_precision_of_the_base_cannot_hold_is_refused(
    factor: float, why: str, store: AdapterStore, tmp_path: Path
) -> None:
    lora = random_lora(kinds=ATTENTION[:1], layers=(0,))
    for f in lora.layers.values():
        f.b.mul_(factor)
    with pytest.raises(AdapterError, match=why):
        fuse(WEIGHTS, stored(store, Lora(lora.rank, 1e3 if factor > 1 else 1e-3, lora.layers), WEIGHTS), tmp_path / "fused")
    assert not (tmp_path / "fused").exists()


def test_a_full_disk_leaves_nothing_half(adapter: Adapter, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=3m") as disk:
        with pytest.raises(AdapterError, match="nothing was left there"):
            fuse(WEIGHTS, adapter, disk / "fused")
        with pytest.raises(AdapterError, match=r"nothing was left|cannot quantise"):
            quantise_mlx(WEIGHTS, disk / "quantised", 8)
        assert not list(disk.iterdir())


@pytest.mark.parametrize("bits", [4, 5, 6, 8])
def test_mlx_quantises_and_loads_what_was_fused(bits: int, fused: Path, adapter: Adapter, tmp_path: Path) -> None:
    import mlx.core as mx
    from mlx_lm.utils import load_model

    signed = quantise_mlx(fused, tmp_path / "q", bits)
    assert signed == verify(tmp_path / "q")
    assert (signed.made, signed.adapter, signed.bits) == ("quantised", adapter.id, bits)
    model, config = load_model(tmp_path / "q")
    assert config["quantization"] == {"group_size": 64, "bits": bits, "mode": "affine"}
    ids = mx.array([[3, 469, 226, 396, 319]])
    whole, coarse = load_model(fused)[0](ids), model(ids)
    assert 0 < mx.abs(whole - coarse).mean() < {4: 0.6, 5: 0.3, 6: 0.15, 8: 0.1}[bits]


def test_rope_theta_survives_quantising(store: AdapterStore, tmp_path: Path) -> None:
    from mlx_lm.utils import load_model

    base = tiny_qwen2(tmp_path / "base", tied=True)
    config = json.loads((base / "config.json").read_text())
    del config["rope_theta"]  # as transformers 5 writes it
    (base / "config.json").write_text(json.dumps(config))
    quantise_mlx(base, tmp_path / "q", 8)
    assert load_model(tmp_path / "q")[0].args.rope_theta == 10_000.0


def test_three_bits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="4, 5, 6, 8 bits"):
        quantise_mlx(WEIGHTS, tmp_path / "q", 3)
