"""The comparison of trainers: the same work on both sides, and figures that belong together."""

from pathlib import Path

import pytest

from consolidation.trainers.base import Example
from eval.bench_stock import _padded
from eval.bench_train import _chosen, _episodes, bench


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
