"""Configuration: one clear line for every mistake, wherever it was made."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from consolidation.night_config import NightConfig
from consolidation.strategies.choice import KINDS
from consolidation.strategies.ewc import EwcLora
from daemon.config import Config, SleepConfig, load_config
from daemon.errors import DaemonError
from daemon.mistakes import kinds_of


def write(path: Path, text: str) -> Path:
    file = path / "sleepy.toml"
    file.write_text(text)
    return file


def mistake(path: Path | None, environment: dict[str, str]) -> str:
    with pytest.raises(DaemonError) as error:
        load_config(path, environment)
    return str(error.value)


def leaves(settings: BaseModel, *prefix: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every setting's keys and value."""
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            yield from leaves(value, *prefix, name)
        else:
            yield (*prefix, name), value


LEAVES = list(leaves(Config()))
ONLY = {
    ("night", "lora", "patience"),
    ("night", "lora", "objective"),
    *(("night", "synthesis", name) for name in ("price_input", "price_output")),
}
"""Settings of which there is only one value as yet, or only with others."""
OTHERS = {
    ("arm",): "skill",
    ("knowledge", "url"): "http://127.0.0.1:1",
    ("knowledge", "embedder"): "hashing",
    ("knowledge", "distiller"): "model",
    ("knowledge", "floor"): 0.5,
    ("knowledge", "space"): "seed-1",
    ("tasks", "repos"): ["game"],
    ("tasks", "source"): "koans",
    ("tasks", "order"): "chronological",
    ("tasks", "mirrors"): "/srv/mirrors",
    ("tasks", "grading"): "docker",
    ("tasks", "image"): "mine:{id}",
    ("tasks", "missing_image"): "pull",
    ("sleep", "window"): "01:00-05:00",
    ("sleep", "timezone"): "Europe/Berlin",
    ("night", "scope"): "all",
    ("night", "strategy", "kind"): "naive",
    ("night", "synthesis", "format"): "A",
    ("night", "synthesis", "source"): "self",
    ("night", "synthesis", "model"): "anthropic:claude-opus-4-1",
    ("resources", "niceness"): 5,
    ("watch", "control_share"): 0.1,
    ("metrics", "sinks"): ["tensorboard:/srv/curves"],
    ("night", "lora", "targets"): ["q_proj"],
    ("log", "level"): "debug",
    ("night", "lora", "validation"): 0.1,
    ("night", "machine", "device"): "mps",
    ("night", "machine", "quantise"): "nf4",
    ("night", "lora", "batching"): "packed",
    ("night", "lora", "reference"): "start",
    ("night", "lora", "precision"): "bf16",
    ("model", "kind"): "ollama:qwen2.5-coder:7b",
    ("model", "base"): "/models/qwen",
    ("model", "trainer"): "mlx",
    ("model", "device"): "cuda",
    ("model", "think"): "no",
    ("model", "tool_calls"): "text",
    ("model", "host"): "http://127.0.0.1:1",
}
"""Another value, where it is not just a larger number or the opposite."""


def other(keys: tuple[str, ...], value: Any) -> Any:
    if keys in OTHERS:
        return OTHERS[keys]
    if keys[-1] == "confidence":
        return 0.9
    if isinstance(value, bool):
        return not value
    return value / 2 if 0 < value < 1 else value + 1


# Values


def test_without_a_file_the_defaults_hold() -> None:
    assert load_config(None, {}) == Config()


def test_values_are_read(tmp_path: Path) -> None:
    text = '[tasks]\nrepos = ["garden"]\n[night]\nmerged_fixes = false\n[night.lora]\nrank = 4\n'
    config = load_config(write(tmp_path, text))
    assert config.tasks.repos == ("garden",)
    assert not config.night.merged_fixes
    assert config.night.lora.rank == 4


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, ""), {}) == Config()


