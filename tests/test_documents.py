"""What the documents say can be done: settings are valid, commands are there, examples are what the program makes."""

import importlib
import pkgutil
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from agent.turns import parse_call
from consolidation.pairs import Format
from daemon import cli
from daemon.config import Config
from eval.bench_watch import bench_watch
from eval.bench_watch_card import card, upper_rate
from eval.watch import WatchConfig
from tests.consolidation.attempts import OFFLINE, day

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NIGHTS = (ROOT / "docs" / "nights.md").read_text(encoding="utf-8")
_TOML = re.compile(r"^```toml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"sleepyctl((?: [a-z][a-z-]*)+)")
FORMATS: tuple[Format, ...] = ("A", "B", "C", "D", "E")
QUOTED = [("What 591 items", "```toml", "gate"), ("By [results/watch", "What an alarm", "watch")]


@cache
def commands() -> Any:
    app = typer.Typer()
    for found in pkgutil.iter_modules(cli.__path__):
        module = importlib.import_module(f"{cli.__name__}.{found.name}")
        if hasattr(module, "register"):
            module.register(app)
    return typer.main.get_command(app)


@pytest.mark.parametrize("text", _TOML.findall(NIGHTS))
def test_every_configuration_shown_is_valid(text: str) -> None:
    Config.model_validate(tomllib.loads(text))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_named_is_there(document: Path) -> None:
    for words in _COMMAND.findall(document.read_text(encoding="utf-8")):
        place = commands()
        for word in words.split():
            if not hasattr(place, "commands"):
                break  # what follows are arguments
            assert word in place.commands, f"sleepyctl{words}: there is no {word}"
            place = place.commands[word]


@pytest.mark.parametrize("how", FORMATS)
def test_the_examples_of_the_formats_are_what_the_rules_make(how: Format) -> None:
    shown = {line.strip() for line in re.sub(r"^[A-E ] (?:user|tool|assistant|rejected) ", "", NIGHTS, flags=re.M).split("\n")}
    lived = next(one for one in day() if one.failed) if how in "CD" else day()[0]
    (pair,) = OFFLINE.pairs(lived, how, 1)
    told = [pair.messages[0][1], pair.rejected] if how in "CE" else [pair.messages[-1][1]]
    told += [pair.messages[-1][1]] if how == "C" else []
    assert parse_call(pair.messages[-1][1])
    lines = [line.strip() for text in told for line in text.split("\n")]
    assert [line for line in lines if line not in shown] == []


@pytest.mark.parametrize(("begins", "ends", "results"), QUOTED)
def test_figures_that_are_quoted_stand_in_the_results(begins: str, ends: str, results: str) -> None:
    quoted = NIGHTS[NIGHTS.index(begins) :].partition(ends)[0]
    text = (ROOT / "docs" / "results" / f"{results}.md").read_text(encoding="utf-8")
    figures = set(re.findall(r"\d+\.\d+", quoted))
    assert len(figures) >= 3
    assert {figure for figure in figures if figure not in re.findall(r"\d+\.\d+", text)} == set()


def test_the_card_of_the_watch_tells_every_case_the_worst_one_and_every_delay() -> None:
    bench = bench_watch(WatchConfig(), runs=1, rates=(0.5,))
    text = card(bench)
    assert f"| 50% | {' | '.join(f'{case.per_1000:.2f}' for case in bench.cases)} |" in text
    assert f"{max(case.alarms for case in bench.cases)} alarms in 1,000 tasks" in text
    assert text.count(" points | ") == len(bench.delay) + len(bench.conflict_delay)
    assert upper_rate(0, 1000) == pytest.approx(0.003, rel=0.01)  # the rule of three
