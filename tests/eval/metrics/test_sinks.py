"""Sinks: what is logged can be read back by the programs that it is meant for. Skipped where those are not installed."""

import importlib
import sys
from pathlib import Path

import pytest

from eval.errors import EvalError
from eval.metrics.sinks import Sink, Sinks, open_sinks


class Kept:
    """A sink into a list; `broken` ones cannot be written."""

    def __init__(self, broken: bool = False) -> None:
        self.rows: list[tuple[str, float, int]] = []
        self.broken = broken
        self.closed = 0

    def log(self, name: str, value: float, step: int) -> None:
        if self.broken:
            raise EvalError("full")
        self.rows.append((name, value, step))

    def close(self) -> None:
        self.closed += 1


def test_without_sinks_nothing_is_needed() -> None:
    with open_sinks([]) as sinks:
        sinks.log("acc", 0.5, 1)
    assert list(sinks) == []


def test_all_that_can_take_a_number_have_it_and_all_are_closed_once() -> None:
    broken, kept = Kept(broken=True), Kept()
    each: list[Sink] = [broken, kept]
    with pytest.raises(EvalError, match="full"), Sinks(each) as sinks:
        sinks.log("acc", 0.5, 1)
    sinks.close()
    assert kept.rows == [("acc", 0.5, 1)]
    assert (broken.closed, kept.closed) == (1, 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_missing_is_not_sent(value: float) -> None:
    kept = Kept()
    with pytest.raises(ValueError, match="missing"):
        Sinks([kept]).log("acc", value, 1)
    assert kept.rows == []


@pytest.mark.parametrize("spec", ["wandb:x", "tensorboard", "tensorboard:", "", "/tmp/x"])
def test_a_text_that_names_no_sink_is_refused_before_any_is_opened(spec: str, tmp_path: Path) -> None:
    with pytest.raises(EvalError, match="tensorboard:DIR"):
        open_sinks([f"tensorboard:{tmp_path / 'there'}", spec])
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize("kind", ["tensorboard", "mlflow"])
def test_a_package_that_is_missing_is_one_clear_error(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == kind]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, kind, None)
    with pytest.raises(EvalError, match=rf"pip install 'sleepy-agent\[{kind}\]'"):
        open_sinks([f"{kind}:{tmp_path}"])


def test_importing_it_imports_neither() -> None:
    module = importlib.import_module("eval.metrics.sinks")
    assert not {"tensorboard", "mlflow"} & set(vars(module))


def test_tensorboard_reads_what_was_logged(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard.summary")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for night in (1, 2):  # opened anew each night, as the daemon does
        with open_sinks([f"tensorboard:{tmp_path / 'runs'}"]) as sinks:
            sinks.log("forgetting/paper", 0.25 * night, night)
    found = [one for file in sorted((tmp_path / "runs").iterdir()) for one in _events(EventAccumulator(str(file)))]
    assert sorted(found) == [(1, 0.25), (2, 0.5)]


def _events(reader: object) -> list[tuple[int, float]]:
    reader.Reload()  # type: ignore[attr-defined]
    return [(event.step, event.tensor_proto.float_val[0]) for event in reader.Tensors("forgetting/paper")]  # type: ignore[attr-defined]


def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard.summary")
    (tmp_path / "file").write_text("")
    with pytest.raises(EvalError, match="tensorboard cannot be written") as error:
        open_sinks([f"tensorboard:{tmp_path / 'file' / 'inside'}"])
    assert str(tmp_path) not in str(error.value)


@pytest.mark.filterwarnings("default")  # its own, of its database layer
def test_mlflow_goes_on_with_the_run_of_the_same_name(tmp_path: Path) -> None:
    pytest.importorskip("mlflow.tracking")
    pytest.importorskip("alembic")
    from mlflow.tracking import MlflowClient

    place = tmp_path / "lab"
    for night in (1, 2):
        with open_sinks([f"mlflow:{place}"], run="it's mine") as sinks:
            sinks.log("clf_beta@skill", 0.25 * night, night)
    with open_sinks([f"mlflow:sqlite:///{place}/mlflow.db"], run="other") as sinks:
        sinks.log("acc", 1.0, 1)
    client = MlflowClient(tracking_uri=f"sqlite:///{place}/mlflow.db")
    experiment = client.get_experiment_by_name("sleepy-agent")
    assert experiment is not None
    runs = {run.info.run_name: run.info for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"it_s mine", "other"}
    assert runs["other"].status == "FINISHED"
    history = client.get_metric_history(runs["it_s mine"].run_id, "clf_beta_skill")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.25), (2, 0.5)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lab"]


def test_a_server_that_is_away_is_one_clear_error_without_its_address() -> None:
    pytest.importorskip("mlflow.tracking")
    with pytest.raises(EvalError, match="mlflow cannot be written") as error:
        open_sinks(["mlflow:http://me:secret@127.0.0.1:9"])
    assert "secret" not in str(error.value)
