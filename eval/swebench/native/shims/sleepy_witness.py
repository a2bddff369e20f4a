"""Tells the evaluator what each test came to, past the log: code under test prints to the log as well.

The evaluator leaves a file with a key, which only the first interpreter of a run reads, before any code of the repository;
the file is then gone, and a new one takes the results, each behind the key. Whatever runs inside the same interpreter can
still get at it, if it sets out to: this stops prints, forged reports and test settings, not a program written against it.

Plain Python of any version from 3.6. Nothing is imported that the program would not import itself: some tests can tell.
"""

import json
import os
import sys

from sleepy_after import after

VARIABLE = "SLEEPY_WITNESS"


def _write(test, status):
    """Nothing, until `start`."""


def start():
    """Take the key, if this is the interpreter that it was left for, and look on from now on."""
    global _write
    path = os.environ.pop(VARIABLE)
    try:
        with open(path) as file:
            framework, key = file.read().split()
        os.unlink(path)
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o600)
    except OSError:
        return

    def write(test, status):
        os.write(handle, f"{key} {json.dumps([test, status])}\n".encode())

    _write = write
    if framework == "unittest":
        after("unittest.runner", _watch_unittest)
    elif framework == "sympy":
        after("sympy.testing.runtests", _watch_sympy)
        after("sympy.utilities.runtests", _watch_sympy)


def tell(test, status):
    """Report one test, if this is the interpreter that was asked to."""
    _write(test, status)


def _watch_unittest(module):
    result = module.TextTestResult

    def watched(name, status):
        original = getattr(result, name)

        def method(self, test, *rest):
            # Tests of test runners have results of their own, which go elsewhere.
            if getattr(self.stream, "stream", None) is sys.__stderr__:
                tell(self.getDescription(test), status)
            return original(self, test, *rest)

        setattr(result, name, method)

    watched("addSuccess", "PASSED")
    watched("addError", "ERROR")
    watched("addFailure", "FAILED")
    watched("addSkip", "SKIPPED")
    watched("addExpectedFailure", "XFAIL")
    watched("addUnexpectedSuccess", "FAILED")


def _watch_sympy(module):
    reporter = getattr(module, "PyTestReporter", None)
    if reporter is None:  # where it is only passed on
        return
    entering = reporter.entering_test

    def entering_test(self, f):
        self.sleepy_test = f.__name__
        return entering(self, f)

    def watched(name, status):
        original = getattr(reporter, name)

        def method(self, *rest):
            tell(getattr(self, "sleepy_test", ""), status)
            return original(self, *rest)

        setattr(reporter, name, method)

    reporter.entering_test = entering_test
    watched("test_pass", "PASSED")
    watched("test_fail", "FAILED")
    watched("test_exception", "ERROR")
    watched("test_skip", "SKIPPED")
    watched("test_xfail", "SKIPPED")
    watched("test_xpass", "SKIPPED")
