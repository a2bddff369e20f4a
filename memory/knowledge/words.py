"""The words that a memory is found by literally: identifiers, names of errors, paths, and what they are made of."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

LONGEST_TEXT = 20_000
LONGEST_WORD = 60
_TOKEN = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*", re.UNICODE)
_PARTS = re.compile(r"[^\W_]+", re.UNICODE)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
STOPWORDS = frozenset(
    "a an and are as at be been but by can could do does for from had has have how i if in into is it its just like may me "
    "more my no not of on one only or other our out should so some such than that the their them then there these they "
    "this to up us use used uses using was we were what when where which while who why will with would you your "
    "def self return import none true false class".split()
)


K1, B = 1.2, 0.75
"""How soon a word that is said again stops counting, and how much long texts are held back."""


def bm25(said: Sequence[str], weights: Mapping[str, float], usual: float) -> float:
    """How well a text fits weighted words: Okapi BM25 (Robertson and Zaragoza, FTIR 2009).

    `usual` is how many words a text has on average.
    """
    times: dict[str, int] = {}
    for word in said:
        if word in weights:
            times[word] = times.get(word, 0) + 1
    short = K1 * (1 - B + B * len(said) / usual) if usual else K1
    return sum(weights[word] * count * (K1 + 1) / (count + short) for word, count in times.items())


def words(text: str) -> list[str]:
    """Lower-case words of a text, in order: dotted and snake_case names whole and in their parts, common words left out."""
    return [word for name in _TOKEN.findall(text[:LONGEST_TEXT]) for word in _of(name)]


@lru_cache(maxsize=20_000)
def _of(name: str) -> tuple[str, ...]:
    parts = [part for piece in _PARTS.findall(name) for part in _CAMEL.split(piece)]
    whole = [piece for piece in (name, *name.split(".")) if len(parts) > 1]
    lows = (word.lower() for word in dict.fromkeys((*whole, *parts)))
    return tuple(low for low in lows if 1 < len(low) <= LONGEST_WORD and low not in STOPWORDS)
