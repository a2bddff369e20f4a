"""Which executor `--on` names."""

from __future__ import annotations

import re

from eval.errors import EvalError
from eval.experiments.executor import Executor

FORMS = "local, local:N, ray, ray:local, ray:HOST:PORT, ray://HOST:PORT"


def open_executor(spec: str = "local", workers: int = 1) -> Executor:
    """The executor that `spec` names: `local` (with `workers` processes) or `local:N`; `ray` (the cluster of this machine, or
    of RAY_ADDRESS), `ray:local` (one of its own, with `workers` cores), `ray:HOST:PORT` (a cluster this machine is a node of)
    or `ray://HOST:PORT` (any cluster, through its client port).

    Raises:
        EvalError: there is no such executor, or it cannot be used here; the text says what to do.
    """
    if workers < 1:
        raise EvalError(f"--workers {workers}: give at least 1")
    if found := re.fullmatch(r"local(?::([0-9]+))?", spec):
        from eval.experiments.executors.local import LocalExecutor

        if found[1] and int(found[1]) < 1:
            raise EvalError(f"--on {spec}: give at least one worker")
        return LocalExecutor(int(found[1] or workers))
    if found := re.fullmatch(r"ray(?::(local|//[^/\s]+:[0-9]+|[^/:\s]+:[0-9]+))?", spec):
        from eval.experiments.executors.ray import RayExecutor

        where = found[1] or "auto"
        return RayExecutor(f"ray:{where}" if where.startswith("//") else where, workers=workers)
    raise EvalError(f"--on {spec}: no such executor; it is one of {FORMS}")
