"""The embedder of sentence-transformers."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from memory.errors import KnowledgeError
from memory.knowledge.words import LONGEST_TEXT

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH = 32
REMEMBERED = 4096
"""Texts whose vectors are kept; with 384 dimensions they take 6 MB."""


class SentenceEmbedder:
    """A sentence-transformers model by name or folder, on the CPU. Recent texts are not embedded twice.

    Raises `KnowledgeError` if it cannot be loaded. Unless `download` is off, a model that is not here is fetched.
    """

    floor = 0.3

    def __init__(self, model: str, *, download: bool = True) -> None:
        try:
            self._model = _loaded(model, download=download)
            self.dimensions = int(self._model.get_embedding_dimension())
        except Exception as error:  # the library lets through whatever its parts raise for a folder's content
            raise KnowledgeError(
                f"the sentence-transformers model {model} cannot be loaded ({error}); "
                "name one that is on this machine or can be downloaded, or set `knowledge.embedder` to hashing"
            ) from error
        self.name = f"sentence:{Path(model).name}@{_fingerprint(self._model)}"
        self._recent: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._lock = Lock()

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of shape (texts, dimensions) and length 1. What is beyond the model's window does not count."""
        clean = [text[:LONGEST_TEXT].encode(errors="replace").decode() for text in texts]
        with self._lock:
            vectors = {text: self._recent[text] for text in clean if text in self._recent}
            if fresh := [text for text in dict.fromkeys(clean) if text not in vectors]:
                made = self._model.encode(
                    fresh, batch_size=BATCH, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
                )
                vectors.update(zip(fresh, np.asarray(made, np.float32), strict=True))
            for text in clean:
                self._recent[text] = vectors[text]
                self._recent.move_to_end(text)
            while len(self._recent) > REMEMBERED:
                self._recent.popitem(last=False)
        return np.array([vectors[text] for text in clean], np.float32).reshape(len(clean), self.dimensions)


def _loaded(model: str, *, download: bool) -> Any:
    """The model from this machine if it is there, by its folder: by its name, the library would still ask the hub."""
    from huggingface_hub import try_to_load_from_cache
    from sentence_transformers import SentenceTransformer

    if Path(model).is_dir():
        return SentenceTransformer(model, device="cpu", local_files_only=True)
    kept = try_to_load_from_cache(model, "modules.json")
    if isinstance(kept, str):
        with suppress(OSError) if download else nullcontext():
            return SentenceTransformer(str(Path(kept).parent), device="cpu", local_files_only=True)
    return SentenceTransformer(model, device="cpu", local_files_only=not download)


def _fingerprint(model: Any) -> str:
    """Hash of a model's weights, vocabulary and settings; where it lies and what saved it do not matter."""
    digest = hashlib.sha256(repr(model).encode())
    settings = getattr(getattr(model[0], "auto_model", None), "config", None)
    if settings is not None:
        told = {key: value for key, value in settings.to_dict().items() if key not in ("_name_or_path", "transformers_version")}
        digest.update(json.dumps(told, sort_keys=True, default=str).encode())
    tokenizer = getattr(model.tokenizer, "backend_tokenizer", None)
    digest.update(tokenizer.to_str().encode() if tokenizer is not None else repr(model.tokenizer).encode())
    for key, weights in sorted(model.state_dict().items()):
        digest.update(key.encode() + weights.contiguous().cpu().float().numpy().tobytes())
    return digest.hexdigest()[:16]
