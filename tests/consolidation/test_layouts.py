"""One adapter in three layouts: the same bits in each, whole or not at all."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from agent.adapters import Factors, Lora, read_peft
from agent.errors import ModelError
from agent.pocket import WEIGHTS
from consolidation.errors import AdapterError
from consolidation.layouts.gguf import read_gguf_adapter, write_gguf_adapter
from consolidation.layouts.gguf_base import write_gguf_base
from consolidation.layouts.gguf_merge import merge_gguf
from consolidation.layouts.mlx import read_mlx, write_mlx
from consolidation.layouts.peft import write_peft
from tests.consolidation.adapting import ATTENTION, MLP, converted, random_lora, tiny_qwen2
from tests.daemon.disks import mounted

AWKWARD = 22.4 / 3
"""As alpha of rank 7: alpha / 7 * 7 is another number, and so is alpha as a float32."""
WRITERS: dict[str, Callable[[Lora, Path], None]] = {
    "peft": lambda lora, path: write_peft(lora, path, "base"),
    "mlx": write_mlx,
    "gguf": write_gguf_adapter,
}


def files(path: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in path.iterdir()}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def base_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base") / "base.gguf"
    write_gguf_base(WEIGHTS, path)
    return path


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", ["mlx", "gguf"])
def test_there_and_back_gives_the_same_bytes(layout: str, dtype: torch.dtype, tmp_path: Path) -> None:
    assert AWKWARD / 7 * 7 != AWKWARD != float(np.float32(AWKWARD))
    write_peft(random_lora(rank=7, alpha=AWKWARD, dtype=dtype), tmp_path / "one", "base")
    lora = read_peft(tmp_path / "one")
    assert lora.layers["model.layers.0.mlp.up_proj"].a.dtype == dtype
    WRITERS[layout](lora, tmp_path / "other")
    back = (read_mlx if layout == "mlx" else read_gguf_adapter)(tmp_path / "other")
    assert len(back.layers) == 21
    assert back.alpha == AWKWARD
    write_peft(back, tmp_path / "two", "base")
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_mlx_lm_loads_exactly_these_layers(tmp_path: Path) -> None:
    import mlx.core as mx
    from mlx_lm.tuner.lora import LoRALinear
    from mlx_lm.tuner.utils import load_adapters
    from mlx_lm.utils import load_model

    base = tiny_qwen2(tmp_path / "base", tied=True)
    lora = random_lora(base, kinds=("self_attn.v_proj", "mlp.down_proj"), layers=(1,), alpha=3.0)
    write_mlx(lora, tmp_path / "mlx")
    model = load_adapters(load_model(base)[0], str(tmp_path / "mlx"))
    found = {path: m for path, m in model.named_modules() if isinstance(m, LoRALinear)}
    assert set(found) == set(lora.layers)
    for path, layer in found.items():
        assert layer.scale == 0.75
        assert mx.array_equal(layer.lora_a, mx.array(lora.layers[path].a.numpy()).T)
        assert mx.array_equal(layer.lora_b, mx.array(lora.layers[path].b.numpy()).T)


def test_peft_loads_exactly_these_layers(tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = tiny_qwen2(tmp_path / "base", tied=False)
    lora = random_lora(base, kinds=("self_attn.v_proj", "mlp.down_proj"), layers=(1,), alpha=3.0)
    write_peft(lora, tmp_path / "peft", "base")
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "peft")
    found = {p.removeprefix("base_model.model."): m for p, m in model.named_modules() if hasattr(m, "get_delta_weight")}
    assert set(found) == set(lora.layers)
    for path, layer in found.items():
        assert torch.allclose(layer.get_delta_weight("default"), lora.delta(path), atol=1e-6)


def test_gguf_holds_what_llama_cpp_asks_for(tmp_path: Path) -> None:
    lora = random_lora(kinds=("self_attn.o_proj", "mlp.down_proj"), layers=(0, 4), rank=2, alpha=3.0)
    write_gguf_adapter(lora, tmp_path / "a.gguf")
    reader = gguf.GGUFReader(tmp_path / "a.gguf")
    said = {key: reader.fields[key].contents() for key in reader.fields if key.startswith(("general", "adapter"))}
    assert said == {
        "general.architecture": "qwen2",
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": 3.0,
    }
    shapes = {t.name: (t.tensor_type.name, list(map(int, t.shape))) for t in reader.tensors}
    assert len(shapes) == 8
    assert shapes["blk.4.attn_output.weight.lora_a"] == ("F32", [256, 2])
    assert shapes["blk.4.ffn_down.weight.lora_a"] == ("F32", [704, 2])
    assert shapes["blk.4.ffn_down.weight.lora_b"] == ("F32", [2, 256])


def bad(**change: Any) -> Lora:
    good = random_lora(kinds=ATTENTION[:1], layers=(0,))
    [(path, f)] = good.layers.items()
    a, b = change.get("a", f.a), change.get("b", f.b)
    return Lora(change.get("rank", 4), change.get("alpha", 6.0), {change.get("path", path): Factors(a, b)})


@pytest.mark.parametrize("layout", WRITERS)
@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"b": torch.zeros(256, 4)}, "changes nothing"),
        ({"b": torch.full((256, 4), float("nan"))}, "not finite"),
        ({"b": torch.ones(256, 4, dtype=torch.int32)}, "int32"),
        ({"b": torch.ones(256, 4, dtype=torch.float64)}, "float64"),
        ({"b": torch.ones(256, 3)}, "shapes"),
        ({"rank": 5}, "shapes"),
        ({"path": "../../etc/passwd"}, "no name of a layer"),
    ],
)
def test_what_can_do_no_good_is_not_written(layout: str, change: dict[str, Any], why: str, tmp_path: Path) -> None:
    with pytest.raises((AdapterError, ModelError), match=why):
        WRITERS[layout](bad(**change), tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("path", "alpha"), [("model.embed_tokens", 1.0), ("lm_head", 1e39), ("lm_head", 1e-50)])
def test_what_gguf_cannot_hold_is_refused(path: str, alpha: float, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"no counterpart in GGUF|as a float32"):
        write_gguf_adapter(bad(path=path, alpha=alpha), tmp_path / "a.gguf")
    with pytest.raises(AdapterError, match="'llama' cannot be converted"):
        write_gguf_adapter(bad(), tmp_path / "a.gguf", "llama")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("layout", WRITERS)
def test_a_full_disk_leaves_nothing_half(layout: str, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=128k") as disk:
        with pytest.raises(AdapterError, match=r"cannot be written .*nothing was left"):
            WRITERS[layout](random_lora(), disk / "out")
        assert not list(disk.iterdir())


def test_a_full_disk_leaves_no_half_model(tmp_path: Path, base_gguf: Path) -> None:
    with mounted(tmp_path / "disk", "size=8m") as disk:
        with pytest.raises(AdapterError, match="nothing was left"):
            write_gguf_base(WEIGHTS, disk / "base.gguf")
        with pytest.raises(AdapterError, match="No space left"):
            merge_gguf(base_gguf, random_lora(), disk / "merged.gguf")
        assert not list(disk.iterdir())


@pytest.mark.parametrize("layout", WRITERS)
def test_nothing_is_overwritten(layout: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    WRITERS["peft"](random_lora(), tmp_path / "out")  # an empty folder may be filled
    before = files(tmp_path / "out")
    with pytest.raises(AdapterError, match="already there"):
        WRITERS[layout](random_lora(seed=1), tmp_path / "out")
    assert files(tmp_path / "out") == before


def test_a_base_keeps_its_weights_and_its_tokens(base_gguf: Path) -> None:
    reader = gguf.GGUFReader(base_gguf)
    tensors = {t.name: t for t in reader.tensors}
    assert "output.weight" not in tensors
    assert {"blk.0.attn_q.bias", "blk.4.attn_v.bias", "output_norm.weight", "token_embd.weight"} <= set(tensors)
    tokenizer = json.loads((WEIGHTS / "tokenizer.json").read_text())
    said = {key: reader.fields[key].contents() for key in reader.fields if key.startswith(("tokenizer", "qwen2"))}
    assert [said["tokenizer.ggml.tokens"][i] for i in (0, 1)] == ["<|pad|>", "<|end|>"]
    assert said["tokenizer.ggml.token_type"][:7] == [3] * 6 + [1]
    assert said["tokenizer.ggml.merges"][0] == " ".join(tokenizer["model"]["merges"][0])
    assert (said["tokenizer.ggml.eos_token_id"], said["tokenizer.ggml.add_bos_token"]) == (1, False)
    assert (said["qwen2.rope.freq_base"], said["qwen2.attention.head_count_kv"]) == (10_000.0, 2)


def test_tied_embeddings_are_written_once(tmp_path: Path) -> None:
    base = tiny_qwen2(tmp_path / "base", tied=True)
    weights = load_file(base / "model.safetensors")
    save_file(weights | {"lm_head.weight": weights["model.embed_tokens.weight"].clone()}, base / "model.safetensors")
    write_gguf_base(base, tmp_path / "b.gguf")  # some publishers write the same matrix twice
    assert "output.weight" not in {t.name for t in gguf.GGUFReader(tmp_path / "b.gguf").tensors}


def test_f16_halves_the_matrices_only(tmp_path: Path) -> None:
    base = tiny_qwen2(tmp_path / "base", tied=False)
    write_gguf_base(base, tmp_path / "b.gguf", "f16")
    tensors = {t.name: t for t in gguf.GGUFReader(tmp_path / "b.gguf").tensors}
    assert {t.tensor_type.name for t in tensors.values() if len(t.shape) == 1} == {"F32"}
    assert {t.tensor_type.name for t in tensors.values() if len(t.shape) == 2} == {"F16"}
    assert "output.weight" in tensors


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"rope_theta": 1e6}, "RoPE"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "RoPE of type .*yarn"),
        ({"model_type": "llama"}, "only a plain Qwen2"),
        ({"vocab_size": 100}, "outside of the vocabulary"),
        ({"num_hidden_layers": 2}, "is no tensor of Qwen2"),
    ],
)
def test_a_base_that_would_answer_differently_is_refused(change: dict[str, Any], why: str, tmp_path: Path) -> None:
    base = tiny_qwen2(tmp_path / "base", tied=True)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(AdapterError, match=why):
        write_gguf_base(base, tmp_path / "b.gguf")
    assert not (tmp_path / "b.gguf").exists()


def test_rope_theta_is_found_in_both_places(tmp_path: Path) -> None:
    base = tiny_qwen2(tmp_path / "base", tied=True)
    config = json.loads((base / "config.json").read_text())
    assert config["rope_parameters"]["rope_theta"] == 10_000.0
    del config["rope_theta"]
    (base / "config.json").write_text(json.dumps(config))
    write_gguf_base(base, tmp_path / "b.gguf")
    assert gguf.GGUFReader(tmp_path / "b.gguf").fields["qwen2.rope.freq_base"].contents() == 10_000.0


Q = gguf.GGMLQuantizationType


@pytest.mark.parametrize(
    ("kind", "error"), [(Q.F32, 1e-6), (Q.F16, 1e-3), (Q.BF16, 8e-3), (Q.Q8_0, 1e-2), (Q.Q5_1, 5e-2), (Q.Q4_0, 2e-1)]
)
def test_a_merge_changes_its_targets_and_nothing_else(kind: Q, error: float, base_gguf: Path, tmp_path: Path) -> None:
    base = converted(base_gguf, tmp_path / "base.gguf", kind)
    lora = random_lora(kinds=("self_attn.q_proj", "mlp.up_proj"), layers=(1, 3))
    merge_gguf(base, lora, tmp_path / "merged.gguf")
    before, after = gguf.GGUFReader(base), gguf.GGUFReader(tmp_path / "merged.gguf")
    assert base.read_bytes()[: before.data_offset] == (tmp_path / "merged.gguf").read_bytes()[: after.data_offset]
    changed = set()
    for one, two in zip(before.tensors, after.tensors, strict=True):
        assert (one.name, one.tensor_type) == (two.name, two.tensor_type)
        if not np.array_equal(one.data, two.data):
            changed.add(one.name)
    assert changed == {f"blk.{n}.{name}.weight" for n in (1, 3) for name in ("attn_q", "ffn_up")}
    [was] = [t for t in before.tensors if t.name == "blk.1.attn_q.weight"]
    [now] = [t for t in after.tensors if t.name == "blk.1.attn_q.weight"]
    wanted = gguf.quants.dequantize(was.data, kind) + lora.delta("model.layers.1.self_attn.q_proj").numpy()
    assert np.abs(gguf.quants.dequantize(now.data, kind) - wanted).max() <= error * np.abs(wanted).max()


def test_a_type_that_cannot_be_written_is_named(base_gguf: Path, tmp_path: Path) -> None:
    base = converted(base_gguf, tmp_path / "base.gguf", Q.Q4_K)
    with pytest.raises(AdapterError, match=r"blk\.0\.attn_q\.weight is of type Q4_K"):
        merge_gguf(base, random_lora(), tmp_path / "merged.gguf")
    merge_gguf(base, random_lora(kinds=MLP), tmp_path / "merged.gguf")  # what it does not touch may be of any type


def test_a_merge_into_another_base_is_refused(base_gguf: Path, tmp_path: Path) -> None:
    small = tiny_qwen2(tmp_path / "small", tied=True)
    with pytest.raises(AdapterError, match=r"no layer .* of the adapter's shape"):
        merge_gguf(base_gguf, random_lora(small), tmp_path / "merged.gguf")
    with pytest.raises(AdapterError, match="no layer"):
        merge_gguf(base_gguf, random_lora(layers=(7,)), tmp_path / "merged.gguf")


def test_a_merge_that_rounding_swallows_is_refused(base_gguf: Path, tmp_path: Path) -> None:
    base = converted(base_gguf, tmp_path / "base.gguf", Q.Q4_0)
    with pytest.raises(AdapterError, match="changes nothing"):
        merge_gguf(base, random_lora(kinds=ATTENTION[:1], alpha=1e-9), tmp_path / "merged.gguf")
    assert not (tmp_path / "merged.gguf").exists()
