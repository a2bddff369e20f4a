"""`sleepyctl experiment`, and what its commands know from the laboratory's ledger."""

import json
import subprocess
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from agent.models.weights import folder_hash
from daemon.cli.experiment import register
from daemon.errors import DaemonError
from daemon.experimenting import analysed, begun, estimated, lab_of, named, row_of
from daemon.home import Home
from eval.errors import EvalError
from eval.experiments.executor import Done, Job, Work
from eval.experiments.ledger import Ledger
from eval.experiments.life import LifeConfig
from eval.experiments.living import code_hash
from eval.experiments.plan import Experiment
from tests.daemon.running import sleepyctl
from tests.eval.experiments import lives

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
WHICH = "pilot"
EXAMS = {("base", 0): {"train 1": "+-", "test": "--"}, ("skill", 1): {"train 1": "++", "test": "+-"}}
LEARNT = {"train 1": 1, "test": None}


APP = typer.Typer()
register(APP)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(APP, ["experiment", *arguments])


def begin(lab: Path, experiment: Experiment, count: int = 0, seeds: int | None = None) -> None:
    """Lock it, and live the first so many of its cells."""
    with Ledger(lab) as ledger:
        mine = ledger.lock(experiment, NOW)
        cells = experiment.cells("pocket", seeds)
        by_digest = {cell.life.digest(fingerprint(experiment)): [cell] for cell in cells}
        ledger.link(mine, "pocket", by_digest)
        for digest in list(by_digest)[:count]:
            ledger.lived(lives.life(EXAMS, LEARNT, digest=digest), mine, NOW)


def fingerprint(experiment: Experiment) -> str:
    weights = experiment.cells("pocket")[0].life.model.weights
    assert weights is not None
    return folder_hash(weights)


def test_all_are_listed_without_a_laboratory_and_none_is_made(tmp_path: Path) -> None:
    done = run("list", "--home", str(tmp_path / "home"), "--json")
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)
    assert len(rows) == 14
    assert {"id", "title", "hash", "locked", "cells", "done"} <= rows[0].keys()
    assert all((row["locked"], row["done"], row["changed"]) == (None, 0, False) for row in rows)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("arguments", [["list"], ["show", "exp04"]])
def test_nothing_heavy_is_imported_to_list_and_to_show(tmp_path: Path, arguments: list[str]) -> None:
    heavy = "{'numpy', 'torch', 'scipy', 'statsmodels', 'matplotlib', 'ray', 'transformers'}"
    first = f"import atexit, sys; atexit.register(lambda: print('HEAVY', {heavy} & set(sys.modules)))"
    command = sleepyctl("experiment", *arguments, "--home", str(tmp_path), first=first)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "exp04" in done.stdout
    assert done.stdout.rstrip().endswith("HEAVY set()")


def test_the_hypothesis_is_shown_first(tmp_path: Path) -> None:
    done = run("show", "exp04", "--home", str(tmp_path))
    assert done.exit_code == 0, done.output
    head, hypothesis, *rest = [line for line in done.stdout.splitlines() if line]
    assert head.startswith("exp04: ")
    assert hypothesis == f"Hypothesis. {' '.join(named('exp04')[0].hypothesis.split())}"
    text = "\n".join(rest)
    assert "[forgetting of best / that of naive < 0.75]" in text
    assert text.index("Criteria") < text.index("lambda=10000") < text.index("Estimate. ")
    shown = json.loads(run("show", "exp04", "--seeds", "1", "--home", str(tmp_path), "--json").stdout)
    assert len(shown["cell_names"]) == shown["estimate"]["cells"] == len(shown["variants"])
    assert shown["hypothesis"] == named("exp04")[0].hypothesis


def test_all_of_a_size_are_those_that_are_defined_at_it() -> None:
    assert {one.id for one in named("all", "full")} == {one.id for one in named("all") if "full" in one.sizes}
    done = run("list", "--size", "full", "--json")
    assert done.exit_code == 0, done.output


