"""What computes the Ollama double's answers: the pocket network with weights out of GGUF files, or llama.cpp itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from gguf.quants import dequantize, quantize

from agent.model import Message
from agent.pocket import WEIGHTS
from agent.pocket.network import KVCache, Network, NetworkConfig
from agent.pocket.tokenizer import PocketTokenizer

NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
LINEAR = {"attn_q": "q_proj", "attn_k": "k_proj", "attn_v": "v_proj", "attn_output": "o_proj"}
PLAIN = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
FULL = ("F32", "F16", "BF16")


class Engine(Protocol):
    """A loaded model. `trained` is its longest context (tokens)."""

    trained: int

    def ids(self, messages: Sequence[Message]) -> list[int]: ...

    def text(self, ids: Sequence[int]) -> str: ...

    def tokens(self, ids: Sequence[int], window: int, temperature: float, seed: int) -> Iterator[int]:
        """Answer tokens without the one that ends the turn; ends where the turn or the window does."""
        ...

    @property
    def computed(self) -> int:
        """Prompt tokens of the last answer that were not in the cache."""
        ...

    @property
    def ended(self) -> bool:
        """Whether the last answer ended by itself."""
        ...


@cache
def metadata(path: Path) -> dict[str, Any]:
    """Metadata of a blob, whose content never changes."""
    return fields(GGUFReader(path))


@cache
def tensors(path: Path) -> dict[str, torch.Tensor]:
    """The network's weights out of a blob, by the network's names."""
    found = GGUFReader(path).tensors
    return {parameter(t.name): torch.from_numpy(np.array(dequantize(t.data, t.tensor_type))) for t in found}


@cache
def tokenizer() -> PocketTokenizer:
    return PocketTokenizer(WEIGHTS / "tokenizer.json")


def fields(reader: GGUFReader) -> dict[str, Any]:
    """Metadata, long arrays (the vocabulary) left out."""
    return {
        key: f.contents()
        for key, f in reader.fields.items()
        if not key.startswith(("GGUF.", "tokenizer.ggml.tok", "tokenizer.ggml.mer"))
    }


class PocketEngine:
    """The pocket network and tokenizer; every weight comes from the GGUF files."""

    def __init__(self, base: Path, adapters: Sequence[Path]) -> None:
        torch.set_num_threads(1)
        self.tokenizer = tokenizer()
        told, weights = metadata(base), dict(tensors(base))
        self.trained = int(told["qwen2.context_length"])
        self.config = NetworkConfig(
            vocab_size=weights["model.embed_tokens.weight"].shape[0],
            hidden_size=int(told["qwen2.embedding_length"]),
            num_hidden_layers=int(told["qwen2.block_count"]),
            num_attention_heads=int(told["qwen2.attention.head_count"]),
            num_key_value_heads=int(told["qwen2.attention.head_count_kv"]),
            intermediate_size=int(told["qwen2.feed_forward_length"]),
            max_position_embeddings=self.trained,
            rope_theta=float(told["qwen2.rope.freq_base"]),
        )
        for path in adapters:
            for name, delta in deltas(path).items():
                weights[name] = weights[name] + delta
        self.network = Network(self.config)
        self.network.load_state_dict(weights)
        self.network.requires_grad_(False).eval()
        self.cache = KVCache(self.config, 1, self.trained)
        self.kept: list[int] = []
        self.computed, self.ended = 0, True

    def ids(self, messages: Sequence[Message]) -> list[int]:
        return self.tokenizer.prompt(messages)

    def text(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids)

    def tokens(self, ids: Sequence[int], window: int, temperature: float, seed: int) -> Iterator[int]:
        common = next(
            (i for i, (a, b) in enumerate(zip(self.kept, ids, strict=False)) if a != b), min(len(self.kept), len(ids))
        )
        common = min(common, len(ids) - 1)
        self.kept, self.computed, self.ended = self.kept[:common], len(ids) - common, False
        noise = torch.Generator().manual_seed(seed)
        scores = self._extend(list(ids[common:]))
        while True:
            odds = torch.softmax(scores / temperature, -1) if temperature > 0 else scores
            token = int(torch.multinomial(odds, 1, generator=noise)) if temperature > 0 else int(scores.argmax())
            if token in self.tokenizer.stops:
                self.ended = True
                return
            yield token
            if len(self.kept) + 1 >= window:
                return
            scores = self._extend([token])

    def _extend(self, new: list[int]) -> torch.Tensor:
        self.cache.lengths[0] = len(self.kept)
        self.kept += new
        return self.network.extend(torch.tensor([new]), torch.tensor([len(new)]), self.cache, torch.tensor([0]))[0]


class LlamaEngine:
    """llama.cpp on the same files. The pocket tokenizer makes the ids, because llama.cpp has no rule for its splitting."""

    def __init__(self, base: Path, adapters: Sequence[Path], window: int = 1024) -> None:
        from llama_cpp import GGML_TYPE_F32, Llama

        self.tokenizer = tokenizer()
        adapter = str(adapters[0]) if adapters else None
        exact = {"type_k": GGML_TYPE_F32, "type_v": GGML_TYPE_F32}
        self.llama = Llama(str(base), n_ctx=window, n_threads=1, n_threads_batch=1, lora_path=adapter, verbose=False, **exact)
        self.trained = window
        self.computed, self.ended = 0, True

    def ids(self, messages: Sequence[Message]) -> list[int]:
        return self.tokenizer.prompt(messages)

    def text(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids)

    def tokens(self, ids: Sequence[int], window: int, temperature: float, seed: int) -> Iterator[int]:
        self.llama.reset()
        self.llama.set_seed(seed)
        self.computed, self.ended, count = len(ids), False, len(ids)
        for token in self.llama.generate(list(ids), temp=temperature, top_k=0, top_p=1.0, min_p=0.0, repeat_penalty=1.0):
            if token in self.tokenizer.stops:
                self.ended = True
                return
            yield token
            count += 1
            if count >= window:
                return


def parameter(name: str) -> str:
    """The network's name of a GGUF tensor."""
    if name in PLAIN:
        return PLAIN[name]
    _, layer, part, end = name.split(".")
    if part in NORMS:
        return f"model.layers.{layer}.{NORMS[part]}.{end}"
    inner = f"self_attn.{LINEAR[part]}" if part in LINEAR else f"mlp.{part.removeprefix('ffn_')}_proj"
    return f"model.layers.{layer}.{inner}.{end}"


