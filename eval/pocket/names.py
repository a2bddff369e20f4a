"""Identifiers of the pocket world.

Every function name belongs to exactly one *split* (pretraining, stream, held out), decided by a
hash of the name, so that the three can never share a function.
"""

from __future__ import annotations

import builtins
import hashlib
import keyword
import random
from enum import StrEnum

NOUNS = """
order item price stock user score point block file ticket parcel book page song film tree leaf garden river road lamp
cell battery sensor signal frame pixel image color shape box crate shelf room floor cottage farm field crop seed cow
horse bird fish boat ship train wagon plane wheel engine motor pump valve pipe tank gear bolt plate sheet wire cable
node edge graph path step round game team player match goal card deck coin bill tax fee wage loan bank vault door gate
wall brick stone sand metal glass paper pen note word letter token query row column record entry event alarm timer
clock day week month hour minute guest meal dish fruit apple lemon bread cake salt sugar spice drink water juice milk
patient doctor drug dose visit claim policy asset share trade quote market shop cart basket refund lesson grade exam
student teacher
""".split()
VERBS = """
get find calc make build load read fetch compute derive take give show pull gather collect
""".split()
COLLECTIONS = """
values data rows nums units amounts levels marks sizes weights counts parts batch group queue
""".split()
ELEMENTS = ["x", "v", "n", "item", "val", "cur", "part", "unit", "one", "e", "w", "it"]
ACCUMULATORS = ["total", "acc", "result", "res", "out", "sum_up", "tally", "answer", "final", "agg"]
LIMITS = ["limit", "bound", "cap", "low", "high", "cut", "base", "target", "mark", "floor"]
SCALARS = """
a b c p q left right first second width height qty rate size amount factor start span speed
""".split()
KEYS = ["key", "name", "code", "tag", "label", "id"]
TABLES = ["table", "index", "lookup", "store", "book", "register"]
_ONSETS = ["b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "st", "dr", "pl"]
_VOWELS = "aeiou"
_TAKEN = {*NOUNS, *VERBS, *COLLECTIONS, *ELEMENTS, *ACCUMULATORS, *LIMITS, *SCALARS, *KEYS, *TABLES}


class Split(StrEnum):
    """Which part of the world a function name belongs to."""

    PRETRAIN = "pretrain"
    STREAM = "stream"
    HELD_OUT = "held_out"


def split_of(name: str) -> Split:
    """The split of a function name: 60 % pretraining, 20 % stream, 20 % held out."""
    value = hashlib.sha256(name.encode()).digest()[0] % 10
    return Split.PRETRAIN if value < 6 else Split.STREAM if value < 8 else Split.HELD_OUT


def invented(rng: random.Random) -> str:
    """A word that no list contains: two or three syllables, or the head of one noun with the tail of another.

    The second kind puts the tokenizer's pieces in orders that no list has, as unknown real words do.
    """
    while True:
        if rng.random() < 0.5:
            word = "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(rng.choice((2, 2, 3))))
        else:
            head, tail = rng.choice(NOUNS), rng.choice(NOUNS)
            word = head[: rng.randint(2, 4)] + tail[-rng.randint(2, 4) :]
        if word not in _TAKEN and not word.endswith("ed") and not keyword.iskeyword(word) and not hasattr(builtins, word):
            return word


class Namer:
    """Draws identifiers for one module; a share of them is invented, so that copying is learnt."""

    def __init__(self, rng: random.Random, split: Split, invented_share: float) -> None:
        self.rng = rng
        self.split = split
        self.share = invented_share
        self._functions: set[str] = set()

    def noun(self) -> str:
        """A word of the list, or an invented one."""
        return invented(self.rng) if self.rng.random() < self.share else self.rng.choice(NOUNS)

    def function(self, *hints: str) -> str:
        """A fresh function name of this split, two words joined by an underscore."""
        while True:
            heads = hints if hints and self.rng.random() < 0.5 else VERBS if self.rng.random() < 0.5 else None
            head = self.rng.choice(heads) if heads else self.noun()
            name = f"{head}_{self.noun()}"
            if split_of(name) is self.split and name not in self._functions:
                self._functions.add(name)
                return name

    def local(self, pool: list[str], *taken: str) -> str:
        """A parameter or variable name that differs from `taken`."""
        while True:
            name = invented(self.rng) if self.rng.random() < self.share / 2 else self.rng.choice(pool)
            if name not in taken:
                return name