def test_what_does_not_exist_is_refused_by_the_nearest_name(tmp_path: Path) -> None:
    done = run("show", "exp4", "--home", str(tmp_path))
    assert isinstance(done.exception, EvalError)
    assert str(done.exception) == "no experiment 'exp4'; did you mean exp04?"
    nowhere = run("report", "pilot", "--out", str(tmp_path / "out"), "--home", str(tmp_path / "home"))
    assert isinstance(nowhere.exception, EvalError)
    assert "run an experiment there first" in str(nowhere.exception)


def test_the_laboratory_is_in_the_state_directory_unless_it_is_said(tmp_path: Path) -> None:
    assert lab_of(None, tmp_path / "home") == tmp_path / "home" / "lab"
    assert lab_of(tmp_path / "other", tmp_path / "home") == tmp_path / "other"


def test_a_state_directory_with_nothing_but_a_laboratory_can_become_a_daemons(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    begin(home.lab, named(WHICH)[0])
    home.make()
    stranger = Home(tmp_path / "stranger")
    (stranger.root / "lab").mkdir(parents=True)
    with pytest.raises(DaemonError, match="holds other things"):
        stranger.make()


def test_a_row_tells_since_when_it_is_locked_and_what_is_lived(tmp_path: Path) -> None:
    one = named(WHICH)[0]
    begin(tmp_path, one)
    with Ledger(tmp_path, read_only=True) as ledger:
        row = row_of(one, "pocket", ledger)
        assert (row["locked"], row["version"], row["cells"], row["done"]) == (NOW.isoformat(), 1, 1, 0)
        assert row_of(one, "full", ledger)["done"] == 0
    begin(tmp_path, one, 1)
    with Ledger(tmp_path, read_only=True) as ledger:
        assert row_of(one, "pocket", ledger)["done"] == 1
        other = one.model_copy(update={"title": "Another"})
        assert (row_of(other, "pocket", ledger)["locked"], row_of(other, "pocket", ledger)["changed"]) == (None, True)


def test_only_the_cells_of_the_registered_seeds_are_counted(tmp_path: Path) -> None:
    one = named(WHICH)[0]
    begin(tmp_path, one, 2, seeds=2)
    with Ledger(tmp_path, read_only=True) as ledger:
        row = row_of(one, "pocket", ledger)
        assert (row["cells"], row["done"]) == (1, 1)


def test_what_is_left_is_resumed_with_as_many_seeds_as_it_was_begun_with(tmp_path: Path) -> None:
    one = named(WHICH)[0]
    with Ledger(tmp_path) as ledger:
        assert begun(one, "pocket", ledger) is None
    begin(tmp_path, one, 1, seeds=2)
    with Ledger(tmp_path, read_only=True) as ledger:
        assert begun(one, "pocket", ledger) == 2
        assert begun(one, "full", ledger) is None
        plan = estimated(one, "pocket", 2, 2, ledger)
        assert (plan.lives, plan.there) == (2, 1)
        assert estimated(named("crossval")[0], "pocket", 1, 1, ledger).there == 1  # the pilot's life is one of its own
    nothing = run("resume", "exp09", "--lab", str(tmp_path))
    assert nothing.exit_code == 0, nothing.output
    assert "nothing is left" in nothing.stderr


def test_there_is_nothing_to_analyse_before_it_was_run(tmp_path: Path) -> None:
    one = named(WHICH)[0]
    with (
        Ledger(tmp_path) as ledger,
        pytest.raises(EvalError, match="run it first: sleepyctl experiment run pilot --size pocket"),
    ):
        analysed(one, "pocket", ledger)


def test_what_was_found_is_analysed_from_the_ledger(tmp_path: Path) -> None:
    one = named(WHICH)[0]
    begin(tmp_path, one, 1)
    with Ledger(tmp_path, read_only=True) as ledger:
        found = analysed(one, "pocket", ledger)
    assert (found.experiment, found.cells, found.done) == (WHICH, 1, 1)
    (value,) = [each.values for each in found.summaries if each.measure == "forward_transfer"]
    assert value == (0.5,)  # one of two unseen tasks more than the base


def test_fewer_seeds_than_were_registered_are_told(tmp_path: Path) -> None:
    one = named("exp09")[0]
    begin(tmp_path, one)
    with Ledger(tmp_path, read_only=True) as ledger:
        assert not any("registered seeds" in text for text in analysed(one, "pocket", ledger).warnings)
        assert "2 of 3 registered seeds: the others are left out" in analysed(one, "pocket", ledger, 2).warnings


class Here:
    """Lives at once, in this process, by a code of their own."""

    name, workers = "here", 1

    def map(self, work: Work, jobs: Sequence[Job[LifeConfig]]) -> Iterator[Done]:
        for job in jobs:
            yield Done(job.key, lives.life(EXAMS, LEARNT, digest=job.key).model_copy(update={"code": code_hash()}))


def test_what_other_code_lived_is_told_and_lived_again_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(tmp_path, named(WHICH)[0], 1)
    monkeypatch.setattr("eval.experiments.executors.choice.open_executor", lambda on, workers: Here())
    arguments = ("run", WHICH, "--lab", str(tmp_path), "--home", str(tmp_path), "--json")
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    said = f"1 of 1 lives were lived by other code (code: 1) than this ({code_hash()}); --again lives them anew"
    assert f"{WHICH}: {said}" in done.stderr
    assert said in json.loads(done.stdout)[0]["warnings"]
    (again,) = json.loads(run(*arguments, "--again").stdout)
    assert (again["lived"], [text for text in again["warnings"] if "code" in text]) == (1, [])


def test_a_run_of_all_goes_on_where_one_cannot_be_planned_and_fails_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = named(WHICH)[0]
    begin(tmp_path, one, 1)
    wrong = one.model_copy(update={"id": "wrong", "primary": "forward_transfr"})
    monkeypatch.setattr("daemon.experimenting.registered", lambda: {"wrong": wrong, WHICH: one})
    arguments = ("--lab", str(tmp_path), "--home", str(tmp_path), "--json")
    done = run("run", "all", *arguments)
    assert done.exit_code == 1
    first, second = json.loads(done.stdout)
    assert (first["id"], second["id"], second["there"]) == ("wrong", WHICH, 1)
    assert first["error"].startswith("wrong, primary: no measure 'forward_transfr'; did you mean forward_transfer?")
    alone = run("run", "wrong", *arguments)
    assert isinstance(alone.exception, EvalError)


def test_a_laboratory_that_cannot_be_one_is_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for lab in (tmp_path / "file", tmp_path / "file" / "lab"):
        done = run("run", WHICH, "--lab", str(lab), "--home", str(tmp_path))
        assert isinstance(done.exception, EvalError)
        assert f"{lab}: cannot be used (" in str(done.exception)
    done = run("list", "--lab", str(tmp_path / ("long" * 99)))
    assert isinstance(done.exception, EvalError)
    assert "cannot be read (File name too long); correct --lab" in str(done.exception)


def test_a_run_of_what_is_lived_already_lives_nothing_and_tells_the_verdicts(tmp_path: Path) -> None:
    one = named(WHICH)[0]
    begin(tmp_path, one, 1)
    done = run("run", WHICH, "--lab", str(tmp_path), "--home", str(tmp_path), "--json")
    assert done.exit_code == 0, done.output
    (told,) = json.loads(done.stdout)
    assert (told["id"], told["hash"], told["cells"], told["there"], told["lived"]) == (WHICH, one.hash, 1, 1, 0)
    assert told["criteria"].keys() == {each.name for each in one.criteria}
    assert told["criteria"]["direction"]["verdict"] == "undecided"  # one life
    assert "0 to be lived" in done.stderr
    assert "tasks x 1 seed" in done.stderr
