"""Configuration: one clear line for every mistake."""

from pathlib import Path

import pytest

from daemon.config import Config, load_config
from daemon.errors import DaemonError


def write(path: Path, text: str) -> Path:
    file = path / "sleepy.toml"
    file.write_text(text)
    return file


def test_without_a_file_the_defaults_hold() -> None:
    assert load_config(None) == Config()


def test_values_are_read(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, '[day]\nrepos = ["garden"]\n[night]\nmerged_fixes = false\n[night.lora]\nrank = 4\n'))
    assert config.day.repos == ("garden",)
    assert not config.night.merged_fixes
    assert config.night.lora.rank == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[nigth]\nseed = 1\n", "nigth: unknown key; did you mean 'night'?"),
        ("[night.lora]\nranks = 1\n", "night.lora.ranks: unknown key; did you mean 'rank'?"),
        ("[night.lora]\nrank = 0\n", "night.lora.rank: Input should be greater than or equal to 1"),
        ('[day]\nrepos = ["gardn"]\n', "day.repos: no pocket repository 'gardn'; did you mean 'garden'?"),
        ("[day\n", "cannot read the configuration"),
    ],
)
def test_mistakes_name_file_key_and_nearest_name(tmp_path: Path, text: str, message: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(DaemonError) as error:
        load_config(file)
    assert message in str(error.value)
    assert str(file) in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DaemonError, match=r"gone\.toml"):
        load_config(tmp_path / "gone.toml")
