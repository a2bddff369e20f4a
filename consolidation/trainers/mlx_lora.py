"""LoRA training with MLX and mlx-lm: Apple silicon (also on bases that mlx-lm quantised), and slowly Linux."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import numpy as np
import torch
from mlx import nn, optimizers
from mlx.utils import tree_flatten, tree_map, tree_unflatten
from mlx_lm.tuner.lora import LoRALinear
from mlx_lm.tuner.trainer import grad_checkpoint
from mlx_lm.utils import load_model
from torch import Tensor

from agent.adapters import DOWN, PREFIX, UP, Factors, Lora
from agent.errors import ModelError
from agent.models.mlx_model import beside
from consolidation.errors import TrainingRefused
from consolidation.trainers.base import Example, Item, Job, Preference
from consolidation.trainers.batches import shares
from consolidation.trainers.loop import LocalTrainer
from consolidation.trainers.starts import Tensors, tensors_of

DTYPES = {"f32": mx.float32, "bf16": mx.bfloat16}
ENDS = {"lora_a": DOWN, "lora_b": UP}
Arrays = dict[str, Any]
"""Arrays by PEFT names, in MLX's orientation: `a` (in, rank), `b` (rank, out)."""


class OwnRows(nn.Module):  # type: ignore[misc]
    """The last norm of a model, behind which only chosen rows go on to the vocabulary: hidden (B, T, H) -> (1, n, H)."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.norm = norm
        self.rows: Any = None

    def __call__(self, hidden: Any) -> Any:
        """Norm of the chosen rows of all batches and times together, or of all."""
        return self.norm(hidden if self.rows is None else hidden.reshape(-1, hidden.shape[-1])[self.rows][None])


class MlxEngine:
    """See `Engine`.

    Packed batches are rows of similar length, little padded: mlx-lm's models take no positions and no mask of blocks,
    and a mask over a joined row would cost the square of its length.

    Raises:
        TrainingRefused: the base or the adapter is not what this engine can train with.
    """

    pads = True

    def __init__(self, job: Job, lora: Lora) -> None:
        if job.machine.quantise != "none":
            raise TrainingRefused("MLX trains on a base that lies quantised on disk: make one with `mlx_lm.convert -q`")
        self._job, self._rank, self._alpha = job, lora.rank, lora.alpha
        try:
            self._model: Any = load_model(job.base)[0]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise TrainingRefused(
                f"{job.base}: MLX cannot load it ({str(error)[:300]}); convert it with mlx_lm.convert"
            ) from error
        self._model.set_dtype(DTYPES[job.lora.precision])
        self._model.freeze()
        self.vocabulary = int(self._model.model.embed_tokens.weight.shape[0])
        try:
            self._model.update_modules(tree_unflatten(beside(self._model, lora, "the adapter")))
        except ModelError as error:
            raise TrainingRefused(str(error)) from error
        self._own = OwnRows(self._model.model.norm)
        self._own.freeze()
        self._model.model.norm = self._own
        if job.machine.gradient_checkpointing:
            _checkpoint_gradients(self._model.layers[0])
        self._optimizer: Any = optimizers.AdamW(job.lora.learning_rate, [0.9, 0.98], weight_decay=0.0, bias_correction=True)
        self._optimizer.init(self._model.trainable_parameters())
        self._paths = list(lora.layers)
        self._gradients: Any = None
        self._penalty: tuple[Arrays, Arrays, float] | None = None
        mx.eval(self._model.parameters())

    def learn(self, batches: Sequence[Sequence[Item]]) -> tuple[float, float]:
        """Sum of the batches' losses, each with its share of the own tokens (or of the pairs), and the gradient's norm."""
        whole, gradients = 0.0, None
        for batch, (share, kl_share) in zip(batches, shares(batches), strict=True):

            def total(share: float = share, kl_share: float = kl_share, batch: Sequence[Item] = batch) -> tuple[Any, Any]:
                loss, kl = self._objective(batch)
                return loss * share + (kl * (self._job.lora.kl_weight * kl_share) if kl is not None else 0.0), loss

            (_, loss), more = nn.value_and_grad(self._model, total)()
            gradients = more if gradients is None else tree_map(lambda x, y: x + y, gradients, more)
            mx.eval(loss, gradients)
            whole += loss.item() * share
        self._gradients, norm = optimizers.clip_grad_norm(gradients, self._job.lora.max_grad_norm)
        return whole, float(norm.item())

    def update(self, rate: float) -> None:
        """See `Engine`."""
        self._optimizer.learning_rate = rate
        self._optimizer.update(self._model, self._gradients)
        self._gradients = None
        if self._penalty is not None:
            fisher, anchor, weight = self._penalty
            now = self._named(self._model.trainable_parameters())
            pulled = {n: anchor[n] + (now[n] - anchor[n]) / (1 + rate * weight * fisher[n]) for n in now}
            self._model.update(self._tree(pulled))
        mx.eval(self._model.trainable_parameters(), self._optimizer.state)

    def nats(self, batch: Sequence[Example], base: bool = False) -> list[float]:
        """See `Engine`."""
        if not base:
            return [-float(value) for value in self._likelihoods(batch).tolist()]
        with self._bare():
            return [-float(value) for value in self._likelihoods(batch).tolist()]

    def squares(self, batches: Iterable[Example]) -> Tensors:
        """See `Engine`."""
        sums: Any = None
        for example in batches:
            own = sum(example.own[1:])

            def mean(example: Example = example, own: int = own) -> Any:
                return self._likelihoods([example])[0] / own

            _, gradient = nn.value_and_grad(self._model, mean)()
            square = tree_map(lambda x: x * x, gradient)
            sums = square if sums is None else tree_map(lambda x, y: x + y, sums, square)
            mx.eval(sums)
        return _tensors(self._named(sums))

    def penalise(self, fisher: Tensors, anchor: Tensors, weight: float) -> None:
        """See `Engine`."""
        self._penalty = _arrays(fisher), _arrays(anchor), weight

    def factors(self) -> Lora:
        """See `Engine`."""
        now = _tensors(self._named(self._model.trainable_parameters()))
        layers = {p: Factors(now[PREFIX + p + DOWN], now[PREFIX + p + UP]) for p in self._paths}
        return Lora(self._rank, self._alpha, layers)

    def state(self) -> Tensors:
        """See `Engine`; the optimiser's moments have `m` and `v` behind the parameter's name."""
        moments: Tensors = {"step": torch.tensor(int(self._optimizer.state["step"].item()))}
        for key in ("m", "v"):
            moments |= {f"{n}/{key}": t for n, t in _tensors(self._named(self._optimizer.state, f".{key}")).items()}
        return tensors_of(self.factors()) | moments

    def restore(self, tensors: Tensors) -> None:
        """See `Engine`."""
        arrays = _arrays({name: tensor for name, tensor in tensors.items() if name != "step"})
        self._model.update(self._tree({name: array for name, array in arrays.items() if "/" not in name}))
        state = self._tree({n.partition("/")[0]: a for n, a in arrays.items() if n.endswith("/m")}, ".m")
        other = self._tree({n.partition("/")[0]: a for n, a in arrays.items() if n.endswith("/v")}, ".v")
        whole = dict(tree_flatten(state)) | dict(tree_flatten(other))
        rest = {"step": mx.array(int(tensors["step"].item()), mx.uint64), "learning_rate": self._optimizer.learning_rate}
        self._optimizer.state = tree_unflatten(list(whole.items())) | rest
        mx.eval(self._model.trainable_parameters(), self._optimizer.state)

    def _named(self, tree: Any, behind: str = "") -> Arrays:
        """Leaves of a tree of parameters, gradients or moments by their PEFT names."""
        flat = dict(tree_flatten(tree))
        return {f"{PREFIX}{p}{end}": flat[f"{p}.{leaf}{behind}"] for leaf, end in ENDS.items() for p in self._paths}

    def _tree(self, named: Arrays, behind: str = "") -> Any:
        leaves = {f"{PREFIX}{p}{end}": f"{p}.{leaf}{behind}" for leaf, end in ENDS.items() for p in self._paths}
        return tree_unflatten([(leaves[name], array) for name, array in named.items()])

    @contextmanager
    def _bare(self) -> Iterator[None]:
        """Leave the adapter out."""
        layers = [module for _, module in self._model.named_modules() if isinstance(module, LoRALinear)]
        for layer in layers:
            layer.scale = 0.0
        try:
            yield
        finally:
            for layer in layers:
                layer.scale = self._alpha / self._rank

    def _objective(self, batch: Sequence[Item]) -> tuple[Any, Any]:
        """Mean loss of a batch, and the mean KL of its rehearsal examples where that counts."""
        pairs = [item for item in batch if isinstance(item, Preference)]
        if pairs:
            return self._preference(pairs), None
        examples = [item for item in batch if isinstance(item, Example)]
        scores, targets, at = self._scores(examples)
        loss = nn.losses.cross_entropy(scores, targets, reduction="mean")
        numbers = [number for number, example in enumerate(examples) if example.rehearsal]
        if not self._job.lora.kl_weight or not numbers:
            return loss, None
        with self._bare():
            reference = mx.stop_gradient(_log_softmax(self._scores([examples[number] for number in numbers])[0]))
        adapted = _log_softmax(scores[mx.array(np.flatnonzero(np.isin(at, numbers)))])
        return loss, (mx.exp(reference) * (reference - adapted)).sum() / len(adapted)

    def _preference(self, pairs: Sequence[Preference]) -> Any:
        """Mean of -log sigmoid(beta * (margin over the reference)) (Rafailov et al. 2023, equation 7)."""
        found = self._likelihoods([pair.chosen for pair in pairs] + [pair.rejected for pair in pairs])
        reference = mx.array([pair.reference for pair in pairs])
        margin = (found[: len(pairs)] - reference[:, 0]) - (found[len(pairs) :] - reference[:, 1])
        return -nn.log_sigmoid(self._job.lora.beta * margin).mean()

    def _likelihoods(self, examples: Sequence[Example]) -> Any:
        """Log-probability of the own tokens of each example, summed (examples,)."""
        scores, targets, at = self._scores(examples)
        logs = -nn.losses.cross_entropy(scores, targets)
        return mx.zeros(len(examples)).at[mx.array(at)].add(logs)

    def _scores(self, examples: Sequence[Example]) -> tuple[Any, Any, Any]:
        """For each own token: scores (n, V) in float32 that predict it, the token (n,), its example's number (n,)."""
        width = max(example.width for example in examples)
        ids, own = np.zeros((2, len(examples), width), np.int32)
        for row, example in enumerate(examples):
            ids[row, : len(example.ids)] = example.ids
            own[row, : len(example.own)] = example.own
        at, column = np.nonzero(own[:, 1:])
        self._own.rows = mx.array(at * (width - 1) + column)
        logits = self._model(mx.array(ids[:, :-1]))[0]
        self._own.rows = None
        return logits.astype(mx.float32), mx.array(ids[at, column + 1]), at


def _checkpoint_gradients(layer: Any) -> None:
    """mlx-lm changes the class of the layers, for the whole process: once is enough."""
    kind = type(layer)
    if not getattr(kind, "sleepy_checkpointed", False):
        grad_checkpoint(layer)
        kind.sleepy_checkpointed = True


def _log_softmax(scores: Any) -> Any:
    return scores - mx.logsumexp(scores, axis=-1, keepdims=True)


def _tensors(arrays: Arrays) -> Tensors:
    found: dict[str, Tensor] = {}
    for name, array in arrays.items():
        found[name] = torch.from_numpy(np.array(array.astype(mx.float32))).T.contiguous()
    return found


def _arrays(tensors: Tensors) -> Arrays:
    return {name: mx.array(tensor.float().numpy()).T for name, tensor in tensors.items()}


MLX = LocalTrainer("mlx", MlxEngine)
fit = MLX.fit
