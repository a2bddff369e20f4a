"""The configuration file that `init` writes: true to the defaults, private, and never over an owner's own."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

from consolidation.night_config import NightConfig
from daemon.config import Config, load_config
from daemon.errors import DaemonError
from daemon.mistakes import kinds_of
from daemon.template import render, write_config
from tests.daemon.disks import mounted

SHOWN_DEFAULT = re.compile(r"^#(?=\w+ = )", re.MULTILINE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sleepyd.toml"


@pytest.fixture
def written(path: Path) -> str:
    write_config(path, "pocket", "pocket", force=False)
    return path.read_text(encoding="utf-8")


def names(data: dict[str, object], prefix: str = "") -> set[str]:
    found: set[str] = set()
    for name, value in data.items():
        found |= names(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}"}
    return found


def test_what_is_written_loads_to_the_defaults(written: str, path: Path) -> None:
    assert load_config(path, {}) == Config()
    assert load_config(path, {}).hash == Config().hash


def test_with_every_comment_sign_taken_away_it_still_loads_to_the_defaults(written: str, path: Path) -> None:
    path.write_text(SHOWN_DEFAULT.sub("", written), encoding="utf-8")
    assert load_config(path, {}) == Config()
    assert load_config(path, {}).hash == Config().hash


def test_every_setting_is_shown_once_and_nothing_else(written: str) -> None:
    shown = tomllib.loads(SHOWN_DEFAULT.sub("", written))  # a name twice would not be TOML
    assert names(shown) == names(Config().model_dump())


def test_only_what_was_chosen_is_in_force(written: str) -> None:
    assert names(tomllib.loads(written)) == {"model.kind", "tasks.source"}


def test_each_setting_alone_can_be_taken_out_of_its_comment(written: str, path: Path) -> None:
    places = [found.start() for found in SHOWN_DEFAULT.finditer(written)]
    assert len(places) > 40
    for place in places:
        path.write_text(written[:place] + written[place + 1 :], encoding="utf-8")
        assert load_config(path, {}) == Config()


def test_what_every_setting_means_stands_above_it(written: str) -> None:
    lines = written.splitlines()
    for above, line in pairwise(lines):
        if re.match(r"#?\w+ = ", line):
            assert above.startswith("# "), f"{line!r} has no comment"
        if line.startswith("["):
            assert above.startswith("# "), f"{line!r} has no comment"
    assert all(len(line) <= 120 for line in lines)


def test_values_that_are_no_defaults_are_shown_as_they_are() -> None:
    config = Config.model_validate(
        {"tasks": {"repos": ["garden"]}, "sleep": {"timezone": "Europe/Berlin"}, "life": {"crashes": 7}}
    )
    shown = SHOWN_DEFAULT.sub("", render(config, {}))
    assert Config.model_validate(tomllib.loads(shown)) == config


def test_it_is_for_the_owner_alone_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        write_config(path, "pocket", "pocket", force=False)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_it_is_never_written_over_an_owners_own(path: Path) -> None:
    path.write_text("# mine\n")
    with pytest.raises(DaemonError, match=r"sleepyd\.toml is there already; edit it, or replace it with --force"):
        write_config(path, "pocket", "pocket", force=False)
    assert path.read_text() == "# mine\n"


def test_it_is_replaced_when_asked_for_and_made_private(path: Path) -> None:
    path.write_text("[nonsense\n")
    path.chmod(0o644)
    write_config(path, "pocket", "pocket", force=True)
    assert load_config(path, {}) == Config()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("model", "tasks", "message"),
    [
        ("gpt-7", "pocket", "sleepyctl init: model.kind: 'gpt-7' names no model; write pocket, torch:PATH"),
        ("pocket", "swe", "sleepyctl init: tasks.source: there is no 'swe'; valid is 'pocket'"),
        ("", "pocket", "sleepyctl init: model.kind: '' names no model"),
        ('pocket"\nthreads = 3\n#', "pocket", "sleepyctl init: model.kind: 'pocket\"\\nthreads = 3\\n#' names no model"),
    ],
)
@pytest.mark.parametrize("force", [False, True])
def test_an_unknown_model_or_stream_is_named_and_changes_nothing(
    path: Path, model: str, tasks: str, message: str, force: bool
) -> None:
    if force:
        path.write_text("# mine\n")
    with pytest.raises(DaemonError) as error:
        write_config(path, model, tasks, force)
    assert str(error.value).startswith(message)
    assert [entry.name for entry in path.parent.iterdir()] == (["sleepyd.toml"] if force else [])
    assert not force or path.read_text() == "# mine\n"


def test_a_name_that_is_no_text_is_refused(path: Path) -> None:
    with pytest.raises(DaemonError, match="cannot be written"):
        write_config(path, "caf\udce9", "pocket", force=False)
    assert list(path.parent.iterdir()) == []


def test_the_environment_of_whoever_writes_it_has_no_say(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLEEPYD_DAY__BATCH", "nonsense")
    write_config(path, "pocket", "pocket", force=False)
    assert load_config(path, {}) == Config()


def test_a_full_disk_leaves_the_older_file_and_nothing_else(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=8k") as disk:
        path = disk / "sleepyd.toml"
        path.write_text("# mine\n")
        (disk / "ballast").write_bytes(b"x" * 4096)
        with pytest.raises(DaemonError, match=r"sleepyd\.toml cannot be written.*[Nn]o space"):
            write_config(path, "pocket", "pocket", force=True)
        assert path.read_text() == "# mine\n"
        assert sorted(entry.name for entry in disk.iterdir()) == ["ballast", "sleepyd.toml"]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DaemonError, match=r"missing.sleepyd\.toml cannot be written"):
        write_config(tmp_path / "missing" / "sleepyd.toml", "pocket", "pocket", force=False)


def test_every_strategy_stands_in_it_with_its_settings(written: str) -> None:
    at = written.index("[night.strategy]")
    told = " ".join(written[at : written.index("[night.synthesis]")].replace("#", " ").split())
    for kind, model in kinds_of(NightConfig.model_fields["strategy"]).items():
        assert kind in told
        assert [name for name in model.model_fields if f"{name} = " not in told] == []


def test_another_strategy_is_shown_with_what_its_settings_mean() -> None:
    config = Config.model_validate({"night": {"strategy": {"kind": "ewc", "weight": 7.0}}})
    shown = SHOWN_DEFAULT.sub("", render(config, {}))
    assert Config.model_validate(tomllib.loads(shown)) == config
    assert "λ; 0 trains as the naive strategy does" in shown


def test_for_a_large_model_on_real_repositories_no_guard_attempts_whole_tasks(path: Path) -> None:
    write_config(path, "torch:/models/qwen", "swe-bench-cl", force=False)
    config = load_config(path, {})
    assert (config.guard.retention_tasks, config.guard.conduct_tasks) == (0, 0)
    write_config(path, "torch:/models/qwen", "koans", force=True)
    assert load_config(path, {}).guard == Config().guard
