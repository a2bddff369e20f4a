"""Mining: a git history read as tasks, each proven in the sandbox before it counts.

`mine` writes the stream file that `eval.mining.schema` reads; its schema is documented there.
Playing needs more: `environment_of` and `limits_of` a stream file, `prepare` of a fresh workspace, `run_tests` in
it (what the agent sees), and `grade` of a patch (what decides).
"""

from eval.mining.environment import Environment, environment_of
from eval.mining.history import Refused
from eval.mining.mine import Event, Options, mine
from eval.mining.running import Report, limits_of, prepare, run_tests
from eval.mining.trial import grade

__all__ = [
    "Environment",
    "Event",
    "Options",
    "Refused",
    "Report",
    "environment_of",
    "grade",
    "limits_of",
    "mine",
    "prepare",
    "run_tests",
]
