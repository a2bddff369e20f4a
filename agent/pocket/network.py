"""The pocket network: the Qwen2 architecture in plain torch, small enough to read.

Parameter names are those of `transformers`' Qwen2ForCausalLM with tied embeddings, so the same
safetensors file loads there (a test compares the logits). Used where its speed matters:
pretraining, and batched decoding with a KV cache per conversation.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class NetworkConfig:
    """Shape of the network; the names are those of the Qwen2 configuration file."""

    vocab_size: int
    hidden_size: int = 256
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    intermediate_size: int = 768
    max_position_embeddings: int = 2048
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-6

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    def save(self, path: Path) -> None:
        """Write a `config.json` that transformers and mlx-lm read.

        `rope_theta` stands at the top level on purpose: mlx-lm silently uses another one if it
        is only found inside `rope_parameters`.
        """
        extra = {
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            "hidden_act": "silu",
            "tie_word_embeddings": True,
            "dtype": "bfloat16",
        }
        path.write_text(json.dumps({**asdict(self), **extra}, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> NetworkConfig:
        """Read a `config.json`."""
        data = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{name: data[name] for name in cls.__dataclass_fields__ if name in data})


class KVCache:
    """Keys and values of several conversations: `lengths[row]` positions of each row are valid."""

    def __init__(self, config: NetworkConfig, rows: int, capacity: int) -> None:
        shape = (config.num_hidden_layers, rows, config.num_key_value_heads, capacity, config.head_dim)
        self.keys = torch.zeros(shape)
        self.values = torch.zeros(shape)
        self.lengths = torch.zeros(rows, dtype=torch.long)


class _Attention(nn.Module):
    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        self.config = c
        kv = c.num_key_value_heads * c.head_dim
        self.q_proj = nn.Linear(c.hidden_size, c.hidden_size)
        self.k_proj = nn.Linear(c.hidden_size, kv)
        self.v_proj = nn.Linear(c.hidden_size, kv)
        self.o_proj = nn.Linear(c.hidden_size, c.hidden_size, bias=False)

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries (B, H, T, D), rotated keys and values (B, K, T, D)."""
        c = self.config
        weight = torch.cat([self.q_proj.weight, self.k_proj.weight, self.v_proj.weight])
        bias = torch.cat([self.q_proj.bias, self.k_proj.bias, self.v_proj.bias])
        heads, kv = c.num_attention_heads, c.num_key_value_heads
        joint = F.linear(x, weight, bias).view(*x.shape[:2], heads + 2 * kv, c.head_dim).transpose(1, 2)
        rotating, value = joint.split([heads + kv, kv], 1)
        first, second = rotating.chunk(2, -1)
        rotated = torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(value.dtype)
        query, key = rotated.split([heads, kv], 1)
        return query, key, value

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Causal attention if `mask` is None, else with the boolean mask (B, 1, T, S)."""
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None, enable_gqa=True)
        return F.linear(out.transpose(1, 2).flatten(2), self.o_proj.weight)


class _MLP(nn.Module):
    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(c.hidden_size, c.intermediate_size, bias=False)
        self.up_proj = nn.Linear(c.hidden_size, c.intermediate_size, bias=False)
        self.down_proj = nn.Linear(c.intermediate_size, c.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = F.linear(x, torch.cat([self.gate_proj.weight, self.up_proj.weight])).chunk(2, -1)
        return F.linear(F.silu(gate) * up, self.down_proj.weight)


class _Layer(nn.Module):
    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        self.self_attn = _Attention(c)
        self.mlp = _MLP(c)
        self.input_layernorm = nn.RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(c.hidden_size, c.rms_norm_eps)


class _Body(nn.Module):
    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.layers = nn.ModuleList(_Layer(c) for _ in range(c.num_hidden_layers))
        self.norm = nn.RMSNorm(c.hidden_size, c.rms_norm_eps)


class Network(nn.Module):
    """Qwen2 with tied embeddings."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.model = _Body(config)
        inverse = config.rope_theta ** -(torch.arange(0, config.head_dim, 2).float() / config.head_dim)
        angles = torch.outer(torch.arange(config.max_position_embeddings).float(), inverse)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def hidden(self, ids: Tensor) -> Tensor:
        """Final hidden states (B, T, H) of right-padded ids (B, T); causal, so padding needs no mask."""
        cos, sin = self.cos[: ids.shape[1]], self.sin[: ids.shape[1]]
        x = F.embedding(ids, self.model.embed_tokens.weight)
        for layer in self.model.layers:
            assert isinstance(layer, _Layer)
            attention = layer.self_attn
            x = x + attention.attend(*attention.project(layer.input_layernorm(x), cos, sin), None)
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        normed: Tensor = self.model.norm(x)
        return normed

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores over the vocabulary for hidden states (..., H)."""
        return F.linear(hidden, self.model.embed_tokens.weight)

    @torch.inference_mode()
    def extend(self, ids: Tensor, counts: Tensor, cache: KVCache, rows: Tensor) -> Tensor:
        """Append `counts[b]` new tokens of `ids` (B, T) to cache rows; logits (B, V) after the last.

        What stands behind a row's count is padding: it is written beyond the row's length, where
        no later query looks before it is overwritten.
        """
        start = cache.lengths[rows]
        positions = start[:, None] + torch.arange(ids.shape[1])
        reach = int((start + ids.shape[1]).max())
        cos, sin = self.cos[positions][:, None], self.sin[positions][:, None]
        mask = torch.arange(reach)[None, None, None] <= positions[:, None, :, None]
        x = F.embedding(ids, self.model.embed_tokens.weight)
        for number, layer in enumerate(self.model.layers):
            assert isinstance(layer, _Layer)
            attention = layer.self_attn
            query, key, value = attention.project(layer.input_layernorm(x), cos, sin)
            cache.keys[number][rows[:, None], :, positions] = key.transpose(1, 2)
            cache.values[number][rows[:, None], :, positions] = value.transpose(1, 2)
            keys, values = cache.keys[number][rows, :, :reach], cache.values[number][rows, :, :reach]
            x = x + attention.attend(query, keys, values, mask)
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        cache.lengths[rows] = start + counts
        last = x[torch.arange(len(rows)), counts - 1]
        return self.logits(self.model.norm(last))
