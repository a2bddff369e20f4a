"""The `[knowledge]` settings."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class KnowledgeConfig(BaseModel):
    """What is remembered of past attempts, and what of it is recalled for a task."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    url: str = ""
    """A Chroma server, such as http://127.0.0.1:8000; empty for the embedded one in the state directory."""
    embedder: str = Field(default="auto", pattern=r"^(auto|hashing|sentence:.+)$")
    """`hashing` (built in, needs nothing), `sentence:NAME_OR_FOLDER` (a sentence-transformers model), or `auto`."""
    space: str = ""
    """A name that keeps this knowledge apart from that of the same arm and stream; for experiments."""
    most: int = Field(default=3, ge=0, le=20)
    """Memories shown for one task at most."""
    tokens: int = Field(default=1200, ge=0)
    """Room for them and for the handbook in the prompt, at four characters a token."""
    floor: float = Field(default=-1.0, ge=-1, le=1)
    """Cosine similarity below which nothing is recalled unless its words fit; below 0 the embedder's own."""
    words_floor: float = Field(default=0.1, ge=0, le=1)
    """Share of the query's rare words, weighted by rarity, that a memory must have to be recalled for its words alone."""
    diversity: float = Field(default=0.1, ge=0, le=1)
    """How much a memory that says the same as a better one is held back: 0 not at all, 1 for nothing else."""
    merged_fixes: bool = True
    """Also remember what upstream merged for tasks that are over and were not resolved. Named in every memory."""
    distiller: Literal["offline", "model"] = "offline"
    """Who writes memories: `offline` (rules, no model), or `model` (the served model adds to them; costs time)."""
    handbook_tokens: int = Field(default=300, ge=0)
    """Length of a repository's handbook."""
    fade_after: int = Field(default=6, ge=1)
    """A memory recalled for so many attempts of which none was resolved fades: it is kept, and no longer recalled."""
