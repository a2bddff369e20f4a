"""`sleepyctl ingest` and the inbox: other agents' sessions, with and without a daemon."""

import json
import shutil
from pathlib import Path

import pytest

from daemon.home import Home
from memory.store import Store
from memory.trajectories import Trajectory
from tests.daemon.running import daemon, run, until, write_config
from tests.memory.ingest.samples import KEY, claude_lines, mini, swe_agent, write


@pytest.fixture
def sessions(tmp_path: Path) -> Path:
    folder = tmp_path / "sessions"
    folder.mkdir()
    write(folder / "acme__bank-12.traj", swe_agent())
    write(folder / "b.traj.json", mini())
    write(folder / "c.jsonl", json.loads(json.dumps(claude_lines()).replace("pytest", f"curl -H 'x-api-key: {KEY}'")))
    return folder


def imported(home: Path) -> list[Trajectory]:
    with Store(home / "sleepy.db", read_only=True) as store:
        assert store.results() == []  # nights learn from results alone, so nothing of this is trained on
        return [one for one in store.trajectories() if one.imported]


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
        until(lambda: len(list(accepted.glob("*.session.json"))) == 1, "the bundle")
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


def test_an_owned_store_is_not_written_to(sessions: Path, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    done = run("ingest", str(sessions), "nowhere.traj", "--home", str(home.root), cwd=tmp_path)
    assert done.returncode == 1
    assert "nowhere.traj: No such file" in done.stderr
    assert len(imported(home.root)) == 3
