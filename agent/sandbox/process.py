"""The process rung: resource limits and nothing else; only for generated pocket repositories.

Contained: wall and CPU time, memory, the size of each file, the amount of output, core files, what
the environment says, and the processes that are left over at the end.

**Not contained**: the program reads every file that the daemon can read and writes every file that it
can write; it has the network; it sees and may signal the user's other processes; as root it can raise
its own limits; a child that detaches twice (its own session, its parent gone) is not found again; if
the daemon is killed during a run, the program lives on until it ends or its CPU seconds are spent.
RLIMIT_NPROC is not set: it is not enforced for root, and for others it counts all processes of the
user, also those that have nothing to do with the run. Processes are counted from outside instead.

So it runs the pocket world's own little repositories, changed by edits of the pocket model, on
machines without bubblewrap, and nothing that came from elsewhere. `agent.sandbox.ladder` sees to it.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.sandbox.base import ExecResult, Limits, run_bounded, with_rlimits
from agent.workspace import Workspace


class ProcessSandbox:
    """Runs commands as plain children in a session of their own. Read the module's warning first."""

    name = "process"

    def run(self, argv: Sequence[str], workspace: Workspace, limits: Limits) -> ExecResult:
        """Run `argv` in the workspace; see `agent.sandbox.base.Sandbox`."""
        return run_bounded(with_rlimits(argv, limits), workspace.root, limits, env=workspace.env)
