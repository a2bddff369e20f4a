"""The memory benchmark: what it measures, that it can fail, and what it makes of a patch."""

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from agent.distil import distil
from agent.sandbox.ladder import probe
from eval.bench_memory import MemoryBench
from eval.bench_memory_card import card
from eval.bench_memory_past import SWE_BENCH_CL, Past, changes, pocket, solved, swe_bench_cl
from eval.bench_memory_quality import METHODS, score, scored
from eval.bench_memory_scale import START, Writer
from eval.swebench.dataset import read
from memory.hashing import content_hash
from memory.knowledge.config import KnowledgeConfig
from memory.knowledge.embedders import HashingEmbedder
from memory.tasks import Task
from tests.daemon.running import run

DATA = Path(os.environ.get("SLEEPYD_DATA", Path(__file__).parents[3] / "shared" / "data")) / "swe-bench-cl.json"
QUICK = ["bench", "memory", "--json", "--seeds", "1", "--tasks", "4", "--sizes", "100"]
EVERY = KnowledgeConfig(floor=0, words_floor=0)
PATCH = """diff --git a/shop/fees.py b/shop/fees.py
--- a/shop/fees.py
+++ b/shop/fees.py
@@ -7,2 +7,3 @@ def total_fee(order):
     fee = base(order)
-    return order - fee
+    fee = max(fee, 1)
+    return order + fee
@@ -20,2 +21,1 @@ def refund(order):
-    --log(order)
     return 0
diff --git a/shop/new.py b/shop/new.py
new file mode 100644
--- /dev/null
+++ b/shop/new.py
@@ -0,0 +1,2 @@
+def made():
+    return 1
"""


