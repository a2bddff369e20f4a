"""The router of a mixture: a small network from the embedding of an issue to who answers it, an expert or the bare base."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from consolidation.adapters import ROUTER
from consolidation.errors import AdapterError
from consolidation.layouts import look_over, read_json
from consolidation.strategies.mixture import Taxonomy

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_BYTES = 16 << 20
PARTS: Literal[4] = 4
"""Weights are whole quarters, so that finitely many mixtures are served."""
SLACK = 0.9
NONE = -1
"""The label of an issue that the bare base answers."""
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]


class Routing(BaseModel):
    """What `router.json` says: the experts by category, their ranks in the order of the adapter's, and how they are mixed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    taxonomy: Taxonomy
    categories: tuple[Name, ...] = Field(min_length=1, max_length=5)
    ranks: tuple[Annotated[int, Field(ge=1, le=4096)], ...]
    top_k: int = Field(ge=1, le=3)
    floor: float = Field(ge=0, lt=1, allow_inf_nan=False)
    parts: Literal[4] = PARTS
    """Weights are multiples of 1 / parts."""
    embedder: str = Field(min_length=1, max_length=200)
    dimensions: int = Field(ge=1, le=8192)
    hidden: int = Field(ge=1, le=1024)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.ranks) != len(self.categories) or len(set(self.categories)) != len(self.categories):
            raise ValueError("each expert has one category of its own, and one rank")
        return self

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The tensors: the network's, the mean issue of each category, and the similarity to one of them that is asked for."""
        classes = len(self.categories) + 1
        return {
            "hidden.weight": (self.dimensions, self.hidden),
            "hidden.bias": (self.hidden,),
            "out.weight": (self.hidden, classes),
            "out.bias": (classes,),
            "centres": (classes - 1, self.dimensions),
            "reach": (1,),
        }


