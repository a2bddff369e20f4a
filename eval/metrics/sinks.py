"""Where measures are sent as they change, besides the store: TensorBoard and MLflow. Both are optional.

A sink is a copy for people to look at: it can be deleted and is never read.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, Self

from eval.errors import EvalError

EXPERIMENT = "sleepy-agent"
_ENVIRONMENT = {  # nothing is told to strangers, and a server that is away holds nothing up for minutes
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
_NAMEABLE = re.compile(r"[^\w\-./ ]")


class Sink(Protocol):
    """Takes numbers by name and step. A measure that is missing is not sent."""

    def log(self, name: str, value: float, step: int) -> None:
        """Send a finite number.

        Raises:
            EvalError: it could not be sent.
        """
        ...

    def close(self) -> None:
        """Send what was kept back; the sink takes no more."""
        ...


class TensorBoard:
    """Event files in a folder, to be shown by `tensorboard --logdir FOLDER`. Each opening adds a file."""

    def __init__(self, folder: str) -> None:
        summary = _imported("tensorboard.summary", "tensorboard")
        with _told("tensorboard"):
            self._writer = summary.Writer(folder)

    def log(self, name: str, value: float, step: int) -> None:
        """See `Sink`."""
        with _told("tensorboard"):
            self._writer.add_scalar(name, value, step)
            self._writer.flush()

    def close(self) -> None:
        """See `Sink`."""
        with _told("tensorboard"):
            self._writer.close()


class MLflow:
    """One run, called `run`, of the experiment `sleepy-agent`: of a tracking server by its URI, or of a database in a folder.

    A run of that name that is there already is gone on with.
    """

    def __init__(self, place: str, run: str) -> None:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        tracking = _imported("mlflow.tracking", "mlflow")
        artifacts: str | None = None
        with _told("mlflow"):
            if "://" not in place:
                folder = Path(place).resolve()
                folder.mkdir(parents=True, exist_ok=True)
                _imported("alembic", "mlflow")
                place, artifacts = f"sqlite:///{folder / 'mlflow.db'}", (folder / "artifacts").as_uri()
            self._client: Any = tracking.MlflowClient(tracking_uri=place)
            self._run = self._begun(run, artifacts)

    def log(self, name: str, value: float, step: int) -> None:
        """See `Sink`."""
        with _told("mlflow"):
            self._client.log_metric(self._run, _NAMEABLE.sub("_", name), value, step=step)

    def close(self) -> None:
        """See `Sink`."""
        with _told("mlflow"):
            self._client.set_terminated(self._run)

    def _begun(self, run: str, artifacts: str | None) -> str:
        there = self._client.get_experiment_by_name(EXPERIMENT)
        experiment = there.experiment_id if there else self._client.create_experiment(EXPERIMENT, artifacts)
        named = f"attributes.run_name = '{_NAMEABLE.sub('_', run)}'"
        if found := self._client.search_runs([experiment], named, max_results=1):
            self._client.update_run(found[0].info.run_id, status="RUNNING")
            return str(found[0].info.run_id)
        return str(self._client.create_run(experiment, run_name=_NAMEABLE.sub("_", run)).info.run_id)


class Sinks:
    """Several sinks as one; a context that closes them."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = list(sinks)

    def __iter__(self) -> Iterator[Sink]:
        return iter(self._sinks)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def log(self, name: str, value: float, step: int) -> None:
        """See `Sink`. Those that can take it have it, even if another cannot.

        Raises:
            ValueError: the value is not finite.
            EvalError: a sink could not; it is the first one's.
        """
        if not math.isfinite(value):
            raise ValueError(f"{name} is {value}; a measure that is missing is not sent")
        self._each(lambda sink: sink.log(name, value, step))

    def close(self) -> None:
        """See `Sink`."""
        sinks, self._sinks = self._sinks, []
        self._each(lambda sink: sink.close(), sinks)

    def _each(self, do: Callable[[Sink], None], sinks: Sequence[Sink] | None = None) -> None:
        failed: EvalError | None = None
        for sink in self._sinks if sinks is None else sinks:
            try:
                do(sink)
            except EvalError as error:
                failed = failed or error
        if failed:
            raise failed


def open_sinks(specs: Sequence[str], run: str = "daemon") -> Sinks:
    """Sinks by what configuration says of them: `tensorboard:DIR`, `mlflow:DIR`, or `mlflow:URI` of a tracking server.

    Raises:
        EvalError: a text names no sink, its package is missing (the error names the extra), or it cannot be opened.
    """
    kinds: dict[str, Callable[[str], Sink]] = {"tensorboard": TensorBoard, "mlflow": lambda place: MLflow(place, run)}
    for spec in specs:
        kind, _, place = spec.partition(":")
        if kind not in kinds or not place:
            raise EvalError(f"no sink {kind!r}: name a kind and a place, tensorboard:DIR, mlflow:DIR or mlflow:URI")
    with contextlib.ExitStack() as opened:
        sinks: list[Sink] = []
        for spec in specs:
            kind, _, place = spec.partition(":")
            sinks.append(kinds[kind](place))
            opened.callback(sinks[-1].close)
        opened.pop_all()
    return Sinks(sinks)


def _imported(name: str, extra: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise EvalError(
            f"the sink {extra} needs a package that is not installed ({error.name}): pip install 'sleepy-agent[{extra}]'"
        ) from error


@contextlib.contextmanager
def _told(kind: str) -> Iterator[None]:
    try:
        yield
    except EvalError:
        raise
    except Exception as error:  # its text may hold the password of a server's address
        raise EvalError(
            f"the sink {kind} cannot be written ({type(error).__name__}); correct its place, or leave it out"
        ) from error
