"""Pretraining episodes: what the pocket model may and may not have seen."""

import re
from pathlib import Path

import pytest

from agent.model import Message
from agent.pocket import WEIGHTS
from agent.pocket.tokenizer import PocketTokenizer
from agent.turns import parse_call
from eval.pocket.conventions import HOUSES, PRETRAINING_TAGS
from eval.pocket.episodes import HELD_OUT_SYMBOLS, EpisodeMaker, Mix
from eval.pocket.names import Split, split_of

COUNT = 300


@pytest.fixture(scope="module")
def episodes(tmp_path_factory: pytest.TempPathFactory) -> list[list[Message]]:
    maker = EpisodeMaker(0, tmp_path_factory.mktemp("episodes") / "repo", Mix(module_sizes=(1, 2, 3)))
    return [list(maker.episode(index).messages) for index in range(COUNT)]


def test_no_house_convention_is_ever_shown(episodes: list[list[Message]]) -> None:
    assert len(HELD_OUT_SYMBOLS) == 8
    for messages in episodes:
        words = set(re.findall(r"[A-Za-z]+", " ".join(m.content for m in messages)))
        assert not words & HELD_OUT_SYMBOLS
    assert not {house.tag for house in HOUSES.values()} & set(PRETRAINING_TAGS)


def test_only_functions_of_the_pretraining_split_are_shown(episodes: list[list[Message]]) -> None:
    for messages in episodes:
        for name in re.findall(r"\bdef ([a-z]+_[a-z]+)\(", " ".join(m.content for m in messages)):
            assert split_of(name) is Split.PRETRAIN


def test_every_episode_speaks_the_turn_protocol_and_ends_in_submit_after_a_passed_test(episodes: list[list[Message]]) -> None:
    for messages in episodes:
        calls = [parse_call(m.content) for m in messages if m.role == "assistant"]
        assert calls[-1].tool == "submit"
        assert re.match(r"0 failed, \d+ passed$", messages[-2].content)


def test_the_mix_holds_recoveries_bad_calls_and_cases(episodes: list[list[Message]]) -> None:
    failing = sum(
        any(" failed, " in m.content and not m.content.startswith("0 ") for m in e if m.role == "tool") for e in episodes
    )
    corrected = sum(any(m.content.startswith("no ") or " has " in m.content for m in e if m.role == "tool") for e in episodes)
    cases = sum(e[0].content.startswith("past case") for e in episodes)
    assert 0.1 * COUNT < failing < 0.35 * COUNT
    assert corrected > 0.01 * COUNT
    assert 0.35 * COUNT < cases < 0.65 * COUNT


def test_an_episode_is_a_function_of_seed_and_index(episodes: list[list[Message]], tmp_path: Path) -> None:
    maker = EpisodeMaker(0, tmp_path / "repo", Mix(module_sizes=(1, 2, 3)))
    assert list(maker.episode(17).messages) == episodes[17]
    assert EpisodeMaker(1, tmp_path / "repo").episode(17) != maker.episode(17)


def test_episodes_fit_the_context(episodes: list[list[Message]]) -> None:
    tokenizer = PocketTokenizer(WEIGHTS / "tokenizer.json")
    lengths = [len(tokenizer.example(e)[0]) for e in episodes]
    assert max(lengths) < 1024
    assert 150 < sum(lengths) / COUNT < 400
