"""Parsing Python, from any thread."""

from __future__ import annotations

import ast
import threading
import warnings

_ONE_AT_A_TIME = threading.Lock()


def parsed(source: str) -> ast.Module:
    """The syntax tree of a source that a model may have written; what it warns of is not said.

    One at a time: CPython 3.11 counts how deep it is in one place for all threads, and raises SystemError ("AST constructor
    recursion depth mismatch", cpython issue 106905) where two build trees at once. Who else in the process parses may still
    bring that about; then it is tried once more.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: it is no Python.
    """
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(source)
        except SystemError:
            return ast.parse(source)
