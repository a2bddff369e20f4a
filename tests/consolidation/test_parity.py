"""The same adapter answers alike on torch, MLX and llama.cpp: logits within 1e-3 in float32, greedy tokens equal.

For tied and untied embeddings with q/k/v biases, and for the pocket model; beside the base and fused into it.
"""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from agent.adapters import Lora
from agent.model import Message
from agent.pocket import WEIGHTS
from agent.pocket.tokenizer import PocketTokenizer
from consolidation.adapters import AdapterStore
from consolidation.errors import AdapterError
from consolidation.fuse import fuse
from consolidation.layouts.gguf import write_gguf_adapter
from consolidation.layouts.gguf_base import write_gguf_base
from consolidation.layouts.gguf_merge import merge_gguf
from consolidation.layouts.mlx import write_mlx
from tests.consolidation.adapting import ATTENTION, MLP, random_lora, stored, tiny_qwen2

MODELS = ("tied", "untied", "pocket")
TOLERANCE = 1e-3
GREEDY = 12
Answer = tuple[np.ndarray[Any, Any], list[int]]
"""Logits (tokens, vocabulary) of a prompt, and the greedy continuation."""


@dataclass(frozen=True)
class Case:
    base: Path
    prompt: list[int]
    adapters: tuple[tuple[Lora, Path, Path], ...]
    """Each as itself, as its folder in the store, and fused."""
    said: tuple[Answer, ...]
    """What torch says: base, then adapted, then fused for each adapter."""


