"""Any downloaded model on MLX, in this process: Apple silicon, or (slowly) Linux."""

from __future__ import annotations

import gc
import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx
from mlx.utils import tree_unflatten
from mlx_lm.generate import BatchGenerator
from mlx_lm.models.cache import can_trim_prompt_cache, make_prompt_cache, trim_prompt_cache
from mlx_lm.tuner.lora import LoRALinear
from mlx_lm.tuner.utils import remove_lora_layers
from mlx_lm.utils import load_model

from agent.adapters import Lora, adapter_digest, read_peft
from agent.errors import ModelError
from agent.model import Completion, Message, Sampling
from agent.models.chat import speech_of, tokenizer_of
from agent.models.thinking import split_thinking
from agent.models.weights import folder_hash


class MlxModel:
    """A model folder in transformers' or mlx-lm's layout. An adapter is put beside the weights, which never change.

    Up to `width` conversations are computed at once, and the keys and values of as many are kept between turns;
    `context` tokens fit, prompt and answer together.

    Raises:
        ModelError: if the folder holds no model that MLX knows.
    """

    def __init__(self, folder: Path, context: int = 8_192, width: int = 8, think: bool | None = None) -> None:
        self.folder = folder
        self.name = f"mlx:{folder.name}"
        self.tokenizer = tokenizer_of(folder, think)
        self.speaks = speech_of(self.tokenizer)
        self._base_hash = folder_hash(folder)
        self._model: Any = self._load()
        self._context, self._width = context, width
        self.adapter: Path | None = None
        self._adapter_hash = ""
        self._kept: dict[str, tuple[list[int], Any]] = {}

    def _load(self) -> Any:
        try:
            return load_model(self.folder)[0]
        except Exception as error:  # the library raises whatever it likes
            raise ModelError(
                f"{self.folder}: MLX cannot load it ({str(error)[:300]}); convert it with mlx_lm.convert"
            ) from error

    @property
    def fingerprint(self) -> str:
        """Hash of weights, tokenizer, chat template, adapter and kind of device."""
        device = "metal" if mx.metal.is_available() else "cpu"
        return hashlib.sha256(f"{self._base_hash}/{self._adapter_hash}/mlx-{device}".encode()).hexdigest()[:16]

    def use(self, adapter: Path | None) -> None:
        """Serve the bare base (None) or the base with a PEFT adapter folder beside it.

        Raises:
            ModelError: the adapter cannot be used; what was served goes on.
        """
        if adapter == self.adapter:
            return
        if self._model is None:
            self._reload()
        layers, digest = [], ""
        if adapter is not None:
            layers, digest = beside(self._model, read_peft(adapter), adapter), adapter_digest(adapter)
        self._kept.clear()
        self._put_beside(layers)
        self.adapter, self._adapter_hash = adapter, digest

    def _put_beside(self, layers: list[tuple[str, Any]]) -> None:
        remove_lora_layers(self._model)  # a second adapter would be put around the first
        self._model.update_modules(tree_unflatten(layers))
        mx.eval(self._model.parameters())

    def unload(self) -> None:
        """Give the memory of the weights back; the next completion loads them again, and the adapter that was in use."""
        self._kept.clear()
        self._model = None
        gc.collect()
        mx.clear_cache()

    def _reload(self) -> None:
        self._model = self._load()
        if self.adapter is not None:
            if adapter_digest(self.adapter) != self._adapter_hash:
                raise ModelError(f"{self.adapter} was changed while the model was unloaded; roll back")
            self._put_beside(beside(self._model, read_peft(self.adapter), self.adapter))

    def forget(self, keys: Sequence[str]) -> None:
        """Free what was kept of these conversations."""
        for key in keys:
            self._kept.pop(key, None)

    def complete(
        self, conversations: Sequence[Sequence[Message]], sampling: Sampling, keys: Sequence[str] = ()
    ) -> list[Completion]:
        """Answer every conversation; see the `Model` seam."""
        if self._model is None:
            self._reload()
        prompts = [self.tokenizer.prompt(messages) for messages in conversations]
        names = list(keys) or [f"anonymous-{i}" for i in range(len(prompts))]
        done: dict[int, Completion] = {}
        fitting = [i for i, prompt in enumerate(prompts) if len(prompt) < self._context]
        for at in range(0, len(fitting), self._width):
            block = fitting[at : at + self._width]
            done.update(self._complete_block(block, prompts, names, sampling))
        if not keys:
            self.forget(names)
        return [done.get(i) or Completion("", len(prompts[i]), 0, finish_reason="context") for i in range(len(prompts))]

    def _complete_block(
        self, block: list[int], prompts: list[list[int]], names: list[str], sampling: Sampling
    ) -> dict[int, Completion]:
        began = time.monotonic()
        generator: Any = BatchGenerator(
            self._model, stop_tokens=[[token] for token in sorted(self.tokenizer.stops)], completion_batch_size=self._width
        )
        reused = {i: self._reused(names[i], prompts[i]) for i in block}
        uids = generator.insert(
            [prompts[i][reused[i][0] :] for i in block],
            [min(sampling.max_tokens, self._context - len(prompts[i])) for i in block],
            caches=[reused[i][1] for i in block],
            samplers=[_sampler(sampling, f"{names[i]}/{len(prompts[i])}") for i in block],
        )
        rows = dict(zip(uids, block, strict=True))
        ids: dict[int, list[int]] = {i: [] for i in block}
        reasons: dict[int, Literal["stop", "length", "context"]] = {}
        while responses := generator.next_generated():
            for r in responses:
                row = rows[r.uid]
                if r.finish_reason != "stop":
                    ids[row].append(int(r.token))
                if r.finish_reason is not None:
                    room = sampling.max_tokens <= self._context - len(prompts[row])
                    reasons[row] = "stop" if r.finish_reason == "stop" else "length" if room else "context"
                    self._keep(names[row], [*prompts[row], *ids[row]], r.prompt_cache)
        generator.close()
        seconds = (time.monotonic() - began) / len(block)
        return {i: self._completion(prompts[i], ids[i], reused[i][0], seconds, reasons[i]) for i in block}

    def _completion(
        self, prompt: list[int], ids: list[int], cached: int, seconds: float, reason: Literal["stop", "length", "context"]
    ) -> Completion:
        opened = getattr(self.tokenizer, "opens_thought", False)
        thinking, text = split_thinking(self.tokenizer.decode(ids), opened)
        return Completion(text, len(prompt), len(ids), cached, seconds, reason, thinking)

    def _reused(self, name: str, prompt: list[int]) -> tuple[int, Any]:
        """How much of the prompt is in a kept cache, and that cache, cut to it; or a new one."""
        tokens, cache = self._kept.pop(name, ([], None))
        common = next((i for i, (a, b) in enumerate(zip(tokens, prompt[:-1], strict=False)) if a != b), None)
        common = min(len(tokens), len(prompt) - 1) if common is None else common
        if cache is None or not common:
            return 0, make_prompt_cache(self._model)
        trim_prompt_cache(cache, cache[0].offset - common)
        return common, cache

    def _keep(self, name: str, tokens: list[int], cache: Any) -> None:
        if cache is None or not can_trim_prompt_cache(cache):
            return
        while len(self._kept) >= 4 * self._width:
            self._kept.pop(next(iter(self._kept)))
        self._kept[name] = (tokens[: int(cache[0].offset)], cache)