@pytest.mark.parametrize(("keys", "value"), LEAVES, ids=lambda part: ".".join(part) if isinstance(part, tuple) else "")
def test_every_setting_is_documented_and_its_default_is_valid(keys: tuple[str, ...], value: Any) -> None:
    model: type[BaseModel] = Config
    for key in keys[:-1]:
        field = model.model_fields[key]
        annotation = kinds_of(field)[field.default.kind] if kinds_of(field) else field.annotation
        assert isinstance(annotation, type)
        model = annotation
    assert model.model_fields[keys[-1]].description or keys == ("night", "strategy", "kind"), "the template has its text"
    data: dict[str, Any] = {keys[-1]: list(value) if isinstance(value, tuple) else value}
    for key in reversed(keys[:-1]):
        data = {key: data}
    assert Config.model_validate(data).hash == Config().hash


# Mistakes in the file


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[nigth]\nseed = 1\n", "nigth: unknown key; did you mean 'night'?"),
        ("[night.lora]\nranks = 1\n", "night.lora.ranks: unknown key; did you mean 'rank'?"),
        ("[night.lora]\nrank = 0\n", "night.lora.rank: Input should be greater than or equal to 1"),
        ('[tasks]\nrepos = ["gardn"]\n', "tasks.repos: no pocket repository 'gardn'; did you mean 'garden'?"),
        (
            "[tasks]\nsource = 'bench'\n",
            "tasks.source: there is no 'bench'; valid is 'pocket', 'koans', 'swe-bench-cl' or 'repo:PATH'",
        ),
        ('[tasks]\nrepos = ["bank", "bank"]\n', "tasks.repos: name no repository twice"),
        ("[day]\nrepos = 3\n", "day.repos: unknown key; valid are attempts, batch, retries"),
        ('[model]\nkind = "gpt"\n', "model.kind: 'gpt' names no model; write pocket"),
        ('[log]\nlevel = "chatty"\n', "log.level: there is no 'chatty'; valid is 'debug', 'info', 'warning' or 'error'"),
        ("day = 3\n", "day: Input should be a valid dictionary"),
        ("[day\n", "cannot read the configuration"),
        ("x = " + "[" * 100_000, "cannot read the configuration"),
        ("[budget]\nseconds = inf\n", "budget.seconds is inf; give a finite number"),
        ("[night.lora]\nlearning_rate = inf\n", "night.lora.learning_rate is inf; give a finite number"),
        ("[life]\ngrace_seconds = nan\n", "life.grace_seconds"),
        ("[sleep]\nmisfire_grace_hours = 1e300\n", "sleep.misfire_grace_hours: Input should be less than or equal to 168"),
    ],
)
def test_mistakes_name_file_key_and_nearest_name(tmp_path: Path, text: str, message: str) -> None:
    file = write(tmp_path, text)
    told = mistake(file, {})
    assert message in told
    assert str(file) in told


def test_every_mistake_is_one_line(tmp_path: Path) -> None:
    file = write(tmp_path, "[day]\nbatch = 0\nretries = -1\nbach = 1\n")
    lines = mistake(file, {"SLEEPYD_LIFE__CRASHES": "many"}).splitlines()
    assert len(lines) == 4
    assert [line.split(": ")[:2] for line in lines] == [
        [str(file), "day.batch"],
        [str(file), "day.retries"],
        [str(file), "day.bach"],
        ["SLEEPYD_LIFE__CRASHES", "life.crashes"],
    ]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DaemonError, match=r"gone\.toml"):
        load_config(tmp_path / "gone.toml")


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / "sleepy.toml"
    file.write_bytes(b"[day]\nbatch = \xff\n")
    assert f"{file}: cannot read the configuration" in mistake(file, {})
    assert f"{tmp_path}: cannot read the configuration" in mistake(tmp_path, {})


# The environment


def test_the_environment_overrides_the_file_and_leaves_the_rest(tmp_path: Path) -> None:
    file = write(tmp_path, "[day]\nbatch = 3\nretries = 5\n[night.lora]\nrank = 4\nalpha = 8.0\n")
    environment = {
        "SLEEPYD_DAY__BATCH": "4",
        "SLEEPYD_NIGHT__LORA__RANK": "2",
        "SLEEPYD_NIGHT__MERGED_FIXES": "false",
        "SLEEPYD_SLEEP__WINDOW": "23:00-05:00",
        "SLEEPYD_BUDGET__SECONDS": "1.5",
    }
    config = load_config(file, environment)
    assert (config.day.batch, config.day.retries) == (4, 5)
    assert (config.night.lora.rank, config.night.lora.alpha) == (2, 8.0)
    assert not config.night.merged_fixes
    assert config.sleep.window == "23:00-05:00"
    assert config.budget.seconds == 1.5


