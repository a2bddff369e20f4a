"""Runs the tests of a pocket repository; a script of its own, standard library only.

    python -I runner.py ROOT [--json REPORT]

Every function `test_*` of every `tests/test_*.py` below ROOT is called. A failed `assert` is
explained with the value that was found. The exit status is 0 only if every test passed.
"""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from types import TracebackType

MAX_SHOWN = 2
MAX_VALUE_CHARS = 60


def run_tests(root: Path, through: tuple[type[BaseException], ...] = ()) -> dict[str, str]:
    """Test id (`file::function`) to `PASSED` or the reason of the failure, in order; what is `through` is raised on."""
    results: dict[str, str] = {}
    before = set(sys.modules)
    sys.path.insert(0, str(root))
    sys.dont_write_bytecode = True
    try:
        for path in sorted((root / "tests").glob("test_*.py")):
            _run_file(path, results, through)
    finally:
        sys.path.remove(str(root))
        for cached in [name for name in sys.path_importer_cache if name.startswith(str(root))]:
            del sys.path_importer_cache[cached]
        for name in set(sys.modules) - before:
            origin = getattr(sys.modules[name], "__file__", None)
            package = getattr(sys.modules[name], "__path__", None)
            if str(origin).startswith(str(root)) or (origin is None and package is not None):
                del sys.modules[name]
    return results


def _run_file(path: Path, results: dict[str, str], through: tuple[type[BaseException], ...]) -> None:
    source = path.read_text(encoding="utf-8")
    namespace: dict[str, object] = {"__name__": path.stem}
    tree = ast.parse(source)
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    try:
        exec(compile(tree, str(path), "exec"), namespace)
    except through:
        raise
    except BaseException as error:  # noqa: BLE001  (whatever tested code raises, SystemExit included, is a failure)
        results.update({f"{path.name}::{name}": _reason(error) for name in names})
        return
    for name in names:
        test = namespace[name]
        try:
            assert callable(test)
            test()
        except AssertionError as error:
            results[f"{path.name}::{name}"] = _explain(error, path, tree, through)
        except through:
            raise
        except BaseException as error:  # noqa: BLE001  (whatever tested code raises, SystemExit included, is a failure)
            results[f"{path.name}::{name}"] = _reason(error)
        else:
            results[f"{path.name}::{name}"] = "PASSED"


def _reason(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__} in line {error.lineno}"
    return f"{type(error).__name__}: {str(error)[:MAX_VALUE_CHARS]}"


def _explain(error: AssertionError, path: Path, tree: ast.Module, through: tuple[type[BaseException], ...]) -> str:
    """`call == expected but was found`, evaluated again in the frame of the failed assert."""
    trace: TracebackType | None = error.__traceback__
    while trace is not None and trace.tb_next is not None and trace.tb_next.tb_frame.f_code.co_filename == str(path):
        trace = trace.tb_next
    if trace is None or error.args:
        return str(error)[:MAX_VALUE_CHARS] or "assert"
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert) and node.lineno == trace.tb_lineno and isinstance(node.test, ast.Compare):
            call = compile(ast.Expression(node.test.left), str(path), "eval")
            try:
                found = repr(eval(call, trace.tb_frame.f_globals))
            except through:
                raise
            except BaseException as again:  # noqa: BLE001  (as above)
                found = _reason(again)
            return f"{ast.unparse(node.test)} but was {found[:MAX_VALUE_CHARS]}"
    return "assert"


def summary(results: dict[str, str]) -> str:
    """What the agent sees: the first failures, then the counts."""
    failed = {name: why for name, why in results.items() if why != "PASSED"}
    lines = [f"FAILED {name.partition('::')[2]}: {why}" for name, why in list(failed.items())[:MAX_SHOWN]]
    if not results:
        return "no tests"
    lines.append(f"{len(failed)} failed, {len(results) - len(failed)} passed")
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    """Command line; see the module's docstring."""
    results = run_tests(Path(argv[1]).resolve())
    if len(argv) == 4 and argv[2] == "--json":
        Path(argv[3]).write_text(json.dumps(results), encoding="utf-8")
    print(summary(results))
    return 0 if results and all(why == "PASSED" for why in results.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv))
