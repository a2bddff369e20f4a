"""The witness of pytest runs: a plugin of the run that is given `-p sleepy_pytest`; runs inside of tests are not told of.

PYTEST_DONT_REWRITE
"""

from sleepy_witness import tell


def pytest_runtest_logreport(report):
    """Tell of each phase of a test."""
    excused = hasattr(report, "wasxfail")
    if report.when == "call" and report.passed:
        tell(report.nodeid, "XPASS" if excused else "PASSED")
    elif report.failed:
        tell(report.nodeid, "FAILED" if report.when == "call" else "ERROR")
    elif report.skipped:
        tell(report.nodeid, "XFAIL" if excused else "SKIPPED")
