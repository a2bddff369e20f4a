"""A Qwen2 base model as one GGUF file: tokenizer, shape and weights, as llama.cpp and Ollama read them.

Nothing is permuted for Qwen2; tied embeddings are said by leaving `output.weight` out; 1-D tensors stay float32.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGUFWriter, TokenType
from safetensors import SafetensorError, safe_open
from torch import Tensor

from agent.pocket.tokenizer import CHAT_TEMPLATE, END, PAD
from consolidation.errors import AdapterError
from consolidation.layouts import made_whole, read_json
from consolidation.layouts.gguf import raw, writing
from consolidation.layouts.gguf_file import MAX_BASE_ITEMS, open_gguf

DTYPES = {"f32": torch.float32, "f16": torch.float16}
FILE_TYPES = {"f32": gguf.LlamaFileType.ALL_F32, "f16": gguf.LlamaFileType.MOSTLY_F16}
NO_LIMIT = 1 << 62


def write_gguf_base(folder: Path, path: Path, dtype: str = "f32", pre: str = "qwen2") -> None:
    """Write the model in a folder (transformers' layout) as GGUF, and compare what was written with the folder.

    `dtype` is `f32` or `f16`. `pre` names the rule by which llama.cpp splits text before the merges: `qwen2` for Qwen,
    `deepseek-r1-qwen` for its distillation; no rule is that of the pocket tokenizer, so give its GGUF token ids, not text.

    Raises:
        AdapterError: it is no plain Qwen2 model, a value does not fit, or the file cannot be made.
    """
    if dtype not in DTYPES:
        raise AdapterError(f"a base model is written as {' or '.join(DTYPES)}, not {dtype}")
    config = read_json(folder / "config.json")
    if config.get("model_type") != "qwen2" or config.get("use_sliding_window") or config.get("quantization"):
        raise AdapterError(f"{folder}: only a plain Qwen2 model can be written as GGUF; take the GGUF its publisher offers")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, int(config["num_hidden_layers"]))
    with made_whole(path) as made, writing(made, "qwen2") as writer:
        _add_shape(writer, config, folder)
        _add_tokenizer(writer, folder, int(config["vocab_size"]), pre)
        writer.add_file_type(FILE_TYPES[dtype])
        tied = bool(config.get("tie_word_embeddings", False))
        for name, tensor in _tensors(folder, names, tied, DTYPES[dtype]):
            writer.add_tensor_info(name, list(tensor.shape), raw(tensor[:0]).dtype, tensor.nbytes)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for _, tensor in _tensors(folder, names, tied, DTYPES[dtype]):
            writer.write_tensor_data(raw(tensor))
        writer.flush()
        found = {t.name: t.data for t in open_gguf(made, NO_LIMIT, MAX_BASE_ITEMS).tensors}
        for name, tensor in _tensors(folder, names, tied, DTYPES[dtype]):
            if not np.array_equal(found.pop(name), raw(tensor)):
                raise AdapterError(f"{path}: {name} was not written as it is; check the disk")
        if found:
            raise AdapterError(f"{path}: {min(found)} should not be there; report this")


def _add_shape(writer: GGUFWriter, config: dict[str, Any], folder: Path) -> None:
    try:
        writer.add_context_length(int(config["max_position_embeddings"]))
        writer.add_embedding_length(int(config["hidden_size"]))
        writer.add_block_count(int(config["num_hidden_layers"]))
        writer.add_feed_forward_length(int(config["intermediate_size"]))
        writer.add_head_count(int(config["num_attention_heads"]))
        writer.add_head_count_kv(int(config["num_key_value_heads"]))
        writer.add_layer_norm_rms_eps(float(config["rms_norm_eps"]))
        writer.add_rope_freq_base(_rope_theta(config, folder))
        writer.add_vocab_size(int(config["vocab_size"]))
    except (KeyError, TypeError, ValueError) as error:
        raise AdapterError(f"{folder / 'config.json'}: {error} is missing or no number; download the model again") from error


def _rope_theta(config: dict[str, Any], folder: Path) -> float:
    """transformers 5 keeps it in `rope_parameters`, everything older at the top."""
    places = [config, *(config.get(name) or {} for name in ("rope_scaling", "rope_parameters"))]
    kinds = {str(place[key]) for place in places for key in ("rope_type", "type") if key in place} - {"default"}
    found = {float(place["rope_theta"]) for place in places if "rope_theta" in place}
    if kinds or len(found) != 1:
        raise AdapterError(
            f"{folder / 'config.json'}: RoPE of type {sorted(kinds)} with theta {sorted(found)}; "
            "only plain RoPE with one theta can be written"
        )
    return found.pop()


def _add_tokenizer(writer: GGUFWriter, folder: Path, size: int, pre: str) -> None:
    try:
        tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        vocabulary: dict[str, int] = dict(tokenizer["model"]["vocab"])
        added = {str(token["content"]): (int(token["id"]), bool(token["special"])) for token in tokenizer["added_tokens"]}
        special = gguf.SpecialVocab(folder, load_merges=True, n_vocab=size)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise AdapterError(f"{folder}: no readable byte-level BPE tokenizer.json ({str(error)[:200]})") from error
    tokens, kinds = [f"[PAD{i}]" for i in range(size)], [TokenType.UNUSED] * size
    for token, index in vocabulary.items():
        tokens[_within(index, size, folder)], kinds[index] = token, TokenType.NORMAL
    for token, (index, hidden) in added.items():
        kind = TokenType.CONTROL if hidden else TokenType.USER_DEFINED
        tokens[_within(index, size, folder)], kinds[index] = token, kind
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    if END in added and "eos" not in special.special_token_ids:  # the pocket model, which has no tokenizer_config.json
        special.special_token_ids |= {"eos": added[END][0], "pad": added[PAD][0]}
        special.chat_template = CHAT_TEMPLATE
    special.add_special_token.setdefault("bos", False)
    special.add_to_gguf(writer, quiet=True)


def _within(index: int, size: int, folder: Path) -> int:
    if not 0 <= index < size:
        raise AdapterError(f"{folder}: token {index} is outside of the vocabulary of {size}; download the model again")
    return index


def _tensors(folder: Path, names: gguf.TensorNameMap, tied: bool, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """GGUF name and weights, one at a time, in the order of the shards."""
    shards = sorted(folder.glob("*.safetensors"))
    if not shards:
        raise AdapterError(f"{folder}: no safetensors weights there; name the folder of a downloaded model")
    for shard in shards:
        try:
            with safe_open(shard, framework="pt") as file:
                for key in sorted(file.keys()):
                    if not (tied and key == "lm_head.weight"):
                        yield _named(key, names, shard), _cast(file.get_tensor(key), dtype, f"{shard}: {key}")
        except (OSError, SafetensorError) as error:
            raise AdapterError(f"{shard}: cannot be read ({str(error)[:200]}); download the model again") from error


def _named(key: str, names: gguf.TensorNameMap, shard: Path) -> str:
    name: str | None = names.get_name(key, try_suffixes=(".weight", ".bias"))
    if name is None:
        raise AdapterError(f"{shard}: {key[:200]} is no tensor of Qwen2")
    return name


def _cast(tensor: Tensor, dtype: torch.dtype, where: str) -> Tensor:
    if not tensor.is_floating_point():
        raise AdapterError(f"{where} is of {tensor.dtype}; write the model that is not quantised")
    cast = tensor.to(torch.float32 if tensor.ndim == 1 else dtype)
    if not torch.isfinite(cast).all():
        raise AdapterError(f"{where} is not finite as {dtype}; choose f32")
    return cast
