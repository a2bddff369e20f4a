"""The pocket model behind the `Model` seam: batched decoding, KV reuse between turns, adapters."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from agent.adapters import adapter_digest, read_peft
from agent.errors import ModelError
from agent.model import Completion, Message, Sampling, Speech
from agent.pocket import WEIGHTS
from agent.pocket.network import KVCache, Network, NetworkConfig
from agent.pocket.tokenizer import CHAT_TEMPLATE, PocketTokenizer

PREFILL_ROWS = 16


@dataclass
class _Row:
    """One conversation in the cache: the tokens whose keys and values are stored."""

    slot: int
    tokens: list[int] = field(default_factory=list)


class PocketModel:
    """The shipped model on the CPU, optionally with one LoRA adapter merged into the weights.

    `slots` conversations are kept at once; `capacity` tokens fit into each.

    Raises:
        ModelError: if a file of the model or of an adapter is missing, corrupt or does not fit.
    """

    speaks: Speech = "terse"

    def __init__(self, folder: Path = WEIGHTS, slots: int = 32, capacity: int = 1280, threads: int | None = None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.folder = folder
        self.name = f"pocket:{folder.name}"
        self.tokenizer = PocketTokenizer(folder / "tokenizer.json")
        self._base, self._base_hash = load_weights(folder / "model.safetensors")
        try:
            self.config = NetworkConfig.load(folder / "config.json")
            self.network = Network(self.config)
            self.network.load_state_dict(self._base)
        except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ModelError(
                f"{folder}: configuration and weights do not fit ({str(error)[:200]}); run `make pocket`"
            ) from error
        self.network.requires_grad_(False).eval()
        self.adapter: Path | None = None
        self._adapter_hash = ""
        self._capacity = capacity
        self._cache = KVCache(self.config, slots, capacity)
        self._rows: dict[str, _Row] = {}
        self._free = list(range(slots))

    @property
    def fingerprint(self) -> str:
        """Hash of weights, tokenizer, chat template and adapter."""
        tokenizer = (self.folder / "tokenizer.json").read_bytes()
        parts = (
            self._base_hash.encode(),
            hashlib.sha256(tokenizer).digest(),
            CHAT_TEMPLATE.encode(),
            self._adapter_hash.encode(),
        )
        return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]

    def use(self, adapter: Path | None) -> None:
        """Serve the bare base (None) or the base with a PEFT adapter folder merged in.

        The base is restored from its own copy first, so adapters never add up. Cached
        conversations are dropped, because another model would have computed them.
        """
        if adapter == self.adapter:
            return
        parameters = dict(self.network.named_parameters())
        deltas, digest = ({}, "") if adapter is None else lora_deltas(adapter)
        for name, delta in deltas.items():
            if name not in parameters or parameters[name].shape != delta.shape:
                raise ModelError(f"{adapter}: {name} does not fit the base model; train the adapter on this base")
        self.network.load_state_dict(self._base)
        self.forget(list(self._rows))
        for name, delta in deltas.items():
            parameters[name].add_(delta)
        self.adapter, self._adapter_hash = adapter, digest

    def unload(self) -> None:
        """A few megabytes stay."""

    def forget(self, keys: Sequence[str]) -> None:
        """Free the cache of these conversations."""
        for key in keys:
            row = self._rows.pop(key, None)
            if row is not None:
                self._free.append(row.slot)

    def complete(
        self, conversations: Sequence[Sequence[Message]], sampling: Sampling, keys: Sequence[str] = ()
    ) -> list[Completion]:
        """Answer every conversation; see the `Model` seam."""
        names = list(keys) if keys else [f"anonymous-{i}" for i in range(len(conversations))]
        done: dict[str, Completion] = {}
        room = len(self._rows) + len(self._free)
        for at in range(0, len(names), room):
            block = names[at : at + room]
            self._make_room(block)
            done.update(self._complete_block(block, conversations[at : at + room], sampling))
        if not keys:
            self.forget(names)
        return [done[name] for name in names]

    def _make_room(self, wanted: list[str]) -> None:
        missing = sum(key not in self._rows for key in wanted)
        idle = [key for key in self._rows if key not in wanted]
        self.forget(idle[: max(0, missing - len(self._free))])
        for key in wanted:
            if key not in self._rows:
                self._rows[key] = _Row(self._free.pop())

    def _complete_block(
        self, keys: list[str], conversations: Sequence[Sequence[Message]], sampling: Sampling
    ) -> dict[str, Completion]:
        began = time.monotonic()
        prompts = {key: self.tokenizer.prompt(messages) for key, messages in zip(keys, conversations, strict=True)}
        cached: dict[str, int] = {}
        for key in keys:
            cached[key] = self._rewind(self._rows[key], prompts[key])
        fitting = [key for key in keys if len(prompts[key]) + 1 < self._capacity]
        logits = self._prefill(fitting, prompts)
        answers = self._decode(fitting, logits, prompts, sampling)
        seconds = (time.monotonic() - began) / max(len(keys), 1)
        result: dict[str, Completion] = {}
        for key in keys:
            tokens, reason = answers.get(key, ([], "context"))
            text = self.tokenizer.decode(tokens)
            result[key] = Completion(text, len(prompts[key]), len(tokens), cached[key], seconds, reason)
        return result

    def _rewind(self, row: _Row, prompt: list[int]) -> int:
        """Keep the longest common prefix of cache and prompt (never all of it); its length."""
        common = _common_prefix(row.tokens, prompt[:-1])
        row.tokens = row.tokens[:common]
        self._cache.lengths[row.slot] = common
        return common

    def _prefill(self, keys: list[str], prompts: dict[str, list[int]]) -> dict[str, Tensor]:
        fresh = {key: prompts[key][len(self._rows[key].tokens) :] for key in keys}
        logits: dict[str, Tensor] = {}
        order = sorted(keys, key=lambda key: len(fresh[key]))
        for at in range(0, len(order), PREFILL_ROWS):
            block = order[at : at + PREFILL_ROWS]
            scores = self._extend(block, [fresh[key] for key in block])
            logits.update(zip(block, scores, strict=True))
        return logits

    def _extend(self, keys: list[str], tokens: list[list[int]]) -> Tensor:
        width = max(map(len, tokens))
        ids = torch.full((len(keys), width), self.tokenizer.pad)
        for row, new in enumerate(tokens):
            ids[row, : len(new)] = torch.tensor(new)
        slots = torch.tensor([self._rows[key].slot for key in keys])
        scores = self.network.extend(ids, torch.tensor([len(new) for new in tokens]), self._cache, slots)
        for key, new in zip(keys, tokens, strict=True):
            self._rows[key].tokens += new
        return scores

    def _decode(
        self, keys: list[str], logits: dict[str, Tensor], prompts: dict[str, list[int]], sampling: Sampling
    ) -> dict[str, tuple[list[int], Literal["stop", "length", "context"]]]:
        answers: dict[str, list[int]] = {key: [] for key in keys}
        reasons: dict[str, Literal["stop", "length", "context"]] = {}
        generators = (
            {key: _generator(sampling.seed, key, len(prompts[key])) for key in keys} if sampling.temperature > 0 else {}
        )
        active = list(keys)
        scores = torch.stack([logits[key] for key in active]) if active else torch.empty(0)
        while active:
            if sampling.temperature > 0:
                odds = torch.softmax(scores / sampling.temperature, -1)
                chosen = [int(torch.multinomial(odds[i], 1, generator=generators[key])) for i, key in enumerate(active)]
            else:
                chosen = scores.argmax(-1).tolist()
            going: list[str] = []
            for key, token in zip(active, chosen, strict=True):
                if token < self.tokenizer.specials:
                    reasons[key] = "stop"
                    continue
                answers[key].append(token)
                if len(answers[key]) >= sampling.max_tokens:
                    reasons[key] = "length"
                elif len(self._rows[key].tokens) + 2 > self._capacity:
                    reasons[key] = "context"
                else:
                    going.append(key)
            active = going
            if active:
                scores = self._extend(active, [[answers[key][-1]] for key in active])
        return {key: (answers[key], reasons[key]) for key in keys}


def _common_prefix(one: Sequence[int], two: Sequence[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))


def _generator(seed: int, key: str, turn: int) -> torch.Generator:
    """One stream of random numbers per conversation and turn, whatever else is in the batch."""
    digest = hashlib.sha256(f"{seed}/{key}/{turn}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def load_weights(path: Path) -> tuple[dict[str, Tensor], str]:
    """Tensors (as float32) of a safetensors file, and the file's sha256.

    Raises:
        ModelError: if the file is missing or damaged.
    """
    try:
        tensors = {name: tensor.float() for name, tensor in load_file(path).items()}
        return tensors, hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{path}: cannot read the weights ({error}); restore the file from the repository or run `make pocket`"
        ) from error


def lora_deltas(folder: Path) -> tuple[dict[str, Tensor], str]:
    """Weight changes (out, in) of a PEFT adapter folder by parameter name, and its hash.

    Raises:
        ModelError: see `read_peft`.
    """
    lora = read_peft(folder)
    return {f"{path}.weight": lora.delta(path) for path in lora.layers}, adapter_digest(folder)
