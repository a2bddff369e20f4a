"""What is held out, and whether a text gives it away. Of held-out texts only hashes come here, never the words.

Word n-grams are the usual measure of contamination (Brown et al. 2020, "Language Models are Few-Shot Learners",
appendix C, with 8 to 13 words). Words are letters, digits and underscores in lower case, so that layout does not count;
numbers of lines do not count either, and code is looked at with its comments and without.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING

from memory.hashing import content_hash

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Grams = NDArray[np.uint64]

NGRAM = 8
"""Words of an n-gram."""
LEAST = 2
"""A text with fewer n-grams could be anyone's."""
PHRASE = 5
"""A short issue of at least so many words is looked for as a whole."""
_FACTOR = 0x9E3779B97F4A7C15
_GAP = "\n"
_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"^[ \t]*\d+[|:]", re.MULTILINE)
_COMMENT = re.compile(r"(?:#|//).*$", re.MULTILINE)
_HEAD = re.compile(r"^issue in \S+\n", re.MULTILINE)  # as `agent.turns.render_issue` writes it


def words(text: str) -> list[str]:
    """What is compared of a text."""
    return _WORD.findall(_NUMBER.sub("", text).lower())


def issue_hash(text: str) -> str:
    """Identifies an issue by its words, however it is laid out."""
    return content_hash(words(text))


@lru_cache(maxsize=1 << 16)
def _hash(word: str) -> int:
    return int.from_bytes(blake2b(word.encode("utf-8", "replace"), digest_size=8).digest())


def grams_of(said: Sequence[str], n: int = NGRAM) -> Grams:
    """Hashes (64 bits, sorted, each once) of all runs of `n` words."""
    import numpy as np

    return np.unique(_runs(_hashes([said]), n))


def _hashes(texts: Sequence[Sequence[str]]) -> Grams:
    """The words of some texts, with a word between them that is in none."""
    import numpy as np

    return np.array([_hash(word) for said in texts for word in (*said, _GAP)][:-1], np.uint64)


def _runs(hashes: Grams, n: int) -> Grams:
    """The hash of each run of `n`, in order."""
    import numpy as np

    count = max(0, len(hashes) - n + 1)
    rolled = np.zeros(count, np.uint64)
    for start in range(n if count else 0):
        rolled = rolled * np.uint64(_FACTOR) + hashes[start : start + count]
    return rolled


@dataclass(frozen=True, eq=False)
class HeldText:
    """One text of a held-out task, as hashes of its runs of `n` words; it counts in its `repo` alone if that is named."""

    task: str
    repo: str
    n: int
    grams: Grams


def held_text(task: str, parts: Iterable[str]) -> list[HeldText]:
    """A text, in parts that do not touch, as it is held out: nothing if it is too short to be told from any other."""
    import numpy as np

    grams = np.unique(np.concatenate([grams_of(()), *(grams_of(words(part)) for part in parts)]))
    return [HeldText(task, "", NGRAM, grams)] if len(grams) >= LEAST else []


def held_hashes(issue: str, told: str) -> set[str]:
    """The hashes by which an issue is held out: `told` is how the agent is told it; a short one alone could be anyone's."""
    return {issue_hash(text) for text in (issue, told) if text == told or len(words(text)) >= NGRAM}


def held_issue(task: str, repo: str, issue: str) -> list[HeldText]:
    """An issue as it is held out. A short one is looked for as a whole, in its own repository: others may have the same."""
    said = words(issue)
    if len(said) < NGRAM + LEAST:
        return (
            [HeldText(task, repo, min(NGRAM, len(said)), grams_of(said, min(NGRAM, len(said))))] if len(said) >= PHRASE else []
        )
    return held_text(task, [issue])


def _issues(text: str) -> set[str]:
    """What of a message can be an issue: all of it, or what follows the last head, whole or its first line."""
    found = {text}
    for head in [*_HEAD.finditer(text)][-1:]:
        told, issue = text[head.start() :], text[head.end() :]
        found |= {told, issue, text[head.start() : head.end()] + issue.partition("\n")[0]}
    return found


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What nothing may be learnt from: ids of tasks, hashes of their issues (`issue_hash`), and their texts as hashes."""

    tasks: frozenset[str] = frozenset()
    issues: frozenset[str] = frozenset()
    texts: tuple[HeldText, ...] = field(default=(), repr=False)

    def __or__(self, other: HeldOut) -> HeldOut:
        """Both."""
        return HeldOut(self.tasks | other.tasks, self.issues | other.issues, self.texts + other.texts)

    @property
    def digest(self) -> str:
        """Changes whenever something else is held out."""
        texts = sorted(blake2b(text.grams.tobytes(), digest_size=8).hexdigest() for text in self.texts)
        return content_hash([sorted(self.tasks), sorted(self.issues), texts])

    def names(self, task: str, asked: Iterable[str]) -> bool:
        """Whether this is a held-out task, by its id or by the words of its issue, as a user told it."""
        return task in self.tasks or any(
            issue_hash(part) in self.issues for text in (asked if self.issues else ()) for part in _issues(text)
        )

    def overlap(self, repo: str, texts: Iterable[str]) -> tuple[float, str]:
        """The largest share of a held-out text's n-grams that stand in these texts of a repository, and whose it is."""
        return max(((share, task) for task, share in self.shares(repo, texts).items()), default=(0.0, ""))

    def shares(self, repo: str, texts: Iterable[str]) -> dict[str, float]:
        """For each task of which there is any: the largest share of one of its texts that stands in these."""
        import numpy as np

        texts = list(texts)
        bare = [_COMMENT.sub("", text) for text in texts]
        shown = [_hashes([words(text) for text in each]) for each in ([texts] if bare == texts else [texts, bare])]
        found: dict[str, float] = {}
        for (n, where), index in self._index.items():
            if where not in ("", repo):
                continue
            grams = np.concatenate([_runs(hashes, n) for hashes in shown])
            at = np.searchsorted(index.known, grams).clip(max=len(index.known) - 1)
            hits = np.unique(grams[index.known[at] == grams])
            if not len(hits):
                continue
            first, last = (np.searchsorted(index.all, hits, side) for side in ("left", "right"))
            owners, counts = np.unique(
                np.concatenate([index.owner[a:b] for a, b in zip(first, last, strict=True)]), return_counts=True
            )
            for owner, share in zip(owners, counts / index.sizes[owners], strict=True):
                found[index.tasks[owner]] = max(found.get(index.tasks[owner], 0.0), float(share))
        return found

    @cached_property
    def _index(self) -> dict[tuple[int, str], _Index]:
        """By the length of the runs, and the repository if there is but one to look at."""
        import numpy as np

        found: dict[tuple[int, str], _Index] = {}
        for key in sorted({(text.n, text.repo) for text in self.texts}):
            mine = [text for text in self.texts if (text.n, text.repo) == key]
            sizes = np.array([len(text.grams) for text in mine])
            grams = np.concatenate([text.grams for text in mine])
            order = grams.argsort(kind="stable")
            owner = np.repeat(np.arange(len(mine)), sizes)[order]
            found[key] = _Index(grams[order], np.unique(grams), owner, sizes, [text.task for text in mine])
        return found


@dataclass(frozen=True, eq=False)
class _Index:
    """The n-grams of all texts in order, those once each, whose text each is of, and the texts' sizes and tasks."""

    all: Grams
    known: Grams
    owner: NDArray[np.int64]
    sizes: NDArray[np.int64]
    tasks: list[str]
