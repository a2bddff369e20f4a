"""Environments: made once, whole or not at all, by whoever comes first; and what is missing is named."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agent.workspace import Workspace
from eval.errors import EvalError
from eval.swebench.native import runs
from eval.swebench.native.environments import Environments, _uv
from eval.swebench.native.recipes import Recipe

EMPTY = Recipe(
    repo="acme/lathe",
    version="1.0",
    python=sys.executable,
    packages=(),
    sources=(),
    before="2024-01-01",
    dist="lathe",
    run=("-m", "pytest"),
    paths=("src",),
    witness="pytest",
    compat=("names",),
    files={"src/_version.py": "version = '{version}'\n"},
    env={"LANGUAGE": "en"},
    protected=(),
)

try:
    _uv()
except EvalError as error:
    pytest.skip(str(error), allow_module_level=True)


def ask(place: Workspace, program: str) -> str:
    return subprocess.run(
        [place.test_argv[0], "-c", program], env=dict(place.env), check=True, capture_output=True, text=True, timeout=60
    ).stdout.strip()


def test_an_environment_is_made_once_and_knows_the_repository_as_installed(tmp_path: Path) -> None:
    steps: list[str] = []
    made = Environments(tmp_path, on_step=steps.append).get(EMPTY)
    again = Environments(tmp_path, on_step=steps.append).get(EMPTY)
    assert again == made
    assert len(steps) == 1
    place = runs.workspace(EMPTY, made, tmp_path / "repo")
    assert place.test_argv[1:] == ("-m", "pytest")
    assert ask(place, "import importlib.metadata as m; print(m.version('lathe'))") == "1.0"
    assert ask(place, "import sys; print(sys.path[2])") == str(tmp_path / "repo" / "src")
    assert ask(place, "import collections; print(collections.Mapping.__name__)") == "Mapping"
    assert ask(place, "import os; print(os.environ['LANGUAGE'])") == "en"
    assert made.facts.python == sys.version.split()[0]


def test_what_the_build_would_write_is_written_inside_the_repository_only(tmp_path: Path) -> None:
    (tmp_path / "repo" / "src").mkdir(parents=True)
    runs.build(EMPTY, tmp_path / "repo", "1.2")
    assert (tmp_path / "repo" / "src" / "_version.py").read_text() == "version = '1.2'\n"
    (tmp_path / "other").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "other" / "src").symlink_to(tmp_path / "outside")
    runs.build(EMPTY, tmp_path / "other", "1.2")
    assert list((tmp_path / "outside").iterdir()) == []


def test_half_an_environment_is_made_anew(tmp_path: Path) -> None:
    home = tmp_path / Environments(tmp_path).key(EMPTY)
    (home / "venv").mkdir(parents=True)
    (home / "venv" / "left").write_text("behind")
    made = Environments(tmp_path).get(EMPTY)
    assert not (home / "venv" / "left").exists()
    assert made.python.exists()
    (home / "environment.json").write_text("{")
    assert Environments(tmp_path).get(EMPTY) == made


MAKE = """
import sys
from pathlib import Path
from eval.swebench.native.environments import Environments
from eval.swebench.native.recipes import Recipe
folder = Path(sys.argv[1])
made = Environments(folder, on_step=lambda step: print("x", file=(folder / "steps").open("a")))
made.get(Recipe.model_validate_json(sys.argv[2]))
"""


def test_of_many_that_want_it_one_makes_it(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", MAKE, str(tmp_path), EMPTY.model_dump_json()]
    others = [subprocess.Popen(argv, cwd=Path(__file__).parents[2]) for _ in range(2)]
    with (tmp_path / "steps").open("a", buffering=1) as steps:
        mine = Environments(tmp_path, on_step=lambda step: print("x", file=steps))
        threads = [threading.Thread(target=mine.get, args=(EMPTY,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert [other.wait(60) for other in others] == [0, 0]
    assert (tmp_path / "steps").read_text() == "x\n"


def test_whatever_decides_an_environment_decides_its_key(tmp_path: Path) -> None:
    key = Environments(tmp_path).key
    others = [
        EMPTY.model_copy(update=change)
        for change in ({"packages": ("a",)}, {"python": "3.9"}, {"version": "1.1"}, {"sources": ("a",)}, {"dist": "other"})
    ]
    assert len({key(EMPTY), *map(key, others), Environments(tmp_path, "3.9.1").key(EMPTY)}) == len(others) + 2
    assert key(EMPTY.model_copy(update={"run": ("x",), "env": {}})) == key(EMPTY)


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_NO_CACHE", "1")
    with pytest.raises(EvalError, match=r"acme/lathe 1\.0 cannot be made.*spindle"):
        Environments(tmp_path).get(EMPTY.model_copy(update={"packages": ("spindle==1",)}))
    with pytest.raises(EvalError, match=r"3\.2"):
        Environments(tmp_path).get(EMPTY.model_copy(update={"python": "3.2"}))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(EvalError, match="pip install uv"):
        Environments(tmp_path).get(EMPTY)
    assert not any(path.name == "environment.json" for path in tmp_path.rglob("*"))
