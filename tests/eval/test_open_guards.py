"""Which guards examine a model here, and what is said of those that cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.errors import SandboxError
from agent.loop import Budget
from agent.model import Speech
from agent.models.scripted import ScriptedModel
from agent.sandbox.ladder import probe
from eval.coding.guards import CodingGuard
from eval.coding.problems import data_folder
from eval.errors import EvalError
from eval.fetch import SOURCES
from eval.open_guards import BENCHMARKS, GuardConfig, Opened, open_guards
from eval.places import Places
from eval.play import Player
from eval.tool_format.guard import ToolFormatGuard

CONFIG = GuardConfig(tasks=4, problems=3, answer_tokens=64, programs=1, format_seeds=2, format_temperature=0.3)


def opened(speaks: Speech, data: Path, seed: int = 0) -> Opened:
    player = Player(ScriptedModel(speaks=speaks), probe(trusted_generated=True), budget=Budget(turn_tokens=77), width=5)
    return open_guards(CONFIG, player, data, ("bank", "garden"), seed)


def needs_a_sandbox() -> None:
    try:
        probe(trusted_generated=False)
    except SandboxError as error:
        pytest.skip(str(error))


def test_one_that_speaks_tersely_is_examined_in_the_pocket_world(tmp_path: Path) -> None:
    found = opened("terse", tmp_path)
    assert [(guard.name, guard.role) for guard in found.guards] == [("base_skills", "capability"), ("tool_format", "format")]
    assert len(found.named("base_skills").items({})) == CONFIG.tasks
    assert found.left_out == ()


@pytest.mark.parametrize("speaks", ["text", "native"])
def test_any_other_by_the_benchmarks_that_are_at_hand(tmp_path: Path, speaks: Speech) -> None:
    needs_a_sandbox()
    assert [guard.name for guard in opened(speaks, tmp_path).guards] == ["tool_format"]
    (tmp_path / SOURCES["mbpp"].file).touch()
    found = opened(speaks, tmp_path)
    assert [guard.name for guard in found.guards] == ["mbpp", "tool_format"]
    (why,) = found.left_out
    assert why == f"humaneval: no file in {tmp_path}; run `sleepyctl data fetch humaneval`"
    (tmp_path / SOURCES["humaneval"].file).touch()
    found = opened(speaks, tmp_path)
    assert [guard.name for guard in found.guards] == [*BENCHMARKS, "tool_format"]
    assert {guard.role for guard in found.guards[:2]} == {"capability"}
    assert found.left_out == ()


def test_every_setting_reaches_the_guard_it_is_for(tmp_path: Path) -> None:
    needs_a_sandbox()
    for name in BENCHMARKS:
        (tmp_path / SOURCES[name].file).touch()
    *coding, form = opened("text", tmp_path, seed=9).guards
    for guard in coding:
        assert isinstance(guard, CodingGuard)
        assert (guard.seed, guard.count, guard.tokens, guard.programs, guard.block) == (9, 3, 64, 1, 5)
    assert isinstance(form, ToolFormatGuard)
    assert (form.seed, form.seeds, form.temperature, form.tokens, form.width) == (9, 2, 0.3, 77, 5)


def test_one_that_is_not_here_is_named_with_those_that_are_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(EvalError, match=r"no guard 'mbpp' here; there are base_skills, tool_format$"):
        opened("terse", tmp_path).named("mbpp")
    needs_a_sandbox()
    with pytest.raises(EvalError, match=r"no guard 'mbpp' here; there are tool_format; .*sleepyctl data fetch mbpp"):
        opened("text", tmp_path).named("mbpp")


def test_the_data_lies_in_the_state_directory_or_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLEEPYD_DATA", raising=False)
    assert data_folder(Places(tmp_path)) == tmp_path / "data"
    monkeypatch.setenv("SLEEPYD_DATA", str(tmp_path / "shared"))
    assert data_folder(Places(tmp_path)) == tmp_path / "shared"
