"""Any downloaded model on torch: transformers for the base, PEFT for adapters; CPU, CUDA or MPS."""

from __future__ import annotations

import gc
import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from agent.adapters import Lora, adapter_digest, read_peft
from agent.errors import ModelError
from agent.model import Completion, Message, Sampling
from agent.models.chat import speech_of, tokenizer_of
from agent.models.thinking import split_thinking
from agent.models.weights import folder_hash


def device_of(wanted: str = "auto") -> str:
    """The device to compute on: the one that is wanted, or the best there is.

    Raises:
        ModelError: if it is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return next(name for name, found in there.items() if found)
    if not there.get(wanted.partition(":")[0], False):
        raise ModelError(f"no {wanted} here; choose one of {', '.join(name for name, found in there.items() if found)}")
    return wanted


class TorchModel:
    """A model folder in transformers' layout. An adapter is added beside the weights, which never change.

    `width` conversations are computed at once; `context` tokens fit, prompt and answer together.

    Raises:
        ModelError: if the folder holds no such model, or the device is not there.
    """

    def __init__(
        self, folder: Path, device: str = "auto", context: int = 8_192, width: int = 8, think: bool | None = None
    ) -> None:
        self.folder = folder
        self.name = f"torch:{folder.name}"
        self.device = device_of(device)
        self.tokenizer = tokenizer_of(folder, think)
        self.speaks = speech_of(self.tokenizer)
        self._base_hash = folder_hash(folder)
        self._dtype = torch.float32 if self.device == "cpu" else torch.bfloat16
        self._model: Any = self._load()
        self._context, self._width = context, width
        self.adapter: Path | None = None
        self._adapter_hash = ""
        self._live = ""

    def _load(self) -> Any:
        from transformers import AutoModelForCausalLM

        try:
            model: Any = AutoModelForCausalLM.from_pretrained(str(self.folder), dtype=self._dtype, local_files_only=True)
        except Exception as error:  # the library raises whatever it likes
            raise ModelError(f"{self.folder}: cannot be loaded as a model ({str(error)[:300]}); download it again") from error
        return model.to(self.device).eval().requires_grad_(False)

    @property
    def fingerprint(self) -> str:
        """Hash of weights, tokenizer, chat template, adapter, device and precision."""
        parts = (self._base_hash, self._adapter_hash, self.device.partition(":")[0], str(self._dtype))
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    def use(self, adapter: Path | None) -> None:
        """Serve the bare base (None) or the base with a PEFT adapter folder beside it.

        Raises:
            ModelError: the adapter cannot be used; what was served goes on.
        """
        if adapter == self.adapter:
            return
        if self._model is None:
            self._reload()
        before, digest = self._live, ""
        if adapter is not None:
            lora, digest = read_peft(adapter), adapter_digest(adapter)
            self._put_beside(lora, adapter)
        if before:
            self._model.delete_adapter(before)
        if adapter is None:
            self._live = ""
        self.adapter, self._adapter_hash = adapter, digest

    def _put_beside(self, lora: Lora, where: Path) -> None:
        """Load an adapter whole, and have it serve alone."""
        from peft import LoraConfig

        modules = dict(self._model.named_modules())
        for path, factors in lora.layers.items():
            sizes = [getattr(modules.get(path), name, 0) for name in ("in_features", "out_features")]
            if sizes != [factors.a.shape[1], factors.b.shape[0]]:
                raise ModelError(f"{where}: {path} does not fit the base model; train the adapter on this base")
        name = "one" if self._live != "one" else "two"
        config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=sorted(lora.layers), inference_mode=True)
        try:
            self._model.add_adapter(config, name)
            for path, factors in lora.layers.items():
                layer = self._model.get_submodule(path)
                layer.lora_A[name].weight.data.copy_(factors.a)
                layer.lora_B[name].weight.data.copy_(factors.b)
            self._model.set_adapter(name)
        except Exception as error:  # the library raises whatever it likes
            if name in getattr(self._model, "peft_config", {}):
                self._model.delete_adapter(name)
            if self._live:
                self._model.set_adapter(self._live)
            raise ModelError(f"{where}: cannot be used ({str(error)[:300]}); train the adapter on this base") from error
        self._model.eval()
        self._live = name

    def unload(self) -> None:
        """Give the memory of the weights back; the next completion loads them again, and the adapter that was in use."""
        self._model, self._live = None, ""
        gc.collect()
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()
        elif self.device == "mps":
            torch.mps.empty_cache()

    def _reload(self) -> None:
        self._model = self._load()
        if self.adapter is not None:
            if adapter_digest(self.adapter) != self._adapter_hash:
                raise ModelError(f"{self.adapter} was changed while the model was unloaded; roll back")
            self._put_beside(read_peft(self.adapter), self.adapter)

    def forget(self, keys: Sequence[str]) -> None:
        """Nothing is kept between turns."""

    def complete(
        self, conversations: Sequence[Sequence[Message]], sampling: Sampling, keys: Sequence[str] = ()
    ) -> list[Completion]:
        """Answer every conversation; see the `Model` seam."""
        if self._model is None:
            self._reload()
        prompts = [self.tokenizer.prompt(messages) for messages in conversations]
        names = list(keys) or [str(i) for i in range(len(prompts))]
        done: dict[int, Completion] = {}
        fitting = [i for i, prompt in enumerate(prompts) if len(prompt) < self._context]
        fitting.sort(key=lambda i: len(prompts[i]))
        for at in range(0, len(fitting), self._width):
            block = fitting[at : at + self._width]
            began = time.monotonic()
            answers = self._generate([prompts[i] for i in block], [names[i] for i in block], sampling)
            seconds = (time.monotonic() - began) / len(block)
            for i, ids in zip(block, answers, strict=True):
                done[i] = self._completion(prompts[i], ids, seconds)
        return [done.get(i) or Completion("", len(prompts[i]), 0, finish_reason="context") for i in range(len(prompts))]

    def _completion(self, prompt: list[int], ids: list[int], seconds: float) -> Completion:
        reason: Literal["stop", "length", "context"] = "stop"
        if not ids or ids[-1] not in self.tokenizer.stops:
            reason = "context" if len(prompt) + len(ids) >= self._context else "length"
        opened = getattr(self.tokenizer, "opens_thought", False)
        thinking, text = split_thinking(self.tokenizer.decode(ids), opened)
        said = len(ids) - (reason == "stop")
        return Completion(text, len(prompt), said, 0, seconds, reason, thinking)

    @torch.inference_mode()
    def _generate(self, prompts: list[list[int]], names: list[str], sampling: Sampling) -> list[list[int]]:
        """New ids of each row, the one that ends the turn included."""
        from transformers import LogitsProcessorList

        width = max(map(len, prompts))
        rows = [[self.tokenizer.pad] * (width - len(p)) + p for p in prompts]
        mask = [[0] * (width - len(p)) + [1] * len(p) for p in prompts]
        noise = [Gumbel(sampling, [f"{name}/{len(p)}" for name, p in zip(names, prompts, strict=True)])]
        found = self._model.generate(
            input_ids=torch.tensor(rows, device=self.device),
            attention_mask=torch.tensor(mask, device=self.device),
            max_new_tokens=min(sampling.max_tokens, self._context - width),
            do_sample=False,
            logits_processor=LogitsProcessorList(noise if sampling.temperature > 0 else []),
            eos_token_id=sorted(self.tokenizer.stops),
            pad_token_id=self.tokenizer.pad,
        )
        return [_cut(row, self.tokenizer.stops) for row in found[:, width:].tolist()]


class Gumbel:
    """Sampling as greedy choice of noisy scores (Gumbel 1954), one stream of noise for each conversation and turn.

    So what a row draws does not depend on what else is in the batch.
    """

    def __init__(self, sampling: Sampling, names: Sequence[str]) -> None:
        digests = [hashlib.sha256(f"{sampling.seed}/{name}".encode()).digest() for name in names]
        self._temperature = sampling.temperature
        self._streams = [torch.Generator().manual_seed(int.from_bytes(d[:7], "big")) for d in digests]

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (B, V) of the next token, divided by the temperature, with noise."""
        uniform = torch.stack([torch.rand(scores.shape[-1], generator=stream) for stream in self._streams])
        noise = -torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))
        return scores.float() / self._temperature + noise.to(scores.device)


def _cut(ids: list[int], stops: frozenset[int]) -> list[int]:
    end = next((i for i, token in enumerate(ids) if token in stops), len(ids) - 1)
    return ids[: end + 1]
