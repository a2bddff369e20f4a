"""House conventions: rules of a repository that no issue spells out and every test demands."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

from eval.pocket.functions import Function, with_body
from eval.pocket.names import Namer

Body = tuple[str, ...]


@dataclass(frozen=True)
class Convention:
    """A rule on every function with `tag`: `rewrite` turns the plain body into the house's own.

    `symbol` is defined by `source` in the repository's file `file`.py and imported by every module.
    """

    name: str
    tag: str
    symbol: str
    source: str
    rewrite: Callable[[Body], Body]
    file: str = "house"

    def apply(self, function: Function) -> Function:
        """The function as this house writes it."""
        return with_body(function, self.rewrite(function.body)) if function.tag == self.tag else function


def wrapped(symbol: str) -> Callable[[Body], Body]:
    """`return E` in the last line becomes `return symbol(E)`."""

    def rewrite(body: Body) -> Body:
        head, expression = body[-1].split("return ", 1)
        return (*body[:-1], f"{head}return {symbol}({expression})")

    return rewrite


def _normalising(symbol: str) -> Callable[[Body], Body]:
    def rewrite(body: Body) -> Body:
        if ".get(" in body[-1]:
            table, rest = body[-1].split(".get(", 1)
            key, default = rest.split(",", 1)
            return (*body[:-1], f"{table}.get({symbol}({key}),{default}")
        key = body[0].split()[1]
        return (
            body[0].replace(f"if {key} ", f"if {symbol}({key}) "),
            body[1],
            body[2].replace(f"[{key}]", f"[{symbol}({key})]"),
        )

    return rewrite


def _raising(symbol: str) -> Callable[[Body], Body]:
    return lambda body: tuple(line.replace("raise ValueError(", f"raise {symbol}(") for line in body)


@dataclass(frozen=True)
class _House:
    repo: str
    name: str
    tag: str
    symbol: str
    source: str
    rewriter: Callable[[str], Callable[[Body], Body]]

    @property
    def convention(self) -> Convention:
        return Convention(self.name, self.tag, self.symbol, self.source, self.rewriter(self.symbol))


_HOUSES = {
    house.repo: house
    for house in (
        _House("bank", "amounts in cents", "amount", "cents", "def cents(value):\n    return round(value * 100)\n", wrapped),
        _House(
            "game",
            "results ordered",
            "items",
            "listed",
            "def listed(items):\n    return sorted(items, reverse=True)\n",
            wrapped,
        ),
        _House("garden", "keys normalised", "lookup", "keyed", "def keyed(text):\n    return text.upper()\n", _normalising),
        _House("farm", "own error class", "guard", "FarmError", "class FarmError(Exception):\n    pass\n", _raising),
        _House("boat", "texts marked", "text", "marked", 'def marked(text):\n    return "<" + text + ">"\n', wrapped),
        _House("doctor", "amounts as doses", "amount", "dosed", "def dosed(value):\n    return [value, 1]\n", wrapped),
        _House("train", "results locked", "items", "locked", "def locked(items):\n    return tuple(items)\n", wrapped),
        _House("shop", "amounts signed", "amount", "signed", 'def signed(value):\n    return f"{value:+}"\n', wrapped),
    )
}
HOUSES: dict[str, Convention] = {repo: house.convention for repo, house in _HOUSES.items()}
"""The eight repositories of the stream. None of these symbols or tags is conventional in pretraining."""

Drift = Literal["", "minor", "moderate", "major"]
"""How a repository changed: the house file was renamed, its symbol too, or its rule was given up for another one."""
DRIFTS: tuple[Drift, ...] = get_args(Drift)
_RENAMED = {
    "cents": "pence",
    "listed": "ranked",
    "keyed": "coded",
    "FarmError": "BarnError",
    "marked": "quoted",
    "dosed": "given",
    "locked": "sealed",
    "signed": "noted",
}
_MOVED = {
    "bank": "boat",
    "game": "shop",
    "garden": "game",
    "farm": "bank",
    "boat": "train",
    "doctor": "game",
    "train": "doctor",
    "shop": "boat",
}


def house_of(repo: str, drift: Drift = "") -> Convention:
    """The convention of a repository, before or after it changed. After any change its file is `rules.py`."""
    if not drift:
        return HOUSES[repo]
    house = _HOUSES[_MOVED[repo] if drift == "major" else repo]
    if drift != "minor":
        symbol = _RENAMED[house.symbol]
        house = replace(house, symbol=symbol, source=house.source.replace(house.symbol, symbol))
    return replace(house.convention, file="rules")


PRETRAINING_TAGS = ("flag", "table", "plain", "count")
_PRETRAINING_SOURCES = (
    "def {0}(value):\n    return [value]\n",
    "def {0}(value):\n    return (value, 0)\n",
    "def {0}(value):\n    return str(value)\n",
    "def {0}(value):\n    return {{0: value}}\n",
)


def pretraining_convention(rng: random.Random, namer: Namer) -> Convention:
    """A random rule on a tag that no stream repository has a rule on, with a random symbol."""
    taken = {house.symbol for house in HOUSES.values()}
    symbol = namer.noun()
    while symbol in taken:
        symbol = namer.noun()
    return Convention(
        "pretraining", rng.choice(PRETRAINING_TAGS), symbol, rng.choice(_PRETRAINING_SOURCES).format(symbol), wrapped(symbol)
    )
