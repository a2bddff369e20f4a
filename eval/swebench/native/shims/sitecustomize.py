"""The first thing that every interpreter of an environment runs: what newer Pythons miss, and the witness of the tests."""

import os

if os.environ.get("SLEEPY_COMPAT"):
    import sleepy_compat

    sleepy_compat.apply(os.environ["SLEEPY_COMPAT"])
if os.environ.get("SLEEPY_WITNESS"):
    import sleepy_witness

    sleepy_witness.start()
