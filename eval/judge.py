"""Runs hidden tests so that the code under test cannot write its own report; a script of its own, standard library only.

    python -I -S judge.py ROOT HIDDEN

Two processes. The *bench* is forked before anything secret is read; only there is the repository's code imported.
The *judge* reads the tests and the key from ROOT/HIDDEN, deletes the file, closes itself to other processes of its
user, and runs the tests; what they import from ROOT are stand-ins that ask the bench over a pipe. Only values cross,
as JSON: plain data, some of the standard library's values, exceptions by name, and numbers for everything else. So the
bench sees the arguments of calls, and neither tests, expected values, key, nor anything of the judge's. The report is
one line on standard output, the key in front. Code that kills the judge, prints, or exits has no report.

An answer counts as equal to plain data only if it *is* plain data: an object that says it equals 7 is not 7 (an enum's,
named tuple's or other subclass's plain value is taken once, before it is compared).

What remains: objects of the code's own classes are compared with each other by their own `__eq__`; a test that passes an
expected value as an argument shows it; as root without a sandbox (the process rung) code can read any process.
Not carried across: generators as arguments, keeping an object's identity in nested containers, monkeypatched built-ins.
"""

from __future__ import annotations

import ast
import builtins
import io
import json
import operator
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

LONGEST = 4_000_000
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
_BINARY = "add sub mul truediv floordiv mod pow and or xor lshift rshift matmul".split()
_ORDER = "lt le gt ge".split()
_OPERATORS = [*_BINARY, *_ORDER, *"neg pos invert abs getitem setitem delitem".split()]
_BUILTINS: dict[str, Callable[..., Any]] = {
    name: getattr(builtins, name) for name in ("len", "iter", "next", "str", "repr", "bool", "int", "float", "hash", "dir")
}
_BUILTINS |= {"getattr": getattr, "setattr": setattr, "isinstance": isinstance, "contains": operator.contains}
_BUILTINS |= {"eq": operator.eq, **{name: getattr(operator, f"__{name}__") for name in _OPERATORS}}
_FOR_GUESTS = {"len", "iter", "next", "str", "bool", "contains", "getitem"}


