"""What is taken from swebench 4.1.0: its per-version specifications, test directives, log parsers and grading.

Later versions dropped the tables. Its packages import half a machine-learning stack that none of this needs, so the four
modules are loaded with stand-ins in place of what they only mention; nothing of that stays in `sys.modules`.
"""

from __future__ import annotations

import importlib
import sys
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import metadata, util
from pathlib import Path
from typing import Any

from eval.errors import EvalError

VERSION = "4.1.0"
_NEEDED = f'pip install --no-deps "swebench=={VERSION}"'
_PACKAGES = ("", ".harness", ".harness.test_spec")
_STAND_INS: Mapping[str, tuple[str, ...]] = {
    "requests": (),
    "swebench.harness.utils": ("ansi_escape", "get_modified_files", "load_cached_environment_yml"),
    "swebench.harness.test_spec.test_spec": ("TestSpec",),
}
LOADING = threading.Lock()


@dataclass(frozen=True)
class Tables:
    """The parts of swebench, as they are.

    `specs[repo][version]` is a specification (`test_cmd`, `pip_packages`, ...); `parsers[repo](log, None)` gives test id to
    `PASSED`, `FAILED`, `ERROR`, `SKIPPED` or `XFAIL`.
    """

    specs: Mapping[str, Mapping[str, Mapping[str, Any]]]
    parsers: Mapping[str, Callable[[str, object], dict[str, str]]]
    _directives: Callable[[Mapping[str, str]], list[str]]
    _tests_report: Callable[..., Any]
    _resolution: Callable[[Any], str]
    _full: str

    def directives(self, repo: str, test_patch: str) -> tuple[str, ...]:
        """What the repository's test command is given for a test patch: files, or labels for Django; each once."""
        return tuple(dict.fromkeys(self._directives({"repo": repo, "test_patch": test_patch})))

    def resolved(self, statuses: Mapping[str, str], fail_to_pass: tuple[str, ...], pass_to_pass: tuple[str, ...]) -> bool:
        """The official verdict on a parsed log."""
        report = self._tests_report(dict(statuses), {"FAIL_TO_PASS": fail_to_pass, "PASS_TO_PASS": pass_to_pass})
        return self._resolution(report) == self._full


def tables() -> Tables:
    """Load them, once.

    Raises:
        EvalError: swebench is not installed, or is another version; the text says what to install.
    """
    with LOADING:
        return _tables()


@cache
def _tables() -> Tables:
    try:
        found = metadata.version("swebench")
    except metadata.PackageNotFoundError as error:
        raise EvalError(f"native grading needs the tables of swebench {VERSION}; {_NEEDED}") from error
    if found != VERSION:
        raise EvalError(f"swebench {found} is installed, but native grading needs the tables of {VERSION}; {_NEEDED}")
    spec = util.find_spec("swebench")
    if spec is None or not spec.submodule_search_locations:
        raise EvalError(f"swebench is installed without its modules; {_NEEDED}")
    with stood_in(Path(spec.submodule_search_locations[0])):
        constants = importlib.import_module("swebench.harness.constants")
        python = importlib.import_module("swebench.harness.test_spec.python")
        parsers = importlib.import_module("swebench.harness.log_parsers")
        grading = importlib.import_module("swebench.harness.grading")
    return Tables(
        constants.MAP_REPO_VERSION_TO_SPECS,
        parsers.MAP_REPO_TO_PARSER,
        python.get_test_directives,
        grading.get_eval_tests_report,
        grading.get_resolution_status,
        constants.ResolvedStatus.FULL.value,
    )


@contextmanager
def stood_in(folder: Path) -> Iterator[None]:
    """Let swebench's modules in `folder` be imported without what it depends on; hold `LOADING` meanwhile."""
    before = {name: module for name, module in sys.modules.items() if name in _STAND_INS or name.split(".")[0] == "swebench"}
    for name in before:
        del sys.modules[name]
    try:
        for package in _PACKAGES:
            module = types.ModuleType(f"swebench{package}")
            module.__path__ = [str(folder.joinpath(*package.split(".")))]
            sys.modules[module.__name__] = module
        for name, members in _STAND_INS.items():
            module = types.ModuleType(name)
            for member in members:
                setattr(module, member, object)
            sys.modules[name] = module
        yield
    finally:
        for name in [name for name in sys.modules if name in _STAND_INS or name.split(".")[0] == "swebench"]:
            del sys.modules[name]
        sys.modules.update(before)
