"""What is held out stays out, and copies are learnt once: on made pairs, in the pocket world, and on the benchmark's rows."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.pocket import WEIGHTS
from agent.pocket.tokenizer import PocketTokenizer
from agent.sandbox.ladder import probe
from agent.turns import Call, render_call, render_full
from consolidation.filters import FilterConfig, Filters
from consolidation.leaks import LEAST, HeldOut, grams_of, held_hashes, held_issue, held_text, words
from consolidation.near import SHINGLE, Close
from consolidation.pairs import Pair
from consolidation.synthesis.merged_fix import calls_for
from eval.experience import pairs_of_day
from eval.held_out import held_out_of
from eval.play import Player
from eval.pocket.rehearsal import rehearsal_pairs
from eval.pocket.stream import PocketStream
from eval.swebench.dataset import Dataset, read
from eval.swebench.stream import SweBenchStream
from tests.consolidation.saying import FIX, ISSUE, WALK, filtered, told
from tests.eval.gold import ByIssue

DATA = Path(os.environ.get("SLEEPYD_DATA", Path(__file__).parents[3] / "shared" / "data")) / "swe-bench-cl.json"
TOKENIZER = PocketTokenizer(WEIGHTS / "tokenizer.json")


def held(task: str = "h", issue: str = "", fix: str = "") -> HeldOut:
    texts = (*held_issue(task, "shop", issue), *held_text(task, [fix]))
    return HeldOut(frozenset({task}), frozenset(held_hashes(issue, f"issue in shop\n{issue}") if issue else ()), texts)


@pytest.mark.parametrize(
    "pair",
    [
        told(*WALK, task_id="h"),
        told(*WALK, issue=f"issue in shop\n{ISSUE}"),
        told(*WALK, issue=f"past case\nother\nissue in shop\n{ISSUE}"),
        told(*WALK, issue=f"issue in shop\n  {ISSUE.replace(' ', chr(10) + ' ').upper()}!"),
        told(*WALK, issue=f"issue in shop\n{ISSUE}\nshop/fees.py\n1|x"),
        told(*WALK, issue=ISSUE, source="rehearsal"),
        told((render_full(Call("map")), "a.py"), issue=f"issue in shop\n{ISSUE}", system="the rules"),
    ],
)
def test_a_held_out_task_leaks_by_its_id_and_by_its_issue_however_that_is_laid_out(pair: Pair) -> None:
    assert filtered(pair, held_out=held(issue=ISSUE)).dropped == {"leak": 1}


COMMENTED = (
    "if rate is None:  # none\n\n  rate = default_rate( account,\n      today )\n// so\nreturn price * rate+fee(account)"
)


@pytest.mark.parametrize(
    "text",
    [f"now\n{FIX}", "\n".join(f"{n}|{line}" for n, line in enumerate(FIX.split("\n"), 7)), COMMENTED, f"I was told: {ISSUE}"],
)
def test_a_held_out_text_is_found_with_other_layout_line_numbers_and_comments(text: str) -> None:
    assert filtered(told(("view a", text)), held_out=held(issue=ISSUE, fix=FIX)).dropped == {"leak_overlap": 1}
    assert filtered(told(("view a", "x"), ("search b", ""), format="C", rejected=f"edit a.py 1\n{text}"),
                    held_out=held(issue=ISSUE, fix=FIX)).dropped == {"leak_overlap": 1}  # fmt: skip
    assert not filtered(told(("view a", text)), held_out=held(issue=ISSUE, fix=FIX), overlap=0).dropped


def test_short_texts_are_nobodys_and_a_short_issue_is_its_own_repositorys() -> None:
    assert held_text("h", ["return 0"]) == held_text("h", [" ".join("abcdefg" + "h" * (LEAST - 1))]) == []
    assert len(held_text("h", [" ".join("abcdefg" + "h" * LEAST)])) == 1
    assert held_issue("h", "shop", "it is not right") == []
    short = HeldOut(texts=tuple(held_issue("h", "shop", "Nothing comes back from `f`.")))
    assert [short.overlap(repo, ["x nothing comes\nback from f y"])[0] for repo in ("shop", "bank")] == [1.0, 0.0]
    same = held(issue="It is wrong.")
    told = ["it is wrong", "issue in bank\nit is wrong", "issue in shop\nit is  wrong", "issue in shop\nIt is wrong\n1|x"]
    assert [same.names("t", [text]) for text in told] == [False, False, True, True]


def test_no_word_of_a_held_out_text_is_kept() -> None:
    everything = repr(held(issue=ISSUE, fix=FIX)) + repr([text.grams.tolist() for text in held(fix=FIX).texts])
    assert not {word for word in words(FIX) if len(word) > 4} & set(words(everything))


def test_the_share_is_of_the_held_out_text_and_the_digest_tells_two_apart() -> None:
    run = [f"w{n}" for n in range(47)]  # 40 runs of 8 words
    text = HeldOut(texts=tuple(held_text("h", [" ".join(run)])))
    assert text.overlap("shop", [" ".join(run[:27])]) == (0.5, "h")
    assert text.overlap("shop", [" ".join(run[:10]), " ".join(run[10:17])]) == (3 / 40, "h")
    assert text.overlap("shop", []) == HeldOut().overlap("shop", ["x"]) == (0.0, "")
    assert len({held(issue=i, fix=f).digest for i in ("", ISSUE) for f in ("", FIX)}) == 4
    both = held("a", ISSUE) | held("b", fix=FIX)
    assert (both.overlap("shop", [FIX])[1], both.overlap("shop", [ISSUE])[1], sorted(both.tasks)) == ("b", "a", ["a", "b"])


DAYS = {
    number: PocketStream(seed=3, repos=("bank", "garden", "game"), count=10, start=start) for number, start in ((1, 0), (2, 10))
}


@pytest.fixture(scope="module")
def lived() -> list[Pair]:
    """What a day in the pocket world gives to learn from: own successes, and merged fixes."""
    sandbox = probe(trusted_generated=True)
    day = DAYS[1]
    known = {task.issue: [render_call(call) for call in calls_for(day.merged_fix(task))] for task in day.tasks()[::2]}
    model = ByIssue(known)
    model.speaks = "terse"
    return pairs_of_day(day, list(Player(model, sandbox).play(day, day.tasks())), sandbox, merged_fixes=True)


def test_a_day_passes_the_filters_with_the_next_day_of_the_same_repositories_held_out(lived: list[Pair]) -> None:
    tomorrow = held_out_of(DAYS[2], DAYS[2].tasks())
    found = Filters(FilterConfig(), TOKENIZER.example, 1024, tomorrow).filtered(lived)
    assert (len(lived), found.dropped) == (30, {})
    assert Counter(pair.source for pair in lived) == {"agent": 15, "merged_fix": 15}


def test_a_held_out_pocket_task_is_dropped_under_another_id_with_other_whitespace_and_comments(lived: list[Pair]) -> None:
    def disguised(pair: Pair) -> Pair:
        changed = [(role, text.replace("\n", "\n\n").replace("return", "# why\n return")) for role, text in pair.messages]
        return pair.model_copy(update={"task_id": "mine", "messages": tuple(changed)})

    today = held_out_of(DAYS[1], DAYS[1].tasks())
    config = FilterConfig(shortcuts=False, unparseable=False)
    found = Filters(config, TOKENIZER.example, 1024, today).filtered(map(disguised, lived))
    assert (found.samples, found.dropped) == ([], {"leak": 30})


def test_ten_thousand_pairs_against_six_hundred_held_out_tasks_take_seconds(lived: list[Pair]) -> None:
    stream = PocketStream(seed=3, count=75, start=10)
    held_out = held_out_of(stream, stream.tasks())
    assert len(held_out.tasks) == 600
    pairs = [
        pair.model_copy(update={"messages": ((role, f"{text} number{n}"), *rest)})
        for n in range(1_000 // len(lived) + 1)
        for pair in lived
        for (role, text), *rest in [pair.messages]
    ][:1_000]
    began = time.process_time()
    assert not any(held_out.overlap(pair.repo, (text for _, text in pair.messages))[0] >= 0.7 for pair in pairs)
    assert time.process_time() - began < 2  # a tenth of them in a tenth of the time


@pytest.fixture(scope="module")
def benchmark() -> tuple[Dataset, HeldOut]:
    if not DATA.is_file():
        pytest.skip(f"no {DATA}: sleepyctl data fetch swe-bench-cl, and name its folder in SLEEPYD_DATA")
    dataset = read(DATA)

    def never(sandbox: object) -> object:
        raise AssertionError("nothing is opened here")

    stream = SweBenchStream(dataset, [task.id for task in dataset.tasks()], never)  # type: ignore[arg-type]
    return dataset, held_out_of(stream, stream.tasks())


def test_every_task_of_the_benchmark_leaks_against_itself_and_next_to_none_against_others(
    benchmark: tuple[Dataset, HeldOut],
) -> None:
    dataset, everything = benchmark
    least, others = FilterConfig().overlap, 0
    for task in dataset.tasks():
        secret = dataset.secret(task.id)
        shares = everything.shares(task.repo, [f"I was told\n{task.issue}", secret.patch, secret.test_patch])
        assert shares.pop(task.id) >= least, task.id
        others += any(share >= least for share in shares.values())
    assert others < len(dataset.tasks()) / 100


# --- near duplicates


def test_the_same_calls_in_nearly_the_same_words_are_learnt_once_and_other_calls_are_not_the_same() -> None:
    long = " ".join(f"w{n}" for n in range(200))
    first = told(("search x", long), issue="issue in shop\none")
    again = told(("search  x", f"{long} more"), issue="issue in shop\none")
    other_call = told(("search y", long), issue="issue in shop\none")
    other_words = told(("search x", long[::-1]), issue="issue in shop\ntwo")
    found = filtered(first, again, other_call, other_words)
    assert found.dropped == {"near_duplicate": 1}
    assert [s.pair for s in found.samples] == [first, other_call, other_words]
    assert not filtered(first, again, near_duplicate=0).dropped


def test_a_sign_in_an_edit_makes_it_another_lesson() -> None:
    plus, minus = (told((f"edit a.py 1\nreturn a {sign} b", "now"), issue="word " * 80) for sign in "+-")
    assert not filtered(plus, minus).dropped


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcdef"), max_size=14), max_size=12), st.sampled_from([0.3, 0.5, 0.8, 0.9, 1.0]))
def test_the_index_finds_exactly_what_comparing_each_with_each_finds(texts: list[list[str]], least: float) -> None:
    pairs = [told(("submit", " ".join(text)), issue="same issue here") for text in texts]
    kept: list[set[int]] = []
    expected = []
    for text in texts:
        said = words(" ".join(["same issue here submit", *text]))
        mine = set(grams_of(said, min(SHINGLE, len(said))).tolist())
        expected.append(any(len(mine & other) / len(mine | other) >= least for other in kept))
        if not expected[-1]:
            kept.append(mine)
    assert Close(least).repeats(pairs) == expected


def test_nothing_of_what_the_pocket_world_generates_is_taken_for_a_copy(lived: list[Pair]) -> None:
    episodes = rehearsal_pairs("bank", 30, 0)
    assert not any(Close(FilterConfig().near_duplicate).repeats([*lived, *episodes]))
    slips = [
        pair.model_copy(update={"messages": ((pair.messages[0][0], f"{pair.messages[0][1]} Please."), *pair.messages[1:])})
        for pair in random.Random(0).sample(episodes, 10)
    ]
    assert sum(Close(FilterConfig().near_duplicate).repeats([*episodes, *slips])) == 10
