"""Runs pytest and reports what it saw, test by test; a script of its own, standard library and pytest only.

    python witness.py TOLD

TOLD is a JSON file: `key`, `root`, `paths`, `under_test`, `variables`, `arguments`, `targets`, `control`, `left_out`.
Two processes: the child imports pytest, then the repository, and sends what it sees down a pipe; the parent, which
alone has the key, waits and prints one line, the key in front. So code that prints, writes reports, exits or
is killed has no say in it. pytest is imported before the repository's folders can be searched (unless the repository is
pytest, or something that pytest needs), so that no file there can take its place. The control is a test that must fail, in
the midst of the others: code that makes every test pass is seen by it.

What remains: the tests run in the same process as the code under test, so code made to find the child's pipe or to
change single assertions can still lie; the sandbox shows hidden tests read-only, and nothing of what is expected.
"""

# ruff: noqa: PTH100, PTH108, PTH120, PTH123

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

GRACE_SECONDS = 2.0
MAX_BYTES = 8 * 2**20

# Options of plugins that decide nothing about a verdict; where such a plugin is not installed they are taken and ignored.
# Plugin: (options with their number of arguments), (settings in the configuration file).
LEFT_OUT: dict[str, tuple[tuple[tuple[str, ...], Any], ...]] = {
    "xdist": ((("-n", "--numprocesses"), 1), (("--dist",), 1), (("--maxprocesses",), 1)),
    "pytest_cov": (
        *(((name,), "?") for name in ("--cov", "--cov-report")),
        *(((name,), 1) for name in ("--cov-config", "--cov-fail-under", "--cov-context")),
        *(((name,), 0) for name in ("--cov-branch", "--cov-append", "--no-cov", "--no-cov-on-fail", "--cov-reset")),
    ),
    "timeout": ((("--timeout",), 1), (("--timeout-method", "--timeout_method"), 1), (("--session-timeout",), 1)),
    "randomly": ((("--randomly-seed",), 1), (("--randomly-dont-shuffle-modules",), 0)),
    "html": ((("--html",), 1), (("--self-contained-html",), 0)),
    "sugar": ((("--force-sugar",), 0),),
    "instafail": ((("--instafail",), 0),),
}
SETTINGS = {"timeout": ("timeout", "timeout_method", "timeout_func_only")}
# What stands in place of a plugin's own doing where it is installed.
QUIET = {"xdist": "-n0", "pytest_cov": "--no-cov", "randomly": "-pno:randomly", "sugar": "-pno:sugar", "html": "-pno:html"}


class Witness:
    """A pytest plugin: what is collected and how every phase of every test ends goes to `tell`."""

    def __init__(self, tell: Callable[[Any], None], control: str, left_out: list[str]) -> None:
        self.tell, self.control, self.left_out = tell, control, left_out
        self.ignored: dict[str, str] = {}

    def pytest_addoption(self, parser: pytest.Parser) -> None:
        """Take what the repository asks of plugins that are not there."""
        group = parser.getgroup("left out")
        for plugin in self.left_out:
            for names, count in LEFT_OUT[plugin]:
                place = "left_out_" + names[-1].strip("-").replace("-", "_")
                how = {0: {"action": "store_true"}, 1: {"action": "append"}}.get(
                    count, {"nargs": "?", "const": "", "action": "append"}
                )
                group._addoption(*names, dest=place, default=None, **how)
                self.ignored[place] = names[0]
            for name in SETTINGS.get(plugin, ()):
                parser.addini(name, "left out")

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """pytest has read its configuration and begins."""
        used = [name for place, name in self.ignored.items() if session.config.getoption(place, None) is not None]
        self.tell({"started": sorted(used)})


def hooks(witness: Witness) -> object:
    """The hooks that need pytest to be imported, and the tools that they use bound before the repository can be."""
    import pytest

    tell, control = witness.tell, witness.control

    class Seen:
        @pytest.hookimpl(trylast=True)
        def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
            def must_fail() -> None:
                raise AssertionError("the control")

            if control and items:
                for number in range(len(items) - 1, -1, -1):
                    module = items[number].getparent(pytest.Module)
                    if module is not None:
                        items.insert(number + 1, pytest.Function.from_parent(module, name=control, callobj=must_fail))
                        break

        @pytest.hookimpl(tryfirst=True)
        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            tell([report.nodeid, report.when, report.outcome, hasattr(report, "wasxfail")])

    return Seen()


def session(told: dict[str, Any], report: int) -> int:
    """pytest's exit status; the repository's code runs in here."""

    def tell(what: Any, write: Any = os.write, dumps: Any = json.dumps) -> None:
        write(report, (dumps(what) + "\n").encode())

    os.environ.update(told["variables"])
    os.chdir(told["root"])
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [path for path in sys.path if os.path.abspath(path or ".") not in (here, told["root"])]
    sys.argv = ["pytest"]
    if told["under_test"]:
        sys.path[0:0] = told["paths"]
    import pytest

    witness = Witness(tell, told["control"], told["left_out"])
    plugins = [witness, hooks(witness)]
    if not told["under_test"]:
        sys.path[0:0] = told["paths"]
    return int(pytest.main([*told["arguments"], "--", *told["targets"]], plugins=plugins))


def close_to_others() -> None:
    """No process of this user may trace this one or read its memory or descriptors (Linux)."""
    if sys.platform == "linux":
        import ctypes

        if ctypes.CDLL(None).prctl(4, 0, 0, 0, 0) != 0:  # PR_SET_DUMPABLE
            raise OSError("prctl(PR_SET_DUMPABLE) failed")


def collect(source: int, into: bytearray) -> None:
    """Read a pipe to its end; what is above the limit is lost."""
    while chunk := os.read(source, 65_536):
        into += chunk if len(into) < MAX_BYTES else b""


def main(argv: list[str]) -> None:
    """Command line; see the module's docstring."""
    began = time.monotonic()
    told_end, tell_end = os.pipe()
    seen_end, see_end = os.pipe()
    child = os.fork()
    if child == 0:
        status = 70
        try:
            os.close(tell_end)
            os.close(seen_end)
            with os.fdopen(told_end) as pipe:
                told = json.load(pipe)
            status = session(told, see_end)
            sys.stdout.flush()
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 70
        except BaseException:  # noqa: BLE001 - whatever it raises is shown
            import traceback

            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    os.close(told_end)
    os.close(see_end)
    close_to_others()
    with open(argv[1], encoding="utf-8") as given:
        told = json.load(given)
    os.unlink(argv[1])
    key = told.pop("key")
    with os.fdopen(tell_end, "w") as pipe:
        json.dump(told, pipe)
    seen = bytearray()
    reader = threading.Thread(target=collect, args=(seen_end, seen), daemon=True)
    reader.start()
    status = os.waitpid(child, 0)[1]
    reader.join(GRACE_SECONDS)  # what the child leaves behind may hold the pipe open
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
    rows = [line.decode("utf-8", "replace") for line in bytes(seen).split(b"\n")[:-1]]
    answer = {"code": code, "seconds": time.monotonic() - began, "rows": rows}
    sys.stdout.write(f"\n{key} {json.dumps(answer)}\n")
    sys.stdout.flush()
    os._exit(min(code, 255))


if __name__ == "__main__":
    main(sys.argv)
