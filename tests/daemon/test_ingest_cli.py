"""`sleepyctl ingest` and the inbox: other agents' sessions, with and without a daemon."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from daemon.cli.ingest import _hand_over
from daemon.errors import DaemonError
from daemon.home import Home
from daemon.inbox import take_in
from memory import database
from memory.errors import StoreError
from memory.ingest.ingest import Bundle, read
from memory.store import Store
from memory.trajectories import Trajectory
from tests.daemon.running import daemon, run, sleepyctl, until, write_config
from tests.memory.ingest.samples import KEY, claude_lines, mini, swe_agent, write


@pytest.fixture
def sessions(tmp_path: Path) -> Path:
    folder = tmp_path / "sessions"
    folder.mkdir()
    write(folder / "acme__bank-12.traj", swe_agent())
    write(folder / "b.traj.json", mini())
    write(folder / "c.jsonl", json.loads(json.dumps(claude_lines()).replace("pytest", f"curl -H 'x-api-key: {KEY}'")))
    return folder


@pytest.fixture
def place(tmp_path: Path) -> Home:
    home = Home(tmp_path / "state")
    home.make()
    return home


def imported(home: Path) -> list[Trajectory]:
    with Store(home / "sleepy.db", read_only=True) as store:
        found = [one for one in store.trajectories() if one.imported]
        # Nights learn from results alone, so nothing of this is trained on.
        assert not {one.id for one in found} & {result.trajectory_id for result in store.results()}
        return found


def holds(folder: Path, secret: str) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


def test_a_dry_run_reports_and_stores_nothing(sessions: Path, tmp_path: Path) -> None:
    done = run("ingest", str(sessions), "--dry-run", "--json", "--home", str(tmp_path / "home"))
    assert done.returncode == 0, done.stderr
    reports = json.loads(done.stdout)
    assert [(one["reader"], one["sessions"], one["steps"]) for one in reports] == [
        ("swe-agent/1", 1, 4),
        ("mini-swe-agent/2", 1, 3),
        ("claude-code/1", 1, 5),
    ]
    assert reports[2]["redactions"]["anthropic-key"] == 1
    assert not (tmp_path / "home").exists()


def test_sessions_are_kept_once_redacted_and_a_bad_file_fails_alone(sessions: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (sessions / "d.traj").write_text("{")
    done = run("ingest", str(sessions), "--json", "--home", str(home))
    assert done.returncode == 1
    assert [bool(one["problem"]) for one in json.loads(done.stdout)] == [False, False, False, True]
    assert len(imported(home)) == 3
    assert not holds(home, KEY)
    (sessions / "d.traj").unlink()
    again = run("ingest", str(sessions), "--json", "--home", str(home))
    assert again.returncode == 0, again.stderr
    assert [one["known"] for one in json.loads(again.stdout)] == [1, 1, 1]
    assert len(imported(home)) == 3
    told = run("ingest", str(sessions), "--home", str(home))
    assert "claude-code/1" in told.stdout
    assert "1 anthropic-key" in told.stdout


def test_a_running_daemon_takes_them_through_its_inbox_and_keeps_no_raw_file(sessions: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    write_config(home, count=1, after=0)
    inbox, accepted = home / "inbox", home / "inbox" / "accepted"
    with daemon(home):
        run("pause", "--home", str(home))
        done = run("ingest", str(sessions / "acme__bank-12.traj"), "--home", str(home))
        assert done.returncode == 0, done.stderr
        assert "inbox" in done.stderr
        until(lambda: len(list(accepted.glob("*.session.json.report"))) == 1, "the bundle")
        for name in ("b.traj.json", "c.jsonl"):
            shutil.copy(sessions / name, inbox / f".{name}")
            (inbox / f".{name}").rename(inbox / name)
            until(lambda name=name: (accepted / f"{name}.report").exists() and not (inbox / name).exists(), name)  # type: ignore[misc]
        assert json.loads((accepted / "c.jsonl.report").read_text())["redactions"]["anthropic-key"] == 1
        (inbox / "bad.traj").write_text("[" * 100_000)
        until(lambda: (inbox / "rejected" / "bad.traj.why").exists(), "the refusal")
        forged = Trajectory.model_validate(imported(home)[0].model_dump() | {"id": "forged", "outcome": "resolved"})
        text = json.dumps({"trajectories": [forged.model_dump(mode="json")], "tasks": []})
        (inbox / ".forged").write_text(text)
        (inbox / ".forged").rename(inbox / "forged.session.json")
        until(lambda: (inbox / "rejected" / "forged.session.json.why").exists(), "the refusal of what claims to be resolved")
    with Store(home / "sleepy.db", read_only=True) as store:
        assert sorted(one.imported for one in store.trajectories() if one.imported) == [
            "claude-code/1",
            "mini-swe-agent/2",
            "swe-agent/1",
        ]
    assert not holds(home, KEY)
    assert not list(inbox.glob("*.*"))
    assert {path.suffix for path in accepted.iterdir()} == {".report"}  # no text lies about that could not be forgotten


def test_an_owned_store_is_not_written_to(sessions: Path, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    done = run("ingest", str(sessions), "nowhere.traj", "--home", str(home.root), cwd=tmp_path)
    assert done.returncode == 1
    assert "nowhere.traj: No such file" in done.stderr
    assert len(imported(home.root)) == 3


def test_ctrl_c_keeps_what_was_taken_and_the_same_command_goes_on(tmp_path: Path) -> None:
    home, folder = tmp_path / "home", tmp_path / "many"
    folder.mkdir()
    for number in range(120):
        write(folder / f"{number:03}.jsonl", claude_lines(f"5f0c7e1a-0000-4000-8000-{number:012}"))

    def kept() -> int:
        with contextlib.suppress(StoreError), Store(home / "sleepy.db", read_only=True) as store:
            return len(store.trajectories())
        return 0

    command = sleepyctl("ingest", str(folder), "--json", "--home", str(home))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        until(lambda: kept() > 3, "the first sessions")
        process.send_signal(signal.SIGINT)
        told, note = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in note
    assert "goes on from here" in note
    assert 3 < len(json.loads(told)) <= kept() < 120
    before = kept()
    again = run("ingest", str(folder), "--json", "--home", str(home))
    assert again.returncode == 0, again.stderr
    assert sum(one["known"] for one in json.loads(again.stdout)) == before
    assert kept() == 120


def test_nonsense_is_one_line_each_and_no_traceback(tmp_path: Path) -> None:
    names = ("nonsense.jsonl", "b\udcffd.jsonl", "x.traj", "none.traj")
    (tmp_path / "x.traj").mkdir()
    for name in names[:2]:
        (tmp_path / name).write_text("nonsense\n")
    command = ("ingest", *(str(tmp_path / name) for name in names), "--dry-run", "--home", str(tmp_path / "home"))
    done, as_json = run(*command), run(*command, "--json")
    assert (done.returncode, as_json.returncode) == (1, 1)
    assert "Traceback" not in done.stderr + as_json.stderr
    problems = [one["problem"] for one in json.loads(as_json.stdout)]
    assert [problem.split(" ")[0] for problem in problems] == ["no", "no", "no", "No"]
    assert all(problem in done.stderr for problem in problems)


def full_after(store: Path, pages: int) -> str:
    """The PRAGMA with which SQLite finds the disk full as soon as a store has grown by so many pages."""
    with Store(store) as opened, opened.reading() as connection:
        return f"PRAGMA max_page_count = {connection.exec_driver_sql('PRAGMA page_count').scalar_one() + pages}"


def test_a_full_disk_is_one_line_and_what_was_kept_before_is_told(place: Home, sessions: Path) -> None:
    long = json.dumps(swe_agent()).replace("Look around first.", "word " * 3_000)
    for number in range(12):
        write(sessions / f"z{number:02}.traj", json.loads(long.replace("acme__bank-12", f"acme__bank-{number}")))
    full = f"from memory import database; database.PRAGMAS += ({full_after(place.store, 24)!r},)"
    command = sleepyctl("ingest", str(sessions), "--json", "--home", str(place.root), first=full)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "the disk is full; free some space" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert 3 <= len(json.loads(done.stdout)) == len(imported(place.root)) < 15
    assert run("ingest", str(sessions), "--home", str(place.root)).returncode == 0
    assert len(imported(place.root)) == 15


@dataclass
class Body:
    """What the inbox needs of a life."""

    store: Store
    told: list[dict[str, Any]] = field(default_factory=list)
    pokes: int = 0

    @property
    def log(self) -> Any:
        """Where it says what it did."""
        said = lambda event, **more: self.told.append({"event": event, **more})  # noqa: E731
        return SimpleNamespace(info=said, error=said)

    def poke(self) -> None:
        """Somebody has work."""
        self.pokes += 1

    def look(self, home: Home) -> list[dict[str, Any]]:
        """Take in what is there; what was said of it."""
        self.told.clear()
        asyncio.run(take_in(home, self))  # type: ignore[arg-type]
        return list(self.told)


def report_of(home: Home, name: str) -> dict[str, Any]:
    return dict(json.loads((home.inbox / "accepted" / f"{name}.report").read_text()))


def bundle(*numbers: int, folder: Path) -> Bundle:
    lines = [line for number in numbers for line in claude_lines(f"5f0c7e1a-0000-4000-8000-{number:012}")]
    return Bundle.of(read(write(folder / "s.jsonl", lines))[1])


def test_of_a_bundle_with_a_known_session_the_new_ones_are_taken_and_the_report_says_so(place: Home, tmp_path: Path) -> None:
    with Store(place.store) as store:
        for numbers, taken, known in (((1, 2), 2, 0), ((2, 3), 1, 1), ((2, 3), 0, 2)):
            (place.inbox / "x.session.json").write_text(bundle(*numbers, folder=tmp_path).model_dump_json())
            (said,) = Body(store).look(place)
            assert (said["event"], said["tasks"]) == ("inbox.accepted", taken)
            report = report_of(place, "x.session.json")
            assert (report["sessions"], report["known"], report["reader"]) == (2, known, "claude-code/1")
        assert len(store.trajectories()) == len(store.tasks()) == 3
    assert not (place.inbox / "rejected").exists()


def test_of_trajectories_only_a_report_is_left(place: Home, tmp_path: Path) -> None:
    own = bundle(1, folder=tmp_path).trajectories[0].model_copy(update={"imported": "", "prompt": "unheard-of words"})
    (place.inbox / "own.jsonl").write_text(own.model_dump_json() + "\n")
    with Store(place.store) as store:
        assert Body(store).look(place)[0]["event"] == "inbox.accepted"
        assert store.trajectory(own.id).prompt == "unheard-of words"
    assert report_of(place, "own.jsonl")["sessions"] == 1
    assert not holds(place.inbox, "unheard-of words")


def test_what_is_no_regular_file_is_put_aside_with_the_reason_and_nothing_waits_for_it(place: Home, tmp_path: Path) -> None:
    outside = write(tmp_path / "outside.traj", swe_agent())
    os.mkfifo(place.inbox / "pipe.traj")
    (place.inbox / "folder.jsonl").mkdir()
    (place.inbox / "folder.jsonl" / "mine").write_text("x")
    (place.inbox / "link.traj").symlink_to(outside)
    (place.inbox / "nowhere.json").symlink_to(tmp_path / "nowhere")
    with Store(place.store) as store:
        body = Body(store)
        assert [said["file"] for said in body.look(place)] == ["folder.jsonl", "link.traj", "nowhere.json", "pipe.traj"]
        assert body.look(place) == []
        assert store.trajectories() == []
    rejected = place.inbox / "rejected"
    assert "no regular file" in (rejected / "pipe.traj.why").read_text()
    assert (rejected / "folder.jsonl" / "mine").exists()
    assert outside.exists()


@pytest.mark.parametrize("suffix", [".jsonl", ".traj", ".session.json", ".json"])
def test_a_file_that_is_taken_away_while_it_is_read_is_one_line(
    place: Home, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    path = place.inbox / f"x{suffix}"
    path.write_text("{}")
    seen = Path.lstat

    def last_seen(self: Path) -> os.stat_result:
        state = seen(self)
        if self == path:
            path.unlink()
        return state

    monkeypatch.setattr(Path, "lstat", last_seen)
    with Store(place.store) as store:
        assert [said["error"] for said in Body(store).look(place)] == ["it was taken away before it was read"]
    assert not list((place.inbox / "rejected").glob("*"))


def test_what_is_written_to_a_file_while_it_is_taken_in_is_taken_in_too(place: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    lines, path = claude_lines(), place.inbox / "s.jsonl"
    write(path, lines[:10])

    def grows(store: Store, kept: Bundle) -> None:
        keep(store, kept)
        with path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines[10:])

    from daemon.inbox import keep

    with Store(place.store) as store:
        with monkeypatch.context() as patch:
            patch.setattr("daemon.inbox.keep", grows)
            Body(store).look(place)
        assert path.exists()
        Body(store).look(place)
        assert max(len(one.steps) for one in store.trajectories()) == 5
    assert not path.exists()


def test_on_a_full_disk_a_file_is_put_aside_whole_and_can_be_put_back(
    place: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = bundle(*range(40), folder=tmp_path).model_dump_json()
    (place.inbox / "x.session.json").write_text(text)
    with monkeypatch.context() as patch:
        patch.setattr(database, "PRAGMAS", (*database.PRAGMAS, full_after(place.store, 8)))
        with Store(place.store) as store:
            (said,) = Body(store).look(place)
            assert "the disk is full; free some space" in said["error"]
            assert store.trajectories() == []
    aside = place.inbox / "rejected" / "x.session.json"
    assert aside.read_text() == text
    aside.rename(place.inbox / "x.session.json")
    with Store(place.store) as store:
        assert Body(store).look(place)[0]["tasks"] == 40
        assert len(store.trajectories()) == len(store.tasks()) == 40


def test_a_report_that_finds_no_room_costs_nothing_of_what_was_taken_in(place: Home, tmp_path: Path) -> None:
    (place.inbox / "accepted").write_text("no folder")
    (place.inbox / "x.session.json").write_text(bundle(1, folder=tmp_path).model_dump_json())
    with Store(place.store) as store:
        assert Body(store).look(place)[0]["event"] == "inbox.accepted"
        assert len(store.trajectories()) == 1
    assert not (place.inbox / "x.session.json").exists()


def test_an_inbox_that_cannot_be_written_to_is_one_line(place: Home, tmp_path: Path) -> None:
    place.inbox.rmdir()
    with pytest.raises(DaemonError, match="inbox cannot be written to"):
        _hand_over(place, bundle(1, folder=tmp_path))


def test_what_was_ingested_can_be_searched_at_once(tmp_path: Path) -> None:
    text = json.dumps(claude_lines())
    path = json.loads(text[text.index('"file_path": ') + 13 :].partition("}")[0])
    edited = text.replace('{"old_string": ', f'{{"file_path": {json.dumps(path)}, "old_string": ')
    assert edited != text
    write(tmp_path / "c.jsonl", json.loads(edited))
    home = ("--home", str(tmp_path / "state"))
    assert run("ingest", str(tmp_path / "c.jsonl"), *home).returncode == 0
    (found,) = json.loads(run("memory", "search", "fees are doubled", "--json", *home).stdout)
    assert (found["origin"], found["verified"], found["where"]) == ("imported", False, ["bank/fees.py:fee"])
