"""Values as JSON and back: plain data, some of the standard library's, exceptions by name, numbers for all else."""

from __future__ import annotations

import builtins
import sys

from .strangers import Stranger

TYPE_CHECKING = False  # `typing` costs a quarter of the start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .peer import Peer

DEEPEST = 60
_PLAIN = (type(None), bool, int, float, str)
_CONTAINERS = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
_VALUES: dict[str, Callable[[Any], list[Any]]] = {  # standard values by their constructor's arguments
    "decimal.Decimal": lambda v: [str(v)],
    "fractions.Fraction": lambda v: [v.numerator, v.denominator],
    "datetime.date": lambda v: [v.year, v.month, v.day],
    "datetime.timedelta": lambda v: [v.days, v.seconds, v.microseconds],
    "datetime.datetime": lambda v: [v.isoformat()],
    "pathlib.PosixPath": lambda v: [str(v)],
    "builtins.complex": lambda v: [v.real, v.imag],
    "builtins.range": lambda v: [v.start, v.stop, v.step],
}
_BASES: dict[type, Callable[[Any], Any]] = {  # what a value of a subclass is without what the subclass says about it
    int: lambda v: int.__add__(v, 0),
    float: lambda v: float.__add__(v, 0.0),
    str: lambda v: str.__str__(v),
    tuple: lambda v: tuple(tuple.__iter__(v)),
    list: lambda v: list(list.__iter__(v)),
    dict: lambda v: dict(dict.items(v)),
}


class Values:
    """Takes one end's values apart and puts the other's together; remembers what was only numbered."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.mine: dict[int, Any] = {}
        self.theirs: dict[int, Stranger] = {}
        self.errors: dict[int, type[BaseException]] = {}

    def packed(self, value: Any, depth: int = 0) -> Any:
        """A value as JSON: `[tag, ...]` for all that JSON has no word for."""
        kind = type(value)
        if kind in _PLAIN:
            return value
        if depth > DEEPEST:
            raise RecursionError("too deep to be handed over")
        if kind.__name__ in _CONTAINERS and kind is _CONTAINERS[kind.__name__]:
            items = [self.packed(v, depth + 1) for v in value]
            return [kind.__name__, sorted(items, key=repr) if kind in (set, frozenset) else items]
        if kind is dict:
            return ["dict", [[self.packed(k, depth + 1), self.packed(v, depth + 1)] for k, v in value.items()]]
        if kind in (bytes, bytearray):
            return [kind.__name__, value.decode("latin-1")]
        if kind is Stranger:
            return ["yours", value._number]
        name = f"{kind.__module__}.{kind.__name__}"
        if name in _VALUES and _is_standard(kind):
            return ["value", name, _VALUES[name](value)]
        if isinstance(value, BaseException):
            return ["error", self._error_class(kind), [self.packed(a, depth + 1) for a in value.args]]
        if isinstance(value, type) and issubclass(value, BaseException):
            return ["error class", self._error_class(value)]
        base = next((plain(value) for base, plain in _BASES.items() if isinstance(value, base)), None)
        if base is not None and self.peer.guarded and kind.__module__ != "__test__":
            return self.packed(base, depth)
        self.mine[id(value)] = value
        return ["mine", id(value), self.packed(base, depth + 1)]

    def _error_class(self, kind: type[BaseException]) -> list[Any]:
        for number, known in self.errors.items():
            if known is kind:
                return ["yours", number, "", []]
        self.mine[id(kind)] = kind
        lineage = [k.__name__ for k in kind.__mro__ if getattr(builtins, k.__name__, None) is k]
        parents = [self._error_class(k) for k in kind.__bases__ if issubclass(k, BaseException) and k.__module__ != "builtins"]
        return [lineage[0], id(kind), kind.__name__, parents if lineage[0] != kind.__name__ else []]

    def unpacked(self, packed: Any, depth: int = 0) -> Any:
        """The value; anything odd raises."""
        if type(packed) in _PLAIN:
            return packed
        if depth > DEEPEST + 1:
            raise RecursionError("too deep")
        tag, *rest = packed
        if tag in _CONTAINERS:
            return _CONTAINERS[tag](self.unpacked(v, depth + 1) for v in rest[0])
        if tag == "dict":
            return {self.unpacked(k, depth + 1): self.unpacked(v, depth + 1) for k, v in rest[0]}
        if tag in ("bytes", "bytearray"):
            return bytes(rest[0], "latin-1") if tag == "bytes" else bytearray(rest[0], "latin-1")
        if tag == "value" and rest[0] in _VALUES and all(type(v) in _PLAIN for v in rest[1]):
            module, _, name = rest[0].partition(".")
            made = getattr(__import__(module), name)
            return made.fromisoformat(*rest[1]) if name == "datetime" else made(*rest[1])
        if tag == "error":
            return self._error_from(rest[0])(*[self.unpacked(a, depth + 1) for a in rest[1]])
        if tag == "error class":
            return self._error_from(rest[0])
        if tag == "yours":
            return self.mine[rest[0]]
        if tag == "mine" and type(rest[0]) is int:
            if rest[0] not in self.theirs:
                self.theirs[rest[0]] = Stranger(self.peer, rest[0], self.unpacked(rest[1], depth + 1))
            return self.theirs[rest[0]]
        raise ValueError("not a value")

    def _error_from(self, told: list[Any]) -> type[BaseException]:
        base, number, name, parents = told
        if base == "yours":
            return self.errors[number] if number in self.errors else self.mine[number]
        builtin = getattr(builtins, base, Exception)
        if not (isinstance(builtin, type) and issubclass(builtin, BaseException)):
            builtin = Exception
        if name == base:
            return builtin
        if number not in self.errors:
            bases = tuple(self._error_from(p) for p in parents) or (builtin,)
            made = type(str(name)[:100], bases, {"__init__": lambda self, *args: BaseException.__init__(self, *args)})
            self.errors[number] = made
        return self.errors[number]


def _is_standard(kind: type) -> bool:
    module = sys.modules.get(kind.__module__)
    return getattr(module, kind.__name__, None) is kind
