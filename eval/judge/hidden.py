"""Hidden tests, run from memory; what they import from the repository are stand-ins for the bench's modules."""

from __future__ import annotations

import ast
import os
import sys
from types import ModuleType

from .peer import Peer

TYPE_CHECKING = False  # `typing` costs a quarter of the start
if TYPE_CHECKING:
    from typing import Any


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