def test_lists_and_tables_are_written_as_json() -> None:
    environment = {
        "SLEEPYD_TASKS__REPOS": '["game", "bank"]',
        "SLEEPYD_DAY": '{"batch": 3, "retries": 7}',
        "SLEEPYD_DAY__BATCH": "5",
    }
    config = load_config(None, environment)
    assert config.tasks.repos == ("game", "bank")
    assert (config.day.batch, config.day.retries) == (5, 7)


def test_nothing_is_a_value_too() -> None:
    assert load_config(None, {"SLEEPYD_SLEEP__WINDOW": ""}).sleep.times is None


def test_the_state_directory_and_other_programs_variables_are_no_settings() -> None:
    environment = {"SLEEPYD_HOME": "/somewhere", "SLEEPY": "1", "_SLEEPYD_DAY__BATCH": "x", "MY_SLEEPYD_DAY__BATCH": "x"}
    assert load_config(None, environment) == Config()


def test_the_environment_of_the_process_is_the_one_that_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SLEEPYD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SLEEPYD_DAY__BATCH", "31")
    assert load_config(None).day.batch == 31


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("SLEEPYD_DAY__BACH", "4", "day.bach: unknown key; did you mean 'batch'?"),
        ("SLEEPYD_NIGTH__SEED", "1", "nigth: unknown key; did you mean 'night'?"),
        ("SLEEPYD_NIGHT__LORRA__RANK", "1", "night.lorra: unknown key; did you mean 'lora'?"),
        ("SLEEPYD_NIGHT__LORA__RANKS", "1", "night.lora.ranks: unknown key; did you mean 'rank'?"),
        ("SLEEPYD_QUANTITY", "4", "quantity: unknown key; valid are arm, tasks, model,"),
        ("SLEEPYD_", "4", ": unknown key; valid are arm, tasks, model,"),
        ("SLEEPYD_DAY__BATCH", "many", "day.batch: Input should be a valid integer"),
        ("SLEEPYD_DAY__BATCH", "", "day.batch: Input should be a valid integer"),
        ("SLEEPYD_DAY__BATCH__SIZE", "4", "day.batch: Input should be a valid integer"),
        ("SLEEPYD_DAY", "4", "day: Input should be a valid dictionary"),
        ("SLEEPYD_DAY", "[" * 100_000, "day: Input should be a valid dictionary"),
        ("SLEEPYD_TASKS__REPOS", "bank", "tasks.repos: Input should be a valid tuple"),
        ("SLEEPYD_TASKS__REPOS", '["bank"', "tasks.repos: Input should be a valid tuple"),
        ("SLEEPYD_TASKS__REPOS", '["bnk"]', "tasks.repos: no pocket repository 'bnk'; did you mean 'bank'?"),
        ("SLEEPYD_SLEEP__TIMEZONE", "Europe/Berln", "sleep.timezone: no time zone 'Europe/Berln'"),
    ],
)
@pytest.mark.parametrize("with_file", [False, True])
def test_mistakes_in_the_environment_name_the_variable_and_the_nearest_key(
    tmp_path: Path, variable: str, value: str, message: str, with_file: bool
) -> None:
    file = write(tmp_path, "[night]\nseed = 3\n[life]\ncrashes = 4\n") if with_file else None
    told = mistake(file, {variable: value, "SLEEPYD_LIFE__GRACE_SECONDS": "1"})
    assert told.startswith(f"{variable}: {message}")


def test_a_variable_below_a_plain_value_is_named(tmp_path: Path) -> None:
    file = write(tmp_path, "[day]\nbatch = 3\n")
    told = mistake(file, {"SLEEPYD_DAY__BATCH__SIZE": "4"})
    assert told == "SLEEPYD_DAY__BATCH__SIZE: batch is no table of settings"