def deltas(path: Path) -> dict[str, torch.Tensor]:
    """Change of every weight by a GGUF adapter: alpha / rank * b @ a."""
    reader = GGUFReader(path)
    alpha = float(fields(reader)["adapter.lora.alpha"])
    found = {t.name: torch.from_numpy(np.array(dequantize(t.data, t.tensor_type))) for t in reader.tensors}
    names = sorted(name.removesuffix(".lora_a") for name in found if name.endswith(".lora_a"))
    return {parameter(n): alpha / found[f"{n}.lora_a"].shape[0] * found[f"{n}.lora_b"] @ found[f"{n}.lora_a"] for n in names}


def quantized(source: Path, target: Path, kind: str) -> None:
    """A copy of a GGUF model whose matrices are quantised, by the gguf package."""
    reader, wanted = GGUFReader(source), GGMLQuantizationType[kind]
    writer = GGUFWriter(target, str(fields(reader)["general.architecture"]))
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            inner = field.types[1] if len(field.types) > 1 else None
            writer.add_key_value(key, field.contents(), field.types[0], inner)
    for tensor in reader.tensors:
        if len(tensor.shape) > 1:
            data = quantize(dequantize(tensor.data, tensor.tensor_type), wanted)
            writer.add_tensor(tensor.name, data, raw_dtype=wanted)
        else:
            writer.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
