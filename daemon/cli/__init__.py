"""`sleepyctl`: the owner's command line. Every command imports what it needs when it runs."""

from __future__ import annotations

import signal
import sys
from types import FrameType

import typer

app = typer.Typer(
    name="sleepyctl",
    no_args_is_help=True,
    add_completion=True,
    help="A coding agent that works by day and learns by night.",
    pretty_exceptions_enable=False,
)
FAILED, NO_DAEMON = 1, 3


def main() -> None:
    """Entry point: known errors are one line. Exit codes: 0 done, 1 failed, 2 usage, 3 no daemon running, 130 Ctrl-C."""
    from daemon.cli import (
        adapters,
        data,
        experiment,
        guard,
        ingest,
        lab,
        life,
        memory,
        metrics,
        mine,
        mirror,
        nights,
        reading,
        setup,
        tasks,
        verify,
    )

    for module in (
        life,
        reading,
        metrics,
        nights,
        tasks,
        mine,
        mirror,
        verify,
        memory,
        adapters,
        guard,
        data,
        ingest,
        setup,
        lab,
        experiment,
    ):
        module.register(app)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app()
    except Exception as error:
        code = _exit_code(error)
        if code is None:
            raise
        typer.secho(str(error), fg=typer.colors.RED, err=True)
        sys.exit(code)


def sleepyd() -> None:
    """Entry point of the service: `sleepyctl run`."""
    sys.argv[1:1] = ["run"]
    main()


def _exit_code(error: Exception) -> int | None:
    """What an error means for the caller; None for one that nobody expected. Only loaded trees can have raised it."""
    trees = {
        "daemon.errors": "DaemonError",
        "memory.errors": "StoreError",
        "agent.errors": "AgentError",
        "consolidation.errors": "ConsolidationError",
        "eval.errors": "EvalError",
    }
    for module, name in trees.items():
        if module in sys.modules and isinstance(error, getattr(sys.modules[module], name)):
            return NO_DAEMON if type(error).__name__ == "NoDaemonError" else FAILED
    return None


def _terminate(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends like Ctrl-C: through the context managers, leaving a store that opens again."""
    raise KeyboardInterrupt