def test_of_two_variables_of_a_table_the_wrong_one_is_named() -> None:
    told = mistake(None, {"SLEEPYD_DAY__BATCH": "4", "SLEEPYD_DAY__RETRIES": "-1"})
    assert told.startswith("SLEEPYD_DAY__RETRIES: day.retries:")


def test_the_files_mistake_is_not_put_down_to_a_variable(tmp_path: Path) -> None:
    file = write(tmp_path, "[day]\nbatch = 0\n")
    assert mistake(file, {"SLEEPYD_DAY__RETRIES": "1"}).startswith(f"{file}: day.batch:")


# Settings that come in kinds


@pytest.mark.parametrize("kind", KINDS)
def test_every_strategy_is_chosen_by_its_kind_in_the_file_and_in_the_environment(tmp_path: Path, kind: str) -> None:
    file = write(tmp_path, f'[night.strategy]\nkind = "{kind}"\n')
    assert load_config(file, {}).night.strategy.kind == kind
    by_environment = load_config(None, {"SLEEPYD_NIGHT__STRATEGY__KIND": kind})
    assert by_environment.hash == load_config(file, {}).hash
    assert Config.model_validate_json(by_environment.model_dump_json()) == by_environment


@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_of_every_strategy_is_documented(kind: str) -> None:
    fields = kinds_of(NightConfig.model_fields["strategy"])[kind].model_fields
    assert [name for name, field in fields.items() if name != "kind" and not field.description] == []


def test_a_table_that_names_no_kind_is_of_the_default(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "[night.strategy]\n"), {}) == Config()


def test_the_environment_changes_one_setting_of_the_kind_that_the_file_names(tmp_path: Path) -> None:
    file = write(tmp_path, '[night.strategy]\nkind = "ewc"\nweight = 3\n')
    strategy = load_config(file, {"SLEEPYD_NIGHT__STRATEGY__GAMMA": "0.5"}).night.strategy
    assert strategy == EwcLora(weight=3, gamma=0.5)


@pytest.mark.parametrize(
    ("text", "environment", "message"),
    [
        (
            "weight = 3",
            {},
            "{file}: night.strategy.weight: a setting of 'ewc', but night.strategy.kind is 'full_replay'; leave it out, ",
        ),
        (
            'kind = "ewc"\nsize = 9',
            {},
            "{file}: night.strategy.size: a setting of 'partial_replay', but night.strategy.kind is",
        ),
        ("", {"WEIGHT": "3"}, "SLEEPYD_NIGHT__STRATEGY__WEIGHT: night.strategy.weight: a setting of 'ewc', but "),
        ('kind = "ewc"\nweigth = 9', {}, "{file}: night.strategy.weigth: unknown key of 'ewc'; did you mean 'weight'?"),
        ('kind = "ewc"', {"WEIGHT": "-1"}, "SLEEPYD_NIGHT__STRATEGY__WEIGHT: night.strategy.weight: Input should be"),
        ('kind = "ecw"', {}, "{file}: night.strategy.kind: there is no 'ecw'; valid are 'adaptive_rank', 'ewc', 'full_replay'"),
        ("", {"KIND": "ecw"}, "SLEEPYD_NIGHT__STRATEGY__KIND: night.strategy.kind: there is no 'ecw'; valid are"),
        ('kind = "ewc"\nweight = 3', {"KIND": "naive"}, "{file}: night.strategy.weight: a setting of 'ewc', but "),
        ("", {"KIND": '{"a": 1}'}, "SLEEPYD_NIGHT__STRATEGY__KIND: night.strategy.kind: there is no "),
    ],
)
def test_a_setting_of_another_kind_is_one_line_that_names_it(
    tmp_path: Path, text: str, environment: dict[str, str], message: str
) -> None:
    file = write(tmp_path, f"[night.strategy]\n{text}\n")
    told = mistake(file, {f"SLEEPYD_NIGHT__STRATEGY__{name}": value for name, value in environment.items()})
    assert told.startswith(message.format(file=file))
    assert "\n" not in told


# The window


@pytest.mark.parametrize("window", ["02:00-06:00", "22:30-05:15", "00:00-23:59", "23:59-00:00", ""])
def test_windows_within_a_day_and_over_midnight_are_taken(window: str) -> None:
    times = SleepConfig(window=window).times
    assert "-".join(f"{moment:%H:%M}" for moment in times or ()) == window