@dataclass(frozen=True)
class Router:
    """A trained router. The last class of the network stands for the bare base.

    A network is sure also of what is like nothing it was trained on. So an issue is in reach of the experts only where its
    cosine similarity to the mean issue of some category is at least `SLACK` times the least of any issue they were trained on.
    """

    routing: Routing
    tensors: dict[str, NDArray[np.float32]]

    @cached_property
    def _exact(self) -> dict[str, NDArray[np.float64]]:
        return {name: tensor.astype(np.float64) for name, tensor in self.tensors.items()}

    def in_reach(self, vector: NDArray[np.float32]) -> bool:
        """Whether an issue is like those that some expert was trained on."""
        return bool((self._exact["centres"] @ vector.astype(np.float64)).max() >= self._exact["reach"][0])

    def odds(self, vector: NDArray[np.float32]) -> NDArray[np.float64]:
        """Probabilities (experts + 1) for the embedding (dimensions) of one issue: one at a time, so that no other issue
        can change it by rounding."""
        w = self._exact
        hidden = np.maximum(vector.astype(np.float64) @ w["hidden.weight"] + w["hidden.bias"], 0)
        scores = hidden @ w["out.weight"] + w["out.bias"]
        raised = np.exp(scores - scores.max())
        odds: NDArray[np.float64] = raised / raised.sum()
        return odds

    def quarters(self, vector: NDArray[np.float32]) -> tuple[int, ...] | None:
        """The experts' weights for one issue, in quarters that add up to 4; None for the bare base.

        They are the probabilities of the `top_k` likeliest experts, renormalised and rounded (largest remainder). The base
        answers what is out of reach, where it is likelier than every expert, or where those together are less likely than
        `floor`.
        """
        if not self.in_reach(vector):
            return None
        *odds, base = self.odds(vector).tolist()
        best = sorted(range(len(odds)), key=lambda i: (-odds[i], i))[: self.routing.top_k]
        sure = sum(odds[i] for i in best)
        if base >= odds[best[0]] or sure < self.routing.floor:
            return None
        exact = [odds[i] / sure * PARTS if i in best else 0.0 for i in range(len(odds))]
        rounded = [int(share) for share in exact]
        rest = sorted(best, key=lambda i: (rounded[i] - exact[i], i))
        for i in rest[: PARTS - sum(rounded)]:
            rounded[i] += 1
        return tuple(rounded)

    def choice(self, vector: NDArray[np.float32]) -> int:
        """The likeliest expert for one issue, or `NONE`."""
        found = int(np.argmax(self.odds(vector)))
        return found if found < len(self.routing.categories) and self.in_reach(vector) else NONE

    def save(self, folder: Path) -> None:
        """Write both files; the same router gives the same bytes."""
        text = json.dumps(self.routing.model_dump(mode="json"), indent=2, sort_keys=True)
        (folder / ROUTER[0]).write_text(text, encoding="utf-8")
        save_file(self.tensors, folder / ROUTER[1])

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read and check both files of an artefact.

        Raises:
            AdapterError: they are missing, damaged, or no router.
        """
        for name in ROUTER:
            if (folder / name).is_symlink():
                raise AdapterError(f"{folder / name} is a link; copy the file itself there")
        path = folder / ROUTER[1]
        try:
            routing = Routing.model_validate(read_json(folder / ROUTER[0]))
            look_over(path, MAX_BYTES)
            tensors = load_file(path)
            found = {name: tensor.shape for name, tensor in tensors.items()}
            if found != routing.shapes or any(t.dtype != np.float32 for t in tensors.values()):
                raise ValueError(f"its tensors are {str(found)[:200]}, not {routing.shapes} in float32")
            if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
                raise ValueError("its weights are not finite")
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))[:100]
            raise AdapterError(f"{folder / ROUTER[0]}: no router ({where}: {first['msg'][:200]}); roll back") from error
        except (OSError, SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise AdapterError(f"{path}: no readable router ({str(error)[:300]}); roll back") from error
        return cls(routing, tensors)


def fit_router(
    routing: Routing, vectors: NDArray[np.float32], labels: Sequence[int], seed: int, steps: int, learning_rate: float
) -> Router:
    """Train a router on embeddings (n, dimensions) and the numbers of their experts (`NONE` for the base).

    Full-batch Adam on the cross-entropy, in which every class that occurs weighs the same; weight decay 1e-4.
    """
    import torch

    draw = torch.Generator().manual_seed(seed)
    x = torch.from_numpy(vectors.astype(np.float32))
    y = torch.tensor([label % (len(routing.categories) + 1) for label in labels])
    weights: dict[str, torch.Tensor] = {}
    for name, shape in routing.shapes.items():
        if name in ("centres", "reach"):
            continue
        size = (2 / shape[0]) ** 0.5 if len(shape) == 2 else 0.0
        weights[name] = (torch.randn(shape, generator=draw) * size).requires_grad_()
    counts = torch.bincount(y, minlength=len(routing.categories) + 1).float()
    balance = torch.where(counts > 0, len(y) / counts.clamp(min=1), 0.0)
    adam = torch.optim.Adam(list(weights.values()), lr=learning_rate, weight_decay=1e-4)
    for _ in range(steps):
        adam.zero_grad()
        hidden = torch.relu(x @ weights["hidden.weight"] + weights["hidden.bias"])
        scores = hidden @ weights["out.weight"] + weights["out.bias"]
        loss = torch.nn.functional.cross_entropy(scores, y, weight=balance)
        loss.backward()
        adam.step()
    return Router(
        routing, {name: tensor.detach().numpy() for name, tensor in weights.items()} | _reach(routing, vectors, labels)
    )


def _reach(routing: Routing, vectors: NDArray[np.float32], labels: Sequence[int]) -> dict[str, NDArray[np.float32]]:
    of, centres = np.array(labels), np.zeros(routing.shapes["centres"], np.float32)
    for number in set(labels) - {NONE}:
        mean = vectors[of == number].mean(0)
        centres[number] = mean / max(float(np.linalg.norm(mean)), 1e-12)
    least = (vectors[of != NONE] @ centres.T).max(1).min()
    return {"centres": centres, "reach": np.array([SLACK * least], np.float32)}
