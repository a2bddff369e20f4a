"""`sleepyctl experiment report`: from the laboratory's ledger to files."""

from datetime import timedelta
from pathlib import Path

from daemon.errors import DaemonError
from daemon.experimenting import analysed, locking, named
from eval.experiments.ledger import Ledger
from tests.daemon.test_experiment_commands import EXAMS, LEARNT, NOW, WHICH, begin, fingerprint, run
from tests.eval.experiments import lives


def test_an_experiment_that_was_run_is_reported_with_its_registration(tmp_path: Path) -> None:
    one = named(WHICH)[0]
    begin(tmp_path / "lab", one, 1)
    done = run("report", WHICH, "--out", str(tmp_path / "out"), "--lab", str(tmp_path / "lab"))
    assert done.exit_code == 0, done.output
    written = [Path(line) for line in done.stdout.splitlines()]
    assert {path.name for path in written} >= {"pilot.md", "pilot.html"}
    assert all(path.is_file() for path in written)
    text = (tmp_path / "out" / "pilot.md").read_text(encoding="utf-8")
    assert f"Registration {one.hash}, version 1, locked 2026-01-02 03:04 UTC." in text
    assert "Pocket results" in text
    assert "programme" not in {path.stem for path in written}


def test_all_that_were_run_have_an_overview(tmp_path: Path) -> None:
    begin(tmp_path / "lab", named(WHICH)[0], 1)
    done = run("report", "all", "--out", str(tmp_path / "out"), "--lab", str(tmp_path / "lab"))
    assert done.exit_code == 0, done.output
    overview = (tmp_path / "out" / "programme.md").read_text(encoding="utf-8")
    assert "Registered, and not run: crossval, exp01" in overview
    assert (tmp_path / "out" / "pilot.md").is_file()


def test_a_folder_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    begin(tmp_path / "lab", named(WHICH)[0], 1)
    (tmp_path / "taken").write_text("a file", encoding="utf-8")
    refused = run("report", WHICH, "--out", str(tmp_path / "taken"), "--lab", str(tmp_path / "lab"))
    assert refused.exit_code == 1
    assert isinstance(refused.exception, DaemonError)
    assert "taken cannot be written (File exists); name a folder that can be, with --out" in str(refused.exception)


def test_lives_that_another_experiment_lived_before_it_was_locked_are_counted(tmp_path: Path) -> None:
    one, other = named(WHICH)[0], named("crossval")[0]
    begin(tmp_path, one, 1)  # the pilot's life is one of the other's own
    with Ledger(tmp_path) as ledger:
        later = ledger.lock(other, NOW + timedelta(hours=1))
        by_digest = {cell.life.digest(fingerprint(other)): [cell] for cell in other.cells("pocket")}
        ledger.link(later, "pocket", by_digest)
        unlived = next(digest for digest in by_digest if digest not in ledger.digests())
        ledger.lived(lives.life(EXAMS, LEARNT, digest=unlived), later, NOW + timedelta(hours=2))
        analysis = analysed(other, "pocket", ledger)
        locked = locking(other, analysis, ledger)
    assert analysis.done == 2
    assert locked
    assert (locked.version, locked.at, locked.earlier) == (1, NOW + timedelta(hours=1), 1)
