"""Rehearsal: episodes of pretraining that a night mixes in, so that an adapter learns a house without forgetting the rest.

They come from the generator that made the base model's own training data (replay of pretraining data
against forgetting: Ibrahim et al. 2024, "Simple and Scalable Strategies to Continually Pre-train
Large Language Models", section 4), from the pretraining split, and show no house convention.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from consolidation.pairs import Pair
from eval.pocket.episodes import EpisodeMaker
from memory.hashing import content_hash


def rehearsal_pairs(repo: str, count: int, seed: int) -> list[Pair]:
    """`count` episodes for the adapter of `repo`; other repositories rehearse other ones."""
    with tempfile.TemporaryDirectory(prefix="rehearsal-") as name:
        maker = EpisodeMaker(seed, Path(name).resolve() / "repo")
        first = int(content_hash(["rehearsal", repo]), 16) % 2**40
        return [_pair(repo, maker, first + number) for number in range(count)]


def _pair(repo: str, maker: EpisodeMaker, index: int) -> Pair:
    episode = maker.episode(index)
    turns = [number for number, message in enumerate(episode.messages) if message.role == "assistant"]
    return Pair(
        task_id=f"rehearsal-{maker.seed}-{index}",
        repo=repo,
        trajectory_id=f"rehearsal-{maker.seed}-{index}",
        source="rehearsal",
        messages=tuple((message.role, message.content) for message in episode.messages),
        untaught=tuple(turns.index(number) for number in sorted(episode.mistakes)),
    )
