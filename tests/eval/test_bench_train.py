"""The comparison of trainers: the same work on both sides, and figures that belong together."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from consolidation.trainers.base import Example
from eval.bench_stock import _padded
from eval.bench_train import RESULT, _chosen, _episodes, bench
from tests.daemon.running import children, sleepyctl, until


def test_data_of_equal_length_is_of_equal_length_and_other_data_is_not() -> None:
    pool = _episodes(32, 0)
    spans = {}
    for lengths in ("equal", "varying"):
        widths = [e.width for e in _chosen(pool, 8, lengths)]  # type: ignore[arg-type]
        assert len(widths) == 8
        spans[lengths] = max(widths) - min(widths)
    assert spans["equal"] < spans["varying"] / 3


def test_stock_batches_teach_the_agents_own_words_and_no_padding() -> None:
    long, short = Example(ids=[5, 6, 7], own=[False, False, True]), Example(ids=[8, 9], own=[False, True])
    batch = _padded([{"ids": e.ids, "own": e.own} for e in (long, short)])
    assert batch["labels"].tolist() == [[-100, -100, 7], [-100, 9, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]


@pytest.mark.skipif(sys.platform != "linux", reason="finds child processes in /proc")
def test_ctrl_c_ends_it_and_the_contestant_whose_turn_it_is(tmp_path: Path) -> None:
    options = ("--examples", "8", "--rounds", "1", "--engines", "torch", "--home", str(tmp_path))
    command = sleepyctl("bench", "train", *options)

    def contestants() -> list[int]:
        return [pid for pid in children(process.pid) if b"eval.bench_train" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        until(lambda: contestants() != [], "a contestant")
        (contestant,) = contestants()
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        told, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert (told.strip(), errors.strip()) == ("", "")
    until(lambda: not Path(f"/proc/{contestant}").exists(), "its end", 5)
    assert list(tmp_path.rglob(RESULT)) == []


@pytest.mark.slow
def test_every_contestant_trains_the_same_tokens_and_learns(tmp_path: Path) -> None:
    report = bench(tmp_path, examples=8, rounds=1)
    for row in report.rows:
        same = [r.tokens for r in report.rows if (r.engine, r.lengths) == (row.engine, row.lengths)]
        assert set(same) == {row.tokens}
        assert row.unseen_loss < report.unseen_loss_of_base
        assert row.speed_up > 0
    stock = [row.speed_up for row in report.rows if row.contestant in ("peft", "mlx_lm")]
    assert stock
    assert set(stock) == {1.0}