class Stranger:
    """An object that lives on the other side of the pipe; `_base` is its plain value, if it has one, as first told."""

    __slots__ = ("_base", "_number", "_peer")

    def __init__(self, peer: Peer, number: int, base: Any = None) -> None:
        object.__setattr__(self, "_base", base)
        object.__setattr__(self, "_peer", peer)
        object.__setattr__(self, "_number", number)

    def __getattr__(self, name: str) -> Any:
        return self._peer.ask("getattr", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._peer.ask("setattr", self, name, value)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it there."""
        return self._peer.ask("call", self, *args, **kwargs)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Stranger):
            return self is other or self._peer.ask("eq", self, other) is True
        return self._base is not None and bool(self._base == other)

    def __hash__(self) -> int:
        return int(self._peer.ask("hash", self))

    def __instancecheck__(self, thing: object) -> bool:
        return isinstance(thing, Stranger) and self._peer.ask("isinstance", thing, self) is True

    def __contains__(self, thing: object) -> bool:
        return self._peer.ask("contains", self, thing) is True

    def __iter__(self) -> Any:
        return self._peer.ask("iter", self)

    def __next__(self) -> Any:
        return self._peer.ask("next", self)

    def __enter__(self) -> Any:
        return self._peer.ask("call", self.__getattr__("__enter__"))

    def __exit__(self, *_: object) -> Any:
        return self._peer.ask("call", self.__getattr__("__exit__"), None, None, None)


def _forward(operation: str) -> Callable[..., Any]:
    def method(self: Stranger, *args: Any) -> Any:
        return self._peer.ask(operation, self, *args)

    return method


def _between(operation: str, reflected: bool) -> Callable[..., Any]:
    """An operator that is never shown plain data (it may be what the test expects) unless the answer is no plain data."""

    def method(self: Stranger, other: Any) -> Any:
        if self._base is not None and type(other) is not Stranger:
            both = (other, self._base) if reflected else (self._base, other)
            return _BUILTINS[operation](*both)
        result = self._peer.ask(operation, *((other, self) if reflected else (self, other)))
        if self._peer.guarded and type(other) is not Stranger and type(result) is not Stranger:
            raise TypeError(f"{operation}: the code's own object may not judge plain data")
        return result

    return method


for _name in ("len", "str", "repr", "bool", "int", "float", *_OPERATORS):
    setattr(Stranger, f"__{_name}__", _forward(_name))
for _name in (*_BINARY, *_ORDER):
    setattr(Stranger, f"__{_name}__", _between(_name, False))
for _name in _BINARY:
    setattr(Stranger, f"__r{_name}__", _between(_name, True))


class Peer:
    """One end of the pipe: asks, and while it waits, answers. `guarded`: what the other end may ask is little."""

    def __init__(self, reader: int, writer: int, guarded: bool) -> None:
        self.reader, self.writer, self.guarded = os.fdopen(reader, "rb"), os.fdopen(writer, "wb"), guarded
        self.mine: dict[int, Any] = {}
        self.theirs: dict[int, Stranger] = {}
        self.errors: dict[int, type[BaseException]] = {}
        self.doors: dict[str, Callable[..., Any]] = {}

    def send(self, message: Any) -> None:
        """One message."""
        self.writer.write(json.dumps(message).encode() + b"\n")
        self.writer.flush()

    def receive(self) -> Any:
        """The next message; EOFError at the end."""
        line = self.reader.readline(LONGEST)
        if not line.endswith(b"\n"):
            raise EOFError("the code under test is gone")
        return json.loads(line)

    def ask(self, operation: str, *args: Any, **kwargs: Any) -> Any:
        """The result of one operation on the other side; what it raised is raised."""
        self.send(["ask", operation, [self.packed(a) for a in args], {k: self.packed(v) for k, v in kwargs.items()}])
        while True:
            kind, *rest = self.receive()
            if kind == "ask":
                self.answer(*rest)
                continue
            result, changed = rest
            for place, packed in changed:
                _refill(args[place], self.unpacked(packed))
            if kind == "raised":
                error = self.unpacked(result)
                raise error if isinstance(error, BaseException) else RuntimeError("an error that is none")
            return self.unpacked(result)

    def answer(self, operation: str, args: list[Any], kwargs: dict[str, Any]) -> None:
        """Do what was asked and send what came of it."""
        changed: list[Any] = []
        try:
            given = [self.unpacked(a) for a in args]
            result = self._do(operation, given, {k: self.unpacked(v) for k, v in kwargs.items()})
            if operation == "call":
                now = [(n, v, args[n]) for n, v in enumerate(given) if type(v) in (list, dict, set)]
                changed = [[n, packed] for n, v, before in now if (packed := self.packed(v)) != before]
            message = ["done", self.packed(result), changed]
        except BaseException as error:  # noqa: BLE001  (whatever it raises is the answer)
            message = ["raised", self.packed(error), changed]
        self.send(message)

    def _do(self, operation: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        if operation in self.doors:
            return self.doors[operation](*args)
        if self.guarded:
            return _for_guests(operation, args, kwargs)
        return args[0](*args[1:], **kwargs) if operation == "call" else _BUILTINS[operation](*args)

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
        if base is not None and self.guarded and kind.__module__ != "__test__":
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
                self.theirs[rest[0]] = Stranger(self, rest[0], self.unpacked(rest[1], depth + 1))
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


def _refill(old: Any, new: Any) -> None:
    """Give a container that was an argument the contents that the callee left in it."""
    if type(old) is list and type(new) is list:
        old[:] = new
    elif type(old) in (dict, set) and type(new) is type(old):
        old.clear()
        old.update(new)


def _for_guests(operation: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """What the code under test may do with what a test handed to it: call it, look into it, no way up from it."""
    thing = args[0]
    if operation == "call" and callable(thing):
        return thing(*args[1:], **kwargs)
    if operation in _FOR_GUESTS:
        return _BUILTINS[operation](*args)
    known = isinstance(thing, io.StringIO) or type(thing).__module__ == "__test__"
    if operation == "getattr" and known and type(args[1]) is str and not args[1].startswith("_"):
        return getattr(thing, args[1])
    raise AttributeError(f"{operation} is not for the code under test")


# The bench


def bench(root: str, peer: Peer) -> None:
    """Serve the repository at `root` until the judge is done."""

    class Out(io.TextIOBase):
        def write(self, text: str) -> int:
            peer.ask("print", str(text))
            return len(text)

    def bring(name: str) -> Any:
        __import__(name)
        return sys.modules[name]

    def names(module: Any) -> list[str]:
        return [str(n) for n in getattr(module, "__all__", [n for n in vars(module) if not n.startswith("_")])]

    sys.stdout = Out()
    sys.path.insert(0, root)
    sys.dont_write_bytecode = True
    peer.doors = {"import": bring, "names": names}
    while True:
        _, *rest = peer.receive()
        peer.answer(*rest)


# The judge


class RemoteModule(ModuleType):
    """A module of the repository: what a test reads from it or sets in it, it reads and sets on the bench."""

    def __init__(self, name: str, peer: Peer) -> None:
        super().__init__(name)
        self.__dict__["__there__"] = (peer, peer.ask("import", name))

    def __getattr__(self, name: str) -> Any:
        peer, there = self.__dict__["__there__"]
        if name == "__all__":
            return peer.ask("names", there)
        if name.startswith("__"):
            raise AttributeError(name)
        return peer.ask("getattr", there, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("__") or isinstance(value, ModuleType):
            super().__setattr__(name, value)
        else:
            peer, there = self.__dict__["__there__"]
            peer.ask("setattr", there, name, value)


class Repository:
    """Finds modules of the repository (stand-ins for the bench's) and of the hidden tests (from memory)."""

    def __init__(self, root: str, tests: dict[str, str], peer: Peer) -> None:
        self.root, self.peer = root, peer
        self.tests = {path.removesuffix(".py").replace("/", "."): (path, text) for path, text in tests.items()}

    def find_spec(self, name: str, path: object = None, target: object = None) -> Any:
        """The import system's question."""
        top = name.partition(".")[0]
        if top == "tests":
            known = name in self.tests or f"{name}.__init__" in self.tests or any(n.startswith(name + ".") for n in self.tests)
        else:
            here = os.path.join(self.root, top)  # noqa: PTH118 - pathlib costs a quarter of the start
            known = top not in sys.stdlib_module_names and (os.path.isdir(here) or os.path.isfile(here + ".py"))  # noqa: PTH112, PTH113
        return type(sys.__spec__)(name, self, is_package=True) if known else None  # type: ignore[arg-type]

    def create_module(self, spec: Any) -> ModuleType:
        """A module that has nothing of its own, or one of the tests'."""
        if spec.name.partition(".")[0] == "tests":
            return ModuleType(spec.name)
        return RemoteModule(spec.name, self.peer)

    def exec_module(self, module: ModuleType) -> None:
        """Only modules of the tests have something to run here."""
        name = module.__name__
        path, text = self.tests.get(f"{name}.__init__", self.tests.get(name, ("", "")))
        exec(compile(text, path, "exec"), module.__dict__)


def verdicts(tests: dict[str, str]) -> dict[str, str]:
    """Test id (`file::function`) to `PASSED` or the name of what it raised."""
    results: dict[str, str] = {}
    for path in sorted(tests):
        file = path.removeprefix("tests/")
        if "/" in file or not (file.startswith("test_") and file.endswith(".py")):
            continue
        tree = ast.parse(tests[path])
        names = [n.name for n in tree.body if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")]
        space: dict[str, Any] = {"__name__": "__test__"}
        results |= dict.fromkeys((f"{file}::{name}" for name in names), "not run")
        try:
            exec(compile(tree, path, "exec"), space)
        except BaseException as error:  # noqa: BLE001  (whatever the code raises is a failure)
            results |= dict.fromkeys((f"{file}::{name}" for name in names), type(error).__name__)
            continue
        for name in names:
            try:
                space[name]()
            except BaseException as error:  # noqa: BLE001  (as above)
                results[f"{file}::{name}"] = type(error).__name__
            else:
                results[f"{file}::{name}"] = "PASSED"
    return results


def close_to_others() -> None:
    """No process of this user may trace this one or read its memory, descriptors or environment (Linux)."""
    if sys.platform != "linux":
        return  # macOS asks for an entitlement, and the sandbox's profile denies it
    import ctypes

    if ctypes.CDLL(None).prctl(4, 0, 0, 0, 0) != 0:  # PR_SET_DUMPABLE
        raise OSError("prctl(PR_SET_DUMPABLE) failed")


def main(argv: list[str]) -> int:
    """Command line; see the module's docstring. The exit status is 0 only if every test passed."""
    root, hidden = argv[1], argv[2]
    to_bench, to_judge = os.pipe(), os.pipe()
    if os.fork() == 0:
        try:
            os.close(to_bench[1])
            os.close(to_judge[0])
            nothing = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(nothing, number)
            os.close(nothing)
            os.chdir(root)
            peer = Peer(to_bench[0], to_judge[1], guarded=False)
            if peer.receive() == "start":  # the secrets are out of reach by now
                bench(root, peer)
        finally:
            os._exit(0)
    os.close(to_bench[0])
    os.close(to_judge[1])
    close_to_others()
    with open(hidden, encoding="utf-8") as file:  # noqa: PTH123
        told = json.load(file)
    os.unlink(hidden)  # noqa: PTH108
    peer = Peer(to_judge[0], to_bench[1], guarded=True)
    peer.doors = {"print": lambda text: sys.stdout.write(str(text))}
    sys.meta_path.insert(0, Repository(root, told["tests"], peer))
    peer.send("start")
    try:
        results = verdicts(told["tests"])
    finally:
        sys.stdout = sys.__stdout__
    print(f"\n{told['key']} {json.dumps(results)}", flush=True)
    os._exit(0 if results and all(why == "PASSED" for why in results.values()) else 1)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv))
