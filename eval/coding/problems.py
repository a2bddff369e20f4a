"""The problems of HumanEval (Chen et al. 2021) and of sanitized MBPP (Austin et al. 2021).

They are read from the folder they were fetched to, at run time, and are never training data.
"""

from __future__ import annotations

import ast
import gzip
import hashlib
import json
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from eval.errors import EvalError
from eval.fetch import SOURCES, Source
from eval.places import Places
from memory.tasks import TaskSecret

VARIABLE = "SLEEPYD_DATA"
MODULE = "solution"
_TEST = "test_problem"
_SEEDED = "import random\nrandom.seed(0)\n"
Benchmark = Literal["humaneval", "mbpp"]


@dataclass(frozen=True)
class Problem:
    """One problem. `header` is the code that comes before the wanted function, `stub` its head and docstring (HumanEval);
    `text` and `examples` say what is wanted (MBPP). `secret` decides, `canonical` is the benchmark's own solution.
    """

    id: str
    entry: str
    canonical: str
    secret: TaskSecret
    header: str = ""
    stub: str = ""
    text: str = ""
    examples: tuple[str, ...] = ()


def data_folder(places: Places) -> Path:
    """Where benchmark files lie: the folder that SLEEPYD_DATA names, or the state directory's own."""
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser() if named else places.data


def has(name: Benchmark, folder: Path) -> bool:
    """Whether the file of a benchmark is there."""
    return (folder / SOURCES[name].file).is_file()


def problems(name: Benchmark, folder: Path, sources: Mapping[str, Source] = SOURCES) -> list[Problem]:
    """All problems of a benchmark, in its own order; `sources` says which files are the published ones.

    Raises:
        EvalError: the file is missing, or is not the published one.
    """
    source = sources[name]
    path = folder / source.file
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EvalError(f"{path}: {error.strerror}; run `sleepyctl data fetch {name}`") from error
    if f"sha256:{(digest := hashlib.sha256(data).hexdigest())}" != source.digest and digest not in source.rebuilds:
        raise EvalError(f"{path} is not the published file (sha256 {digest}); run `sleepyctl data fetch {name}`")
    return _READERS[name](data)


def parsed(code: str) -> ast.Module:
    """The tree of a benchmark's own code, whose warnings are nobody's concern."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(code)


def _humaneval(data: bytes) -> list[Problem]:
    return [_from_header(json.loads(line)) for line in gzip.decompress(data).splitlines() if line.strip()]


def _from_header(row: Mapping[str, Any]) -> Problem:
    prompt, entry = str(row["prompt"]), str(row["entry_point"])
    tree = parsed(prompt)
    first = next(node.lineno for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == entry) - 1
    lines = prompt.splitlines(keepends=True)
    # The prompt is whole Python already: a function may consist of its docstring. Its helpers are the tests' too.
    test = f"{_SEEDED}{prompt}\n{row['test']}\nfrom {MODULE} import {entry}\ndef {_TEST}():\n    check({entry})\n"
    return Problem(
        str(row["task_id"]),
        entry,
        f"{prompt}{row['canonical_solution']}",
        _secret(str(row["task_id"]), test),
        header="".join(lines[:first]),
        stub="".join(lines[first:]).rstrip(),
    )


def _mbpp(data: bytes) -> list[Problem]:
    return [_from_text(row) for row in json.loads(data)]


def _from_text(row: Mapping[str, Any]) -> Problem:
    identity, code = f"MBPP/{row['task_id']}", str(row["code"]).replace("\r\n", "\n")
    asserts = [str(line) for line in row["test_list"]]
    used = {node.id for line in asserts for node in ast.walk(parsed(line)) if isinstance(node, ast.Name)}
    tree = parsed(code).body
    made = [node.name for node in tree if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in used]
    # Tests may use a module that only the benchmark's own solution imports.
    named = [alias.name for node in tree if isinstance(node, ast.Import) for alias in node.names if alias.name in used]
    imports = "".join(f"{line}\n" for line in [*row["test_imports"], *(f"import {name}" for name in named)])
    body = "".join(f"    {line}\n" for text in asserts for line in text.split("\n"))
    test = f"{_SEEDED}{imports}from {MODULE} import {', '.join(made)}\ndef {_TEST}():\n{body}"
    return Problem(identity, made[-1], code, _secret(identity, test), text=str(row["prompt"]), examples=tuple(asserts))


def _secret(identity: str, test: str) -> TaskSecret:
    wanted = (f"{_TEST}.py::{_TEST}",)
    return TaskSecret(task_id=identity, kind="code", tests={f"tests/{_TEST}.py": test}, fail_to_pass=wanted, pass_to_pass=())


_READERS: Mapping[str, Callable[[bytes], list[Problem]]] = MappingProxyType({"humaneval": _humaneval, "mbpp": _mbpp})
