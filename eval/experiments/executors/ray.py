"""The executor of a Ray cluster: each job is a task, placed by what it needs; results come back to the caller alone.

The nodes run the caller's own code: it is shipped with the connection, and a worker that has other code refuses.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import ModuleType
from typing import Any, cast

from eval.errors import EvalError
from eval.experiments.executor import Done, Job, Resources, Work
from eval.experiments.executors.attempt import (
    ONE_THREAD,
    TRIES,
    attempt,
    code_hash,
    explained,
    here,
    packages,
    packed,
    returned,
)
from eval.experiments.life import Life, LifeConfig

MISSING = "Ray is not installed ({error}); install the extra: pip install 'sleepy-agent[ray]'"
START = "start one with: ray start --head; or have one for this run alone: --on ray:local"
SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""Nothing is reported to Ray's makers; and no warning that a task without GPUs sees none."""
OBJECTS = 128 * 2**20
"""Bytes of a local cluster's object store: lives are small."""
LOOK = 2.0
"""Seconds between looks at the nodes."""


@dataclass
class RayExecutor:
    """Tasks of a Ray cluster. `address` is `local` (a cluster of its own, of `workers` cores, gone afterwards), `auto` (that of
    this machine or of RAY_ADDRESS), `HOST:PORT` (one that this machine is a node of) or `ray://HOST:PORT` (any, through its
    client port). A job that no node can hold fails after `patience` seconds.

    Raises:
        EvalError: Ray is not installed.
    """

    address: str = "auto"
    workers: int = 1
    patience: float = 60.0

    def __post_init__(self) -> None:
        _ray()
        self.name = self.address if self.address.startswith("ray:") else f"ray:{self.address}"

    def map(self, work: Work, jobs: Sequence[Job[LifeConfig]]) -> Iterator[Done]:
        """See `Executor`. A job whose worker or node was lost is begun again, `TRIES` times in all.

        Raises:
            EvalError: the cluster cannot be reached, or was lost.
        """
        ray, body = _ray(), packed(work)
        with self._connected(ray):
            yield from _Mapping(ray, body, self.patience).run(jobs)

    @contextmanager
    def _connected(self, ray: ModuleType) -> Iterator[None]:
        if ray.is_initialized():  # somebody else's connection, and theirs to end
            yield
            return
        _reach(self.address)
        given: dict[str, Any] = {"address": self.address, "logging_level": "ERROR", "log_to_driver": False}
        given["runtime_env"] = {"env_vars": ONE_THREAD}
        if self.address == "local":
            given |= {"num_cpus": self.workers, "include_dashboard": False, "object_store_memory": OBJECTS}
        else:
            given["runtime_env"]["py_modules"] = [str(path) for path in packages()]
        _quiet()
        try:
            ray.init(**given)
        except (ConnectionError, RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise EvalError(f"no Ray cluster at {self.address!r} ({first}); {START}") from error
        try:
            yield
        finally:
            ray.shutdown()


class _Mapping:
    """What is going on on a cluster."""

    def __init__(self, ray: ModuleType, body: bytes, patience: float) -> None:
        self.ray = ray
        self.body = ray.put(body)
        self.code = code_hash()
        self.patience = patience
        self.live = ray.remote(max_retries=0)(_live)
        self.going: dict[Any, tuple[Job[LifeConfig], int]] = {}
        self.homeless: dict[Any, float] = {}
        errors = ray.exceptions
        self.lost = (
            errors.WorkerCrashedError,
            errors.NodeDiedError,
            errors.LocalRayletDiedError,
            errors.OutOfMemoryError,
            errors.ObjectLostError,
        )

    def run(self, jobs: Sequence[Job[LifeConfig]]) -> Iterator[Done]:
        looked = time.monotonic()
        try:
            for job in jobs:
                self._begin(job, 1)
            while self.going:
                ready, _ = self.ray.wait(list(self.going), timeout=LOOK)
                for reference in ready:
                    done = self._done(reference)
                    if done is not None:
                        yield done
                if time.monotonic() - looked > LOOK:
                    looked = time.monotonic()
                    yield from self._given_up(looked)
        except (ConnectionError, self.ray.exceptions.RaySystemError) as error:
            raise EvalError(f"the Ray cluster was lost ({error}); run it again: what was lived is kept") from error
        finally:
            for reference in self.going:
                self._cancel(reference)

    def _begin(self, job: Job[LifeConfig], tries: int) -> None:
        needs = job.needs
        placed = self.live.options(num_cpus=needs.cpus, num_gpus=needs.gpus, resources=needs.custom or None)
        self.going[placed.remote(self.body, job.given, self.code)] = (job, tries)

    def _done(self, reference: Any) -> Done | None:
        job, tries = self.going.pop(reference)
        self.homeless.pop(reference, None)
        try:
            place, found = self.ray.get(reference)
        except self.lost as error:
            if tries < TRIES:
                self._begin(job, tries + 1)
                return None
            why = (str(error).splitlines() or [""])[0]
            return Done(job.key, None, f"its worker was lost {tries} times: {type(error).__name__}: {why}", "", tries)
        except (ConnectionError, self.ray.exceptions.RaySystemError):
            raise
        except self.ray.exceptions.RayError as error:
            return Done(job.key, None, explained(error), "", tries)
        return returned(job.key, found, place, tries)

    def _given_up(self, now: float) -> Iterator[Done]:
        """Jobs that no node can hold, and could not for long."""
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        for reference, (job, tries) in list(self.going.items()):
            if any(holds(node, job.needs) for node in nodes):
                self.homeless.pop(reference, None)
            elif now - self.homeless.setdefault(reference, now) >= self.patience:
                del self.going[reference], self.homeless[reference]
                self._cancel(reference)
                yield Done(job.key, None, f"no node of the cluster has {_told(job.needs)}; start one that has", "", tries)

    def _cancel(self, reference: Any) -> None:
        with suppress(self.ray.exceptions.RayError, ConnectionError):
            self.ray.cancel(reference, force=True)


def holds(node: dict[str, float], needs: Resources) -> bool:
    """Whether a node with these resources in all could ever hold a job."""
    wanted = {"CPU": needs.cpus, "GPU": needs.gpus, **needs.custom}
    return all(node.get(name, 0.0) >= amount for name, amount in wanted.items() if amount)


def _told(needs: Resources) -> str:
    wanted = {"CPU": needs.cpus, "GPU": needs.gpus, **needs.custom}
    return ", ".join(f"{name} {amount:g}" for name, amount in wanted.items() if amount)


def _live(work: bytes, given: LifeConfig, code: str) -> tuple[str, Life | str]:
    """One job, in a worker of the cluster: where, and what came of it."""
    if (mine := code_hash()) != code:
        refused = f"refused by {here()}: its code is {mine}, the caller's is {code}; install the same version on every node"
        return here(), refused
    return here(), attempt(work, given)


def _reach(address: str) -> None:
    """Ray itself tries for minutes to reach a cluster that is not there."""
    named = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address
    host, _, port = named.removeprefix("ray://").rpartition(":")
    if not host:
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise EvalError(f"no Ray cluster at {named!r} ({error}); {START}") from error


def _quiet() -> None:
    """Ray tells of lost workers on stdout, between the lines of the caller's JSON, whatever it is set to: on stderr instead."""
    import ray._private.worker as worker

    tell = getattr(worker, "print_to_stdstream", None)
    if tell is not None and not hasattr(tell, "tells_on_stderr"):

        def aside(data: dict[str, Any], *given: Any, **named: Any) -> None:
            tell({**data, "is_err": True}, *given, **named)

        aside.__dict__["tells_on_stderr"] = True
        worker.print_to_stdstream = aside


def _ray() -> ModuleType:
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise EvalError(MISSING.format(error=error)) from error
    return cast(ModuleType, ray)