@pytest.mark.parametrize(
    "window",
    [
        "2:00-6:00",
        "02:00",
        "02:00-",
        "02:00 - 06:00",
        "02:00-06:00\n",
        "24:00-06:00",
        "02:60-06:00",
        "02:00-06:00-08:00",
        "02:00:00-06:00:00",
        "02:00+01:00-06:00",
        "\u0660\u0662:\u0660\u0660-\u0660\u0666:\u0660\u0660",  # digits, but not ours
        "night",
        "02:00-02:00",
    ],
)
def test_what_is_no_window_is_refused(tmp_path: Path, window: str) -> None:
    assert mistake(None, {"SLEEPYD_SLEEP__WINDOW": window}).startswith("SLEEPYD_SLEEP__WINDOW: sleep.window: ")


@pytest.mark.parametrize("zone", ["Europe/Berlin", "UTC", "Australia/Lord_Howe", ""])
def test_time_zones_are_known_by_their_names(zone: str) -> None:
    assert load_config(None, {"SLEEPYD_SLEEP__TIMEZONE": zone}).sleep.timezone == zone


@pytest.mark.parametrize(
    "zone", ["Berlin", "Europe", "europe berlin", "../../etc/passwd", "/etc/localtime", "zone.tab", "\x00", "."]
)
def test_what_is_no_time_zone_is_refused(zone: str) -> None:
    told = mistake(None, {"SLEEPYD_SLEEP__TIMEZONE": zone})
    assert (
        told
        == f"SLEEPYD_SLEEP__TIMEZONE: sleep.timezone: no time zone {zone!r} on this machine; use a name such as Europe/Berlin"
    )


# What contradicts


def test_fewer_guard_tasks_than_the_gate_asks_for_could_promote_nothing(tmp_path: Path) -> None:
    file = write(tmp_path, "[guard]\ntasks = 39\n[night.gate]\nmin_tasks = 40\n")
    told = mistake(file, {})
    assert str(file) in told
    assert "guard.tasks is 39, but night.gate.min_tasks asks for 40" in told
    assert load_config(file, {"SLEEPYD_GUARD__TASKS": "40"}).guard.tasks == 40
    assert load_config(file, {"SLEEPYD_NIGHT__GATE__MIN_TASKS": "39"}).guard.tasks == 39


def test_a_mixture_is_refused_where_ollama_serves_what_is_live(tmp_path: Path) -> None:
    file = write(tmp_path, '[model]\nkind = "ollama:qwen"\n[night.strategy]\nkind = "mixture"\n')
    told = mistake(file, {})
    assert told.startswith(f"{file}: night.strategy.kind is 'mixture', but model.kind is 'ollama:qwen'")
    assert load_config(file, {"SLEEPYD_MODEL__KIND": "torch:/models/qwen"}).night.strategy.kind == "mixture"
    assert load_config(file, {"SLEEPYD_ARM": "knowledge"}).night.strategy.kind == "mixture"


# The hash


def test_every_setting_changes_the_hash() -> None:
    hashes = {Config().hash}
    for keys, value in LEAVES:
        if keys in ONLY:
            continue
        changed = other(keys, value)
        assert changed != value
        data: dict[str, Any] = {keys[-1]: changed}
        for key in reversed(keys[:-1]):
            data = {key: data}
        hashes.add(Config.model_validate(data).hash)
    assert len(hashes) == len(LEAVES) - len(ONLY) + 1


def test_the_same_settings_have_the_same_hash_however_they_were_given(tmp_path: Path) -> None:
    by_file = load_config(write(tmp_path, "[sleep]\nmisfire_grace_hours = 6\n[day]\nbatch = 3\n"), {})
    by_environment = load_config(None, {"SLEEPYD_DAY__BATCH": "3", "SLEEPYD_SLEEP__MISFIRE_GRACE_HOURS": "6.0"})
    assert by_file.hash == by_environment.hash
    assert Config.model_validate_json(by_file.model_dump_json()).hash == by_file.hash
