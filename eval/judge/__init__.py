"""Runs hidden tests so that the code under test cannot write its own report; scripts, standard library only.

    python -I -S judge/__main__.py ROOT HIDDEN

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

The folder is all that is mounted beside the repository, so its modules import only each other, by relative names.
"""
