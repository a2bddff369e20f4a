"""What the repositories of the benchmark were written for and newer Pythons took away; each recipe names what it needs.

Plain Python from 3.8. Nothing is imported that the program would not import itself: some tests can tell.
"""

import builtins
import sys

from sleepy_after import after


def _rewriting():
    """Old pytest's assertion rewriting gives syntax trees to the compiler whose places contradict each other."""
    import ast

    original = builtins.compile

    def compile(source, *args, **kwargs):
        if isinstance(source, ast.AST):
            for node in ast.walk(source):
                if isinstance(node, ast.alias) and not hasattr(node, "lineno"):
                    node.lineno, node.col_offset = 1, 0
                if getattr(node, "end_lineno", None) is not None and hasattr(node, "lineno"):
                    node.end_lineno = max(node.end_lineno, node.lineno)
                    if node.end_lineno == node.lineno and node.end_col_offset is not None:
                        node.end_col_offset = max(node.end_col_offset, node.col_offset)
        return original(source, *args, **kwargs)

    if sys.version_info >= (3, 10):
        builtins.compile = compile


def _debug():
    """`TestCase.debug` of 3.8, which knows nothing of skipped tests."""

    def debug(self):
        self.setUp()
        getattr(self, self._testMethodName)()
        self.tearDown()
        while self._cleanups:
            function, args, kwargs = self._cleanups.pop(-1)
            function(*args, **kwargs)

    after("unittest.case", lambda module: setattr(module.TestCase, "debug", debug))


def _finders():
    """Import hooks of the old kind work up to 3.11, but for a warning, which old test suites take for an error."""
    import importlib._bootstrap as bootstrap
    import types

    warnings = bootstrap._warnings

    def warn(message, category=None, *args, **kwargs):
        if category is not ImportWarning:
            warnings.warn(message, category, *args, **kwargs)

    bootstrap._warnings = types.SimpleNamespace(warn=warn)


def _names():
    """Names that 3.10 and 3.11 removed from the standard library, and what they stood for."""
    import collections
    import collections.abc

    for name in collections.abc.__all__:
        if not hasattr(collections, name):
            setattr(collections, name, getattr(collections.abc, name))

    def types(module):
        if hasattr(module, "UnionType"):  # as the betas of 3.10 called it
            module.Union = module.UnionType

    def fractions(module):
        import math

        module.gcd = getattr(module, "gcd", math.gcd)

    def asyncio(module):
        import types

        module.coroutine = getattr(module, "coroutine", types.coroutine)

    def inspect(module):
        Spec = collections.namedtuple("ArgSpec", "args varargs keywords defaults")

        def getargspec(function):
            found = module.getfullargspec(function)
            if found.kwonlyargs or found.annotations:
                raise ValueError("Function has keyword-only parameters or annotations, use getfullargspec()")
            return Spec(*found[:4])

        module.getargspec = getattr(module, "getargspec", getargspec)
        module.ArgSpec = getattr(module, "ArgSpec", Spec)

    def gettext(module):
        original = module.translation

        def translation(*args, codeset=None, **kwargs):
            return original(*args, **kwargs)

        if sys.version_info >= (3, 11):
            module.translation = translation

    after("types", types)
    after("gettext", gettext)
    after("fractions", fractions)
    after("asyncio", asyncio)
    after("inspect", inspect)


def _unittest():
    """How unittest of 3.6 to 3.8 wrote tests down: their ids in logs are made of it."""

    def case(module):
        strclass = module.strclass
        module.TestCase.__str__ = lambda self: f"{self._testMethodName} ({strclass(self.__class__)})"

        def shortDescription(self):
            doc = self._testMethodDoc
            return (doc and doc.split("\n")[0].strip()) or None

        module.TestCase.shortDescription = shortDescription

    def runner(module):
        # Subtests that fail are told of at the end, not line by line.
        module.TextTestResult.__dict__.get("addSubTest") and delattr(module.TextTestResult, "addSubTest")

    after("unittest.case", case)
    after("unittest.runner", runner)


GROUPS = {
    "finders": _finders,
    "names": _names,
    "unittest": _unittest,
    "rewriting": _rewriting,
    "debug": _debug,
}


def apply(names):
    """Put back what these groups (by name, joined by commas) are about."""
    for name in names.split(","):
        GROUPS[name]()
