"""What a daemon's life measures by, from cells written by hand."""

from __future__ import annotations

from typing import Any, cast

import pytest

from eval.metrics.continual import forgetting_paper
from eval.metrics.lived import matrix_from, metrics_of
from eval.metrics.stored import NOT_LIVED, Cell, Day, Life
from tests.eval.experiments.lives import attempt

# Rows 0 (the base) to 4; day j is learnt in night j. A row has the days lived until its night, and the one after it.
ROWS = (
    ("----", "----", "+---", "----"),
    ("+++-", "++--", "", ""),
    ("++++", "+++-", "++--", ""),
    ("++--", "+++-", "++++", "+---"),
    ("++--", "++--", "++++", "++--"),
)


def lived() -> Life:
    def cell(row: int, column: int) -> Cell:
        marks = ROWS[row][column]
        return [attempt(f"{column}/{place}", mark) for place, mark in enumerate(marks)] if marks else NOT_LIVED

    cells = {(row, column): cell(row, column) for row in range(5) for column in range(4)}
    days = tuple(Day(night=night, results=()) for night in ("n1", "n2", "n3", "n4", ""))
    nights = cast("Any", ("n1", "n2", "n3", "n4"))  # they are counted, and not looked at
    return Life(days, nights, ((),) * 5, cells, cells, (1, 2, 3, 4), 0, {})


def test_scores_made_of_forgetting_have_values_from_the_fourth_night_on() -> None:
    life = lived()
    assert NOT_LIVED in forgetting_paper(matrix_from(life, life.live)).why
    value = {name: one.value for name, one in metrics_of(life).values.items()}
    assert value["forgetting_paper"] is None
    forgotten = ((1 - 0.5) + (0.75 - 0.5) + (1 - 1)) / 3  # of days 1 to 3, day 1 from its peak in row 2
    assert value["forgetting_chaudhry"] == forgotten
    assert value["stability"] == 1 - forgotten
    plastic = (0.75 + 0.75 + 1 + 0.5) / 4
    beta = 2 * plastic * (1 - forgotten) / (plastic + 1 - forgotten)
    assert value["clf_beta"] == pytest.approx(beta)
    acc, transfer = (0.5 + 0.5 + 1 + 0.5) / 4, (0.5 + 0.25 + 0.25) / 3
    backward, aulc = (0.5 - 0.75 + 0.5 - 0.75 + 1 - 1) / 3, (0.75 + 0.75 + 2.5 / 3 + 3 / 4) / 4
    assert value["cl_score"] == pytest.approx(acc - forgotten + transfer + backward + aulc + beta)