@pytest.fixture(scope="module", params=MODELS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    torch.set_num_threads(1)
    tmp = tmp_path_factory.mktemp(request.param)
    if request.param == "pocket":
        base = in_float32(WEIGHTS, tmp / "pocket")
        prompt = PocketTokenizer(base / "tokenizer.json").prompt([Message("user", "The sum of prices is wrong.")])
    else:
        base = tiny_qwen2(tmp / request.param, tied=request.param == "tied")
        prompt = torch.randint(10, 1290, (20,), generator=torch.Generator().manual_seed(3)).tolist()
    loras = (
        random_lora(base, ATTENTION, rank=2, alpha=3.0, seed=1),
        random_lora(base, ATTENTION + MLP, rank=8, alpha=12.0, seed=2),
        random_lora(base, MLP, layers=(0, 2), rank=5, alpha=7.7, seed=3),
    )
    store = AdapterStore(tmp / "store")
    adapters = []
    for number, lora in enumerate(loras):
        adapter = stored(store, lora, base)
        fuse(base, adapter, tmp / f"fused-{number}")
        adapters.append((lora, adapter.folder, tmp / f"fused-{number}"))
    said = [by_torch(base, None, prompt)]
    for _, folder, fused in adapters:
        said += [by_torch(base, folder, prompt), by_torch(fused, None, prompt)]
    return Case(base, prompt, tuple(adapters), tuple(said))


def in_float32(model: Path, folder: Path) -> Path:
    """The pocket model's weights are bfloat16, and a fused model keeps the precision of its base."""
    shutil.copytree(model, folder)
    tensors = load_file(folder / "model.safetensors")
    save_file({name: tensor.float() for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder


def by_torch(model: Path, adapter: Path | None, prompt: list[int]) -> Answer:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    net: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    if adapter is not None:
        net = PeftModel.from_pretrained(net, adapter).eval()
    with torch.inference_mode():
        ids = torch.tensor([prompt])
        logits = net(input_ids=ids).logits[0].numpy()
        cache: dict[str, Any] = {}
        greedy = [int(logits[-1].argmax())]
        out = net(input_ids=ids, use_cache=True)
        for _ in range(GREEDY - 1):
            cache = {"past_key_values": out.past_key_values}
            out = net(input_ids=torch.tensor([greedy[-1:]]), use_cache=True, **cache)
            greedy.append(int(out.logits[0, -1].argmax()))
    return logits, greedy


def by_mlx(model: Path, adapter: Path | None, prompt: list[int]) -> Answer:
    import mlx.core as mx
    from mlx_lm.models.cache import make_prompt_cache
    from mlx_lm.tuner.utils import load_adapters
    from mlx_lm.utils import load_model

    net: Any = load_model(model)[0]
    net.set_dtype(mx.float32)
    if adapter is not None:
        net = load_adapters(net, str(adapter))
    net.eval()
    cache = make_prompt_cache(net)
    logits = np.array(net(mx.array([prompt]), cache=cache)[0])
    greedy = [int(logits[-1].argmax())]
    for _ in range(GREEDY - 1):
        greedy.append(int(mx.argmax(net(mx.array([greedy[-1:]]), cache=cache)[0, -1])))
    return logits, greedy


def check_alike(said: Answer, expected: Answer) -> float:
    """Largest difference of logits."""
    difference = float(np.abs(said[0] - expected[0]).max())
    assert difference < TOLERANCE
    assert said[1] == expected[1]
    return difference


def check_adapters_matter(case: Case) -> None:
    """A comparison of things that do nothing would prove nothing."""
    base = case.said[0][0]
    for adapted, fused in zip(case.said[1::2], case.said[2::2], strict=True):
        assert np.abs(adapted[0] - base).max() > 100 * TOLERANCE
        check_alike(fused, adapted)
    assert len({tuple(greedy) for _, greedy in case.said}) == 1 + len(case.adapters)


def test_torch_and_mlx_say_the_same(case: Case, tmp_path: Path) -> None:
    check_adapters_matter(case)
    found = [check_alike(by_mlx(case.base, None, case.prompt), case.said[0])]
    for number, (lora, _, fused) in enumerate(case.adapters):
        write_mlx(lora, tmp_path / f"mlx-{number}")
        found.append(check_alike(by_mlx(case.base, tmp_path / f"mlx-{number}", case.prompt), case.said[1 + 2 * number]))
        found.append(check_alike(by_mlx(fused, None, case.prompt), case.said[2 + 2 * number]))
    print(f"{case.base.name}: torch and MLX differ by at most {max(found):.1e} over {len(found)} models")


@contextmanager
def llama(model: Path, adapter: Path | None = None) -> Iterator[Any]:
    import llama_cpp

    net = llama_cpp.Llama(
        str(model),
        n_ctx=128,
        n_threads=1,
        n_threads_batch=1,
        logits_all=True,
        type_k=llama_cpp.GGML_TYPE_F32,
        type_v=llama_cpp.GGML_TYPE_F32,
        lora_path=None if adapter is None else str(adapter),
        verbose=False,
    )
    try:
        yield net
    finally:
        net.close()


def by_llama(net: Any, prompt: list[int]) -> Answer:
    net.reset()
    net.eval(prompt)
    logits = np.array(net.scores[: len(prompt)])
    greedy = [int(logits[-1].argmax())]
    for _ in range(GREEDY - 1):
        net.eval(greedy[-1:])
        greedy.append(int(net.scores[net.n_tokens - 1].argmax()))
    return logits, greedy


@pytest.mark.llamacpp
def test_llama_cpp_says_the_same(case: Case, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    check_adapters_matter(case)
    base = tmp_path / "base.gguf"
    write_gguf_base(case.base, base)
    with llama(base) as net:
        found = [check_alike(by_llama(net, case.prompt), case.said[0])]
    for number, (lora, _, fused) in enumerate(case.adapters):
        adapter, merged, whole = (tmp_path / f"{name}-{number}.gguf" for name in ("adapter", "merged", "fused"))
        write_gguf_adapter(lora, adapter)
        with llama(base, adapter) as net:
            found.append(check_alike(by_llama(net, case.prompt), case.said[1 + 2 * number]))
        merge_gguf(base, lora, merged)
        write_gguf_base(fused, whole)
        assert merged.read_bytes() == whole.read_bytes()
        with llama(merged) as net:
            found.append(check_alike(by_llama(net, case.prompt), case.said[2 + 2 * number]))
    print(f"{case.base.name}: torch and llama.cpp differ by at most {max(found):.1e} over {len(found)} models")


@pytest.mark.llamacpp
def test_llama_cpp_swaps_adapters_and_returns_to_the_base(case: Case, tmp_path: Path) -> None:
    api = pytest.importorskip("llama_cpp")
    write_gguf_base(case.base, tmp_path / "base.gguf")
    with llama(tmp_path / "base.gguf") as net:
        for number, (lora, _, _) in enumerate(case.adapters):
            write_gguf_adapter(lora, tmp_path / f"{number}.gguf")
            loaded = api.llama_adapter_lora_init(net._model.model, str(tmp_path / f"{number}.gguf").encode())
            assert loaded
            one = (api.llama_adapter_lora_p_ctypes * 1)(loaded)
            assert api.llama_set_adapters_lora(net._ctx.ctx, one, 1, (ctypes.c_float * 1)(1.0)) == 0
            check_alike(by_llama(net, case.prompt), case.said[1 + 2 * number])
            assert api.llama_set_adapters_lora(net._ctx.ctx, None, 0, None) == 0
            api.llama_adapter_lora_free(loaded)
            check_alike(by_llama(net, case.prompt), case.said[0])


def quantised(base: Path, out: Path, kind: str) -> Path:
    import llama_cpp

    how = llama_cpp.llama_model_quantize_default_params()
    how.ftype, how.nthread = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}"), 1
    assert llama_cpp.llama_model_quantize(str(base).encode(), str(out).encode(), ctypes.byref(how)) == 0
    return out


@pytest.mark.llamacpp
def test_llama_cpp_runs_what_was_merged_into_its_own_quantised_model(case: Case, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    if case.base.name != "pocket":
        pytest.skip("its rows are shorter than a block of K-quants")
    write_gguf_base(case.base, tmp_path / "base.gguf")
    base, lora = quantised(tmp_path / "base.gguf", tmp_path / "q8.gguf", "Q8_0"), case.adapters[1][0]
    merge_gguf(base, lora, tmp_path / "merged.gguf")
    with llama(base) as net:
        rounding = float(np.abs(by_llama(net, case.prompt)[0] - case.said[0][0]).mean())
    with llama(tmp_path / "merged.gguf") as net:
        merged = float(np.abs(by_llama(net, case.prompt)[0] - case.said[3][0]).mean())
    assert merged < 3 * rounding < np.abs(case.said[3][0] - case.said[0][0]).mean() / 10
    print(f"Q8_0: rounding moves the base's logits by {rounding:.1e} on average, the merged model's by {merged:.1e}")
    with pytest.raises(AdapterError, match=r"is of type Q\d_K, which cannot be written here"):
        merge_gguf(quantised(tmp_path / "base.gguf", tmp_path / "q4.gguf", "Q4_K_M"), lora, tmp_path / "no.gguf")


@pytest.mark.parametrize("spoil", [lambda lora: Lora(lora.rank, lora.alpha * 1.1, lora.layers)])
def test_a_wrong_scale_would_be_seen(spoil: Callable[[Lora], Lora], tmp_path: Path) -> None:
    base = tiny_qwen2(tmp_path / "base", tied=True)
    lora = random_lora(base, ATTENTION, rank=2, alpha=3.0)
    write_mlx(lora, tmp_path / "right")
    write_mlx(spoil(lora), tmp_path / "wrong")
    prompt = list(range(10, 30))
    with pytest.raises(AssertionError):
        check_alike(by_mlx(base, tmp_path / "wrong", prompt), by_mlx(base, tmp_path / "right", prompt))
