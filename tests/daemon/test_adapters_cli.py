"""Adapters out of one home and into another, through every layout, by the command line."""

import shutil
from pathlib import Path

import pytest

from agent.adapters import read_peft
from agent.pocket import WEIGHTS
from consolidation.adapters import AdapterStore
from consolidation.fuse import verify
from tests.agent import loras
from tests.consolidation.adapting import stored
from tests.daemon.running import run


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with one adapter."""
    home = tmp_path / "home"
    assert run("init", "--home", str(home)).returncode == 0
    stored(AdapterStore(home / "adapters"), read_peft(loras.good(tmp_path / "lora", 1)), WEIGHTS)
    return home


def only(home: Path) -> str:
    (adapter,) = AdapterStore(home / "adapters").list()
    return adapter.id


@pytest.mark.parametrize("layout", ["peft", "mlx", "gguf"])
def test_what_is_exported_can_be_imported_elsewhere_and_acts_the_same(home: Path, tmp_path: Path, layout: str) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    done = run("adapters", "export", only(home), "--format", layout, "--out", str(out), "--home", str(home))
    assert done.returncode == 0, done.stderr
    done = run("adapters", "import", str(out), "--repos", "bank", "--home", str(other))
    assert done.returncode == 0, done.stderr
    first, second = (AdapterStore(place / "adapters").list()[0] for place in (home, other))
    one, two = read_peft(first.folder), read_peft(second.folder)
    assert (one.rank, one.scale, list(one.layers)) == (two.rank, two.scale, list(two.layers))
    assert all(one.delta(path).equal(two.delta(path)) for path in one.layers)
    assert second.standing.state == "candidate"
    assert second.manifest.scope == ("bank",)


def test_a_fused_and_quantised_model_knows_where_it_comes_from(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "fused"
    options = ["--format", "fused", "--bits", "8", "--out", str(out), "--home", str(home)]
    done = run("adapters", "export", only(home), *options)
    assert done.returncode == 0, done.stderr
    assert only(home) in verify(out).model_dump_json()
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".fused-")] == []


def test_an_adapter_for_another_base_is_refused_with_one_line(home: Path, tmp_path: Path) -> None:
    out, base, other = tmp_path / "out", tmp_path / "base", tmp_path / "other"
    assert run("adapters", "export", only(home), "--format", "peft", "--out", str(out), "--home", str(home)).returncode == 0
    shutil.copytree(WEIGHTS, base)
    (base / "config.json").write_text((base / "config.json").read_text() + "\n")
    other.mkdir()
    (other / "sleepyd.toml").write_text(f'[model]\nkind = "torch:{base}"\n')
    done = run("adapters", "import", str(out), "--home", str(other))
    assert done.returncode == 1
    assert "was trained on base model" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert AdapterStore(other / "adapters").list() == []


def test_an_unknown_layout_names_the_known_ones(home: Path, tmp_path: Path) -> None:
    done = run("adapters", "export", only(home), "--format", "zip", "--out", str(tmp_path / "x"), "--home", str(home))
    assert done.returncode == 1
    assert "peft, mlx, gguf" in done.stderr
