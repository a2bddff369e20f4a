"""`sleepyctl guard`: the examinations by hand."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from agent.adapters import read_peft
from agent.pocket import WEIGHTS
from consolidation.adapters import AdapterStore
from daemon.cli import guard
from eval.errors import EvalError
from tests.agent import loras
from tests.consolidation.adapting import stored
from tests.daemon.running import write_config

DATA = Path(os.environ.get("SLEEPYD_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    write_config(home)
    return home


def sleepyctl(*arguments: str) -> Result:
    app = typer.Typer()
    guard.register(app)
    return CliRunner().invoke(app, ["guard", *arguments])


def told(*arguments: str) -> Any:
    done = sleepyctl(*arguments, "--json")
    assert done.exit_code == 0, (done.output, done.exception)
    return json.loads(done.stdout)


def test_the_bare_base_is_examined_on_all_that_applies(home: Path) -> None:
    found = told("run", "--home", str(home), "--limit", "4")
    assert found["adapters"] == {}
    assert [(one["guard"], one["items"]) for one in found["guards"]] == [("base_skills", 4), ("tool_format", 4)]
    assert {"steps", "tests", "edits", "untested"} <= found["guards"][0]["facts"].keys()
    done = sleepyctl("run", "--home", str(home), "--limit", "2", "--guard", "tool_format")
    assert done.exit_code == 0
    assert "tool_format: " in done.stdout
    assert "base_skills" not in done.stdout


def test_one_adapter_is_examined_as_if_it_served_everywhere(home: Path, tmp_path: Path) -> None:
    adapter = stored(AdapterStore(home / "adapters"), read_peft(loras.good(tmp_path / "lora", 1)), WEIGHTS)
    common = ("run", "--home", str(home), "--guard", "tool_format", "--limit", "7")
    base, candidate = told(*common, "--adapter", "base"), told(*common, "--adapter", adapter.id)
    assert candidate["adapters"] == {"*": adapter.id}
    assert candidate["guards"][0]["digest"] == base["guards"][0]["digest"]
    assert candidate["guards"][0]["score"] != base["guards"][0]["score"], "its weights are noise"


def test_unknown_names_are_answered_with_what_there_is(home: Path) -> None:
    done = sleepyctl("run", "--home", str(home), "--guard", "mbpp")
    assert isinstance(done.exception, EvalError)
    assert "there are base_skills, tool_format" in str(done.exception)
    done = sleepyctl("verify", "humanval", "--home", str(home))
    assert done.exit_code == 2


def test_verify_says_what_to_fetch_and_verifies_what_is_there(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLEEPYD_DATA", raising=False)
    done = sleepyctl("verify", "mbpp", "--home", str(home))
    assert "sleepyctl data fetch mbpp" in str(done.exception)
    if not (DATA / "sanitized-mbpp.json").is_file():
        pytest.skip("needs sanitized-mbpp.json (SLEEPYD_DATA names its folder); the project may not carry benchmark data")
    monkeypatch.setenv("SLEEPYD_DATA", str(DATA))
    found = told("verify", "mbpp", "--home", str(home), "--limit", "4")
    assert (found["sound"], found["problems"], found["failed"]) == (True, 4, [])
    assert found["mutants"] >= 4
