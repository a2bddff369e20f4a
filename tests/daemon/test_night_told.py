"""What a night would learn from, and what it came to: asked of a living daemon, and of the store it left behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from daemon.client import ask
from daemon.errors import RefusedError
from memory.store import Store
from tests.daemon.running import daemon, run, status, until, write_config


def journal(home: Path) -> tuple[int, list[str]]:
    """Nights, and the working files of them."""
    with Store(home / "sleepy.db", read_only=True) as store:
        return len(store.nights()), sorted(str(path) for path in (home / "nights").rglob("*"))


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All that was said of one night: before, meanwhile, after, and by the store when the daemon had ended."""
    home = tmp_path_factory.mktemp("told")
    write_config(home, count=6, after=0)
    found: dict[str, Any] = {"home": home}
    with daemon(home):
        until(lambda: status(home)["tasks_ended"] == 6, "six tasks")
        before = journal(home), status(home)["live"], sorted((home / "adapters").iterdir())
        found["dry"] = json.loads(run("sleep-now", "--dry-run", "--json", "--home", str(home)).stdout)
        found["dry_text"] = run("sleep-now", "--dry-run", "--home", str(home)).stdout
        found["untouched"] = before == (journal(home), status(home)["live"], sorted((home / "adapters").iterdir()))
        ask(home / "control.sock", "POST", "/sleep", {"dry_run": False})
        until(lambda: status(home)["state"] == "asleep", "the night")
        with pytest.raises(RefusedError) as refused:
            ask(home / "control.sock", "POST", "/sleep", {"dry_run": True})
        found["refused"] = str(refused.value)
        found["open"] = run("nights", "show", "last", "--home", str(home))
        until(lambda: status(home)["nights"] == 1, "the night's end", 200)
        found["row"] = ask(home / "control.sock", "GET", "/nights?last=1")[-1]
        found["text"] = run("nights", "show", "1", "--home", str(home)).stdout
        found["json"] = json.loads(run("nights", "show", "last", "--json", "--home", str(home)).stdout)
        found["live"] = status(home)["live"]
        assert run("stop", "--home", str(home)).returncode == 0
    return found


def test_a_dry_run_tells_the_data_and_why_what_is_left_out_is(told: dict[str, Any]) -> None:
    plan, data = told["dry"], told["dry"]["data"]
    assert plan["would_sleep"]
    assert data["attempts"] >= 6
    assert data["kept"] + sum(data["dropped"].values()) == data["pairs"] > 0
    assert data["tokens"] > 0
    assert data["made_by"] == "offline"
    (lesson,) = data["lessons"].values()
    assert list(data["lessons"]) == ["bank"]
    assert lesson["new"] + lesson["past"] == data["kept"]
    lines = told["dry_text"].splitlines()
    assert f"pairs                {data['pairs']} of {data['attempts']} attempts, made offline" in lines
    assert any(line.startswith("would train          bank by full_replay") for line in lines)


def test_a_dry_run_trains_nothing_and_leaves_nothing_behind(told: dict[str, Any]) -> None:
    assert told["untouched"]


def test_while_asleep_it_is_refused_with_where_to_look(told: dict[str, Any]) -> None:
    assert "it is asleep" in told["refused"]
    assert "sleepyctl nights show last" in told["refused"]


def test_a_night_that_is_being_held_is_told_as_far_as_it_has_come(told: dict[str, Any]) -> None:
    assert told["open"].returncode == 0, told["open"].stderr
    assert "not over" in told["open"].stdout


def test_the_night_learnt_from_what_the_dry_run_had_told(told: dict[str, Any]) -> None:
    data, night = told["dry"]["data"], told["json"]
    assert (night["pairs"], night["kept"], night["tokens"]) == (data["pairs"], data["kept"], data["tokens"])
    assert night["dropped"] == data["dropped"]


def test_a_night_is_explained_in_a_screenful(told: dict[str, Any]) -> None:
    lines, night = told["text"].splitlines(), told["json"]
    assert len(lines) < 40
    words = {line.split(" ")[0] for line in lines}
    assert {"night", "data", "dropped", "trained", "guard", "decision", "before", "examined", "now", "hashes"} <= words
    assert night["config_hash"] in told["text"]
    assert told["row"]["id"] in told["text"]
    assert told["row"]["why"] in told["text"]
    assert {"base_skills", "tool_format"} <= {claim["name"] for claim in night["claims"]}
    (trained,) = night["trained"]
    assert trained["candidates"][-1][:8] in told["text"]
    assert night["promoted"] == bool(told["live"])
    assert night["live_after"] == told["live"]


def test_without_a_daemon_the_store_tells_the_same(told: dict[str, Any]) -> None:
    home = told["home"]
    assert run("nights", "show", "last", "--home", str(home)).stdout == told["text"]
    assert json.loads(run("nights", "show", told["row"]["id"], "--json", "--home", str(home)).stdout) == told["json"]
    dry = run("sleep-now", "--dry-run", "--home", str(home))
    assert dry.returncode == 0
    assert "nothing is filtered" in dry.stderr


@pytest.mark.parametrize("name", ["2", "0", "latest"])
def test_a_night_that_was_not_held_is_named_with_what_there_is(told: dict[str, Any], name: str) -> None:
    done = run("nights", "show", name, "--home", str(told["home"]))
    assert done.returncode == 1
    assert "there are 1 to 1; `sleepyctl nights` lists them" in done.stderr
