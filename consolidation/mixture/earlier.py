"""What a mixture leaves for its next night, and how that goes on from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from consolidation.adapters import Adapter
from consolidation.errors import AdapterError
from consolidation.mixture.router import PARTS, Router, Routing
from consolidation.mixture.serving import is_mixture, materialise
from consolidation.strategies.mixture import Taxonomy
from consolidation.trainers.base import LoraConfig

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CENTRES = "centres.safetensors"
"""The attachment: the mean issue of every category (experts, dimensions), of length 1."""


@dataclass(frozen=True)
class Earlier:
    """The live mixture: its experts and where their issues lie."""

    folder: Path
    routing: Routing
    centres: NDArray[np.float32]

    def labels(self, skills: Sequence[str], vectors: NDArray[np.float32]) -> list[str]:
        """Its category for each issue: the skill, if there is an expert for that, else the one whose mean issue is nearest."""
        names = self.routing.categories
        nearest = (vectors @ self.centres.T).argmax(1)
        return [skill if skill in names else names[at] for skill, at in zip(skills, nearest, strict=True)]

    def expert(self, number: int, room: Path) -> Path:
        """The PEFT folder, in `room`, of one expert as it was trained."""
        quarters = tuple(PARTS if i == number else 0 for i in range(len(self.routing.ranks)))
        return materialise(self.folder, self.routing.ranks, quarters, room / f"earlier-{self.routing.categories[number]}")


def earlier_of(previous: Adapter | None, taxonomy: Taxonomy, lora: LoraConfig, dimensions: int) -> Earlier | None:
    """The live adapter as the mixture to go on from; None where it is none, of another taxonomy, or of another recipe.

    Raises:
        AdapterError: it is damaged.
    """
    if previous is None or not is_mixture(previous.folder) or (path := previous.attachment(CENTRES)) is None:
        return None
    routing, made = Router.load(previous.folder).routing, previous.manifest
    alpha = lora.alpha * lora.serving_scale / len(routing.ranks)
    same = (routing.taxonomy, made.rank, set(made.targets)) == (taxonomy, lora.rank, set(lora.targets))
    if not same or not math.isclose(made.alpha, alpha, rel_tol=1e-9):
        return None
    centres = read_centres(path)
    return Earlier(previous.folder, routing, centres) if centres.shape == (len(routing.ranks), dimensions) else None


def centres_of(labels: Sequence[str], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean vector of each category, in alphabetical order, of length 1."""
    import numpy as np

    means = np.stack([vectors[[label == name for label in labels]].mean(0) for name in sorted(set(labels))])
    centres: NDArray[np.float32] = means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    return centres.astype(np.float32)


def write_centres(path: Path, centres: NDArray[np.float32]) -> None:
    """Write them as the attachment."""
    from safetensors.numpy import save_file

    save_file({"centres": centres}, path)


def read_centres(path: Path) -> NDArray[np.float32]:
    """Read what `write_centres` wrote.

    Raises:
        AdapterError: it is damaged.
    """
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        found: NDArray[np.float32] = load_file(path)["centres"]
        if found.ndim != 2 or found.dtype != np.float32 or not np.isfinite(found).all():
            raise ValueError("they are no matrix of finite numbers")
    except (OSError, SafetensorError, ValueError, TypeError, KeyError) as error:
        raise AdapterError(f"{path}: no readable centres ({str(error)[:200]}); begin again with goes_on = false") from error
    return found
