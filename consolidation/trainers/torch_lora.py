"""LoRA training with torch, transformers and PEFT: CPU, CUDA (also on 4-bit bases) and MPS."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from agent.adapters import DOWN, PREFIX, UP, Factors, Lora
from agent.errors import ModelError
from agent.models.torch_model import device_of
from consolidation.errors import TrainingRefused
from consolidation.trainers.base import Example, Item, Job, Preference
from consolidation.trainers.batches import shares
from consolidation.trainers.loop import LocalTrainer
from consolidation.trainers.starts import Tensors, tensors_of
from consolidation.trainers.torch_base import open_base


class TorchEngine:
    """See `Engine`.

    Logits are computed where the agent speaks, and nowhere else. Packed examples lie one behind the other in a single row:
    everything but attention is computed for all of them at once, and attention for each alone (`attend_segments`).

    Raises:
        TrainingRefused: the base, the adapter or the device is not what this engine can train with.
    """

    pads = False

    def __init__(self, job: Job, lora: Lora) -> None:
        from peft import LoraConfig, get_peft_model

        torch.set_num_threads(job.threads)
        self._job, self._rank, self._alpha = job, lora.rank, lora.alpha
        try:
            self._device = device_of(job.machine.device)
        except ModelError as error:
            raise TrainingRefused(str(error)) from error
        base = open_base(job, self._device)
        self.vocabulary: int = base.get_input_embeddings().num_embeddings
        paths = sorted(lora.layers)
        config = LoraConfig(
            r=lora.rank, lora_alpha=lora.alpha, target_modules=paths, task_type="CAUSAL_LM", init_lora_weights=False
        )
        try:
            self._model: Any = get_peft_model(base, config)
        except ValueError as error:
            raise TrainingRefused(f"the adapter does not fit {job.base} ({str(error)[:300]}); train it on this base") from error
        named = {_plain(n): p for n, p in self._model.named_parameters() if p.requires_grad}
        order = [PREFIX + path + end for path in lora.layers for end in (DOWN, UP)]
        if set(named) != set(order):
            raise TrainingRefused(f"{job.base} has not all layers of the adapter; train it on this base")
        self._parameters = {name: named[name] for name in order}
        self._put(tensors_of(lora))
        self._optimizer = torch.optim.AdamW(
            self._parameters.values(),
            lr=job.lora.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=0.0,
            fused=self._device.startswith("cuda"),
        )
        self._penalty: tuple[Tensors, Tensors, float] | None = None

    def learn(self, batches: Sequence[Sequence[Item]]) -> tuple[float, float]:
        """Sum of the batches' losses, each with its share of the own tokens (or of the pairs), and the gradient's norm."""
        whole = 0.0
        for batch, (share, kl_share) in zip(batches, shares(batches), strict=True):
            loss, kl = self._objective(batch)
            total = loss * share
            if kl is not None:
                total = total + self._job.lora.kl_weight * kl_share * kl
            total.backward()
            whole += loss.item() * share
        norm = torch.nn.utils.clip_grad_norm_(list(self._parameters.values()), self._job.lora.max_grad_norm)
        return whole, norm.item()

    def update(self, rate: float) -> None:
        """See `Engine`."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self._optimizer.zero_grad()
        if self._penalty is not None:
            self._pull(rate, *self._penalty)

    @torch.no_grad()
    def nats(self, batch: Sequence[Example], base: bool = False) -> list[float]:
        """See `Engine`."""
        with self._bare() if base else nullcontext():
            return [-value for value in self._likelihoods(batch).tolist()]

    def squares(self, batches: Iterable[Example]) -> Tensors:
        """See `Engine`."""
        sums = {name: torch.zeros_like(parameter) for name, parameter in self._parameters.items()}
        for example in batches:
            self._optimizer.zero_grad()
            (self._likelihoods([example])[0] / sum(example.own[1:])).backward()
            for name, parameter in self._parameters.items():
                assert parameter.grad is not None
                sums[name] += parameter.grad.square()
        self._optimizer.zero_grad()
        return _copied(sums)

    def penalise(self, fisher: Tensors, anchor: Tensors, weight: float) -> None:
        """See `Engine`."""
        there = [{name: tensor.to(self._device) for name, tensor in tensors.items()} for tensors in (fisher, anchor)]
        self._penalty = there[0], there[1], weight

    def factors(self) -> Lora:
        """See `Engine`."""
        now = _copied(self._parameters)
        paths = [name.removeprefix(PREFIX).removesuffix(DOWN) for name in now if name.endswith(DOWN)]
        return Lora(self._rank, self._alpha, {p: Factors(now[PREFIX + p + DOWN], now[PREFIX + p + UP]) for p in paths})

    def state(self) -> Tensors:
        """See `Engine`; the optimiser's tensors have its own names behind the parameter's."""
        moments = {
            f"{name}/{key}": tensor
            for name, parameter in self._parameters.items()
            for key, tensor in self._optimizer.state[parameter].items()
        }
        return _copied({**self._parameters, **moments})

    def restore(self, tensors: Tensors) -> None:
        """See `Engine`."""
        self._put({name: tensors[name] for name in self._parameters})
        for name, parameter in self._parameters.items():
            mine = {key.partition("/")[2]: tensor for key, tensor in tensors.items() if key.startswith(f"{name}/")}
            self._optimizer.state[parameter] = {
                key: tensor if key == "step" and not self._device.startswith("cuda") else tensor.to(self._device)
                for key, tensor in mine.items()
            }

    @torch.no_grad()
    def _pull(self, rate: float, fisher: Tensors, anchor: Tensors, weight: float) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(anchor[name] + (parameter - anchor[name]) / (1 + rate * weight * fisher[name]))

    @torch.no_grad()
    def _put(self, tensors: Tensors) -> None:
        for name, parameter in self._parameters.items():
            if parameter.shape != tensors[name].shape:
                raise TrainingRefused(f"{name} does not fit {self._job.base}; train the adapter on this base")
            parameter.copy_(tensors[name])

    def _bare(self) -> AbstractContextManager[Any]:
        found: AbstractContextManager[Any] = self._model.disable_adapter()
        return found

    def _objective(self, batch: Sequence[Item]) -> tuple[Tensor, Tensor | None]:
        """Mean loss of a batch, and the mean KL of its rehearsal examples where that counts."""
        pairs = [item for item in batch if isinstance(item, Preference)]
        if pairs:
            return self._preference(pairs), None
        examples = [item for item in batch if isinstance(item, Example)]
        width = max(example.width for example in examples)
        scores, targets, at = self._scores(examples, width)
        loss = F.cross_entropy(scores, targets)
        numbers = [number for number, example in enumerate(examples) if example.rehearsal]
        if not self._job.lora.kl_weight or not numbers:
            return loss, None
        with torch.no_grad(), self._bare():
            reference = self._scores([examples[number] for number in numbers], width)[0]
        adapted = scores[torch.isin(at, torch.tensor(numbers, device=at.device))]
        logs = F.log_softmax(adapted, -1), F.log_softmax(reference, -1)
        return loss, F.kl_div(*logs, log_target=True, reduction="batchmean")

    def _preference(self, pairs: Sequence[Preference]) -> Tensor:
        """Mean of -log sigmoid(beta * (margin over the reference)) (Rafailov et al. 2023, equation 7)."""
        found = self._likelihoods([pair.chosen for pair in pairs] + [pair.rejected for pair in pairs])
        reference = torch.tensor([pair.reference for pair in pairs], device=found.device)
        margin = (found[: len(pairs)] - reference[:, 0]) - (found[len(pairs) :] - reference[:, 1])
        return -F.logsigmoid(self._job.lora.beta * margin).mean()

    def _likelihoods(self, examples: Sequence[Example]) -> Tensor:
        """Log-probability of the own tokens of each example, summed (examples,)."""
        scores, targets, at = self._scores(examples, max(example.width for example in examples))
        logs = -F.cross_entropy(scores, targets, reduction="none")
        return torch.zeros(len(examples), device=logs.device).index_add(0, at, logs)

    def _scores(self, examples: Sequence[Example], width: int) -> tuple[Tensor, Tensor, Tensor]:
        """For each own token: scores (n, V) in float32 that predict it, the token (n,), its example's number (n,)."""
        packed = self._job.lora.batching == "packed"
        lengths = [len(example.ids) - 1 for example in examples] if packed else [width] * len(examples)
        ids, own = torch.zeros(2, len(examples), width, dtype=torch.long)
        for row, example in enumerate(examples):
            ids[row, : len(example.ids)] = torch.tensor(example.ids)
            own[row, : len(example.own)] = torch.tensor(example.own)
        mask, targets = own[:, 1:].bool(), ids[:, 1:]
        at = mask.nonzero()[:, 0]
        more: dict[str, Any] = {}
        if packed:
            there = torch.arange(width)[None] < torch.tensor(lengths)[:, None]
            more = {"position_ids": torch.cat([torch.arange(n) for n in lengths])[None].to(self._device), "segments": lengths}
            inputs, kept = ids[there][None], mask[there[:, : width - 1]].nonzero()[:, 0]
        else:
            inputs, kept = ids, mask.any(0).nonzero()[:, 0]
        with torch.autocast(self._device.partition(":")[0], torch.bfloat16, enabled=self._job.lora.precision == "bf16"):
            logits = self._model(
                input_ids=inputs.to(self._device), use_cache=False, logits_to_keep=kept.to(self._device), **more
            ).logits
        scores = logits[0] if packed else logits[mask[:, kept].to(self._device)]
        return scores.float(), targets[mask].to(self._device), at.to(self._device)


def _plain(name: str) -> str:
    return name.replace(".default.", ".")


def _copied(tensors: dict[str, Any]) -> Tensors:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


TORCH = LocalTrainer("torch", TorchEngine)
fit = TORCH.fit