class Shuffled(HashingEmbedder):
    """Every text has the vector of another one."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return super().embed([content_hash(["another", text]) for text in texts])


@pytest.fixture(scope="module")
def past() -> Past:
    return pocket(0, ("bank", "game"), 12, probe(trusted_generated=True))


def test_the_command_prints_one_report_with_every_method_and_says_what_was_left_out(tmp_path: Path) -> None:
    here = {**os.environ, "SLEEPYD_DATA": str(tmp_path), "SLEEPYD_KNOWLEDGE__EMBEDDER": "hashing"}
    done = run(*QUICK, "--home", str(tmp_path), env=here, timeout=200)
    assert done.returncode == 0, done.stderr
    report = MemoryBench.model_validate_json(done.stdout)
    assert [row.method for row in report.quality] == [row.method for row in report.quality_tuned] == list(METHODS)
    assert not {r for row in report.quality for r in row.repositories} & set(report.quality_tuned[0].repositories)
    assert [(each.stream, "data fetch" in each.reason) for each in report.skipped] == [(SWE_BENCH_CL, True)]
    for row in report.quality:
        assert 0 < row.queries_with_relevant <= row.queries == 4 * 3
        assert row.recall_at_3_interval[0] <= row.recall_at_3 <= row.recall_at_3_interval[1]
    assert [(row.memories, row.repositories) for row in report.scale] == [(100, 8)]
    assert [(row.memories, row.repositories) for row in report.scale_one_repository] == [(100, 1)]
    assert 0 < report.scale[0].recall_p50_ms <= report.scale[0].recall_p95_ms <= report.scale[0].recall_max_ms
    assert report.embedder == HashingEmbedder.name
    assert f"| pocket | hybrid | {report.quality[-1].recall_at_3:.3f} (" in card(report)
    assert "Not measured: swe-bench-cl" in card(report)


@pytest.mark.parametrize("sizes", ["many", "0", "10,-1"])
def test_sizes_that_are_none_are_refused_before_anything_is_measured(sizes: str) -> None:
    done = run("bench", "memory", f"--sizes={sizes}")
    assert done.returncode == 2
    assert "write numbers of memories" in done.stderr


def test_a_data_file_that_is_named_and_not_there_is_an_error(tmp_path: Path) -> None:
    done = run(*QUICK, "--data", str(tmp_path / "none.json"), "--home", str(tmp_path))
    assert done.returncode == 1
    assert "data fetch" in done.stderr
    assert not done.stdout


def test_the_same_seed_gives_the_same_scores() -> None:
    one, other = (pocket(5, ("farm",), 6, probe(trusted_generated=True)) for _ in range(2))
    assert scored([one], HashingEmbedder(), EVERY) == scored([other], HashingEmbedder(), EVERY)


def test_a_damaged_index_gives_lower_scores_to_all_that_use_it(past: Past) -> None:
    known = past.tasks[:14]
    again = [t.model_copy(update={"id": f"{t.id}-again", "created_at": t.created_at + timedelta(days=99)}) for t in known]
    twice = Past(
        "pocket",
        [*known, *again],
        past.lessons | {t.id: [] for t in again},
        past.logs | {t.id: t.issue for t in again},
        {t.id: frozenset({t.id.removesuffix("-again")}) for t in [*known, *again]},
    )
    sound, damaged = (scored([twice], embedder, EVERY) for embedder in (HashingEmbedder(), Shuffled()))
    rank = {method: [sum(s.reciprocal_rank for s in found[method]) for found in (sound, damaged)] for method in METHODS}
    assert rank["dense"][0] > 0.9 * len(known)
    for method, less in (("reference", 0.5), ("dense", 0.5), ("hybrid", 0.95)):  # words make up for some of it
        assert rank[method][1] < less * rank[method][0], method
    assert rank["bm25"][1] == rank["bm25"][0]


def test_above_a_floor_that_nothing_reaches_hybrid_is_silent_and_the_others_are_not(past: Past) -> None:
    found = scored([past], Shuffled(), KnowledgeConfig(floor=1, words_floor=1))
    assert sum(s.shown for s in found["hybrid"]) < 0.3 * sum(s.shown for s in found["dense"])
    assert all(s.shown for s in found["reference"])


def test_only_earlier_tasks_of_the_same_kind_and_repository_help(past: Past) -> None:
    for task in past.tasks:
        for other in past.relevant(task):
            (known,) = [t for t in past.tasks if t.id == other]
            assert known.repo == task.repo
            assert known.created_at < task.created_at
            assert past.marks[other] == past.marks[task.id]
    assert any(past.relevant(task) for task in past.tasks)


@pytest.mark.parametrize(
    ("shown", "relevant", "recall", "rank", "hits"),
    [
        ("abc", "c", 1, 1 / 3, 1),
        ("abc", "abcdef", 1, 1, 3),
        ("aab", "ab", 1, 1, 3),
        ("axb", "bcd", 1 / 3, 1 / 3, 1),
        ("", "a", 0, 0, 0),
        ("xyz", "", 0, 0, 0),
    ],
)
def test_scores_are_what_they_are_said_to_be(shown: str, relevant: str, recall: float, rank: float, hits: int) -> None:
    found = score(list(shown), set(relevant))
    assert (found.recall, found.reciprocal_rank, found.hits) == pytest.approx((recall, rank, hits))
    assert (found.shown, found.relevant) == (len(shown), bool(relevant))


def test_a_patch_is_told_as_an_attempt_that_distils_into_its_places_and_its_change() -> None:
    task = Task(id="t", repo="own/shop", issue="Fees", created_at=datetime(2024, 1, 1, tzinfo=UTC), position=0, difficulty="x")
    assert [(path, len(hunks)) for path, hunks in changes(PATCH).items()] == [("shop/fees.py", 2), ("shop/new.py", 1)]
    case = distil(solved(task, PATCH), task)[0]
    assert case.verified
    assert case.where[:2] == ("shop/fees.py:total_fee", "shop/fees.py:refund")
    assert any(place.startswith("shop/new.py") for place in case.where)
    assert "-     return order - fee\n+     fee = max(fee, 1)\n+     return order + fee" in case.change
    assert "-     --log(order)" in case.change
    assert "base(order)" not in case.change


def test_gold_patches_of_the_benchmark_are_remembered_and_never_of_a_later_task() -> None:
    if not DATA.is_file():
        pytest.skip(f"no {DATA}: sleepyctl data fetch swe-bench-cl, and name its folder in SLEEPYD_DATA")
    past = swe_bench_cl(read(DATA), ["pytest"])
    assert len(past.tasks) == 19
    for task in past.tasks:
        (case,) = [memory for memory in past.lessons[task.id] if memory.kind == "case"]
        assert {place.partition(":")[0] for place in case.where} <= past.marks[task.id]
        assert json.dumps(task.issue)[1:20] in json.dumps(past.logs[task.id])
    found = scored([past], HashingEmbedder(), EVERY)
    assert {len(scores) for scores in found.values()} == {18}
    assert sum(s.recall for s in found["dense"]) > 0


def test_made_up_memories_are_the_same_for_the_same_seed_and_half_of_them_are_later_than_a_task() -> None:
    memories = [Writer(3, 2).memory(number) for number in range(10)]
    assert [memory.text for memory in memories][:1] == [Writer(3, 2).memory(0).text]
    assert len({memory.id for memory in memories}) == 10
    task = Writer(3, 2).task(0, 10)
    assert task.created_at > START
    assert sum(memory.created_at <= task.created_at for memory in memories) == 6