def beside(model: Any, lora: Lora, where: object) -> list[tuple[str, Any]]:
    """The layers of an MLX model with an adapter's factors beside the base's weights, by path; nothing is changed yet.

    Raises:
        ModelError: a layer is not there, or has another shape.
    """
    modules = dict(model.named_modules())
    layers = []
    for path, factors in lora.layers.items():
        linear = getattr(modules.get(path), "linear", modules.get(path))
        if not hasattr(linear, "weight"):
            raise ModelError(f"{where}: the base model has no layer {path}; train the adapter on this base")
        layer = LoRALinear.from_base(linear, r=lora.rank, dropout=0.0, scale=lora.scale)
        down, up = mx.array(factors.a.float().numpy()).T, mx.array(factors.b.float().numpy()).T
        if down.shape != layer.lora_a.shape or up.shape != layer.lora_b.shape:
            raise ModelError(f"{where}: {path} does not fit the base model; train the adapter on this base")
        layer.lora_a, layer.lora_b = down, up
        layers.append((path, layer))
    return layers


def _sampler(sampling: Sampling, name: str) -> Callable[[Any], Any]:
    """Chooses the next token of log-probabilities (1, V); its own stream of random numbers for each conversation and turn."""
    if sampling.temperature <= 0:
        return lambda scores: mx.argmax(scores, axis=-1)
    seed = int.from_bytes(hashlib.sha256(f"{sampling.seed}/{name}".encode()).digest()[:7], "big")
    key = mx.random.key(seed)

    def choose(scores: Any) -> Any:
        nonlocal key
        key, now = mx.random.split(key)
        return mx.random.categorical(scores / sampling.temperature, key=now)

    return choose
