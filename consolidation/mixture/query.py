"""What a router reads: the issue, and the repository it is of."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from consolidation.pairs import Pair

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ISSUE = re.compile(r"^issue in ([^\n]*)\n", re.MULTILINE)


class Query(NamedTuple):
    """A repository and the text of an issue."""

    repo: str
    issue: str


def query_in(pair: Pair) -> Query:
    """The issue that a pair is about, as the agent was told it, without what was recalled; the whole first message where there
    is no issue in it."""
    text = next((text for role, text in pair.messages if role == "user"), "")
    found = _ISSUE.search(text)
    return Query(found[1], text[found.end() :]) if found else Query(pair.repo, text)


def vectors_of(queries: Sequence[Query], embed: Callable[[Sequence[str]], NDArray[np.float32]]) -> NDArray[np.float32]:
    """Vectors (queries, dimensions) of length 1: the sums of the embeddings of repository and issue.

    Both weigh the same: in one text the name of the repository is lost among the words of a long issue.
    """
    import numpy as np

    sums = embed([query.repo for query in queries]) + embed([query.issue for query in queries])
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    vectors: NDArray[np.float32] = (sums / np.maximum(lengths, 1e-12)).astype(np.float32)
    return vectors
