"""Agreement with Avalanche, where both define a measure: its own classes if it is installed, numbers that it gave if not.

`GAVE` was printed by this file's `by_avalanche` under avalanche-lib 0.6.0 (the first is by hand in test_continual.py too):
`pip install --no-deps avalanche-lib==0.6.0` and what importing it asks for, then `pytest tests/eval/metrics/test_avalanche.py`.
"""

import random
import warnings
from collections.abc import Sequence

import pytest

from eval.metrics.continual import MEASURES
from eval.metrics.matrix import Matrix

Values = Sequence[Sequence[float]]
SQUARE = [[0.1, 0.2, 0.0], [0.6, 0.9, 0.1], [0.9, 0.7, 0.3], [0.4, 0.8, 0.9]]
LARGER = [
    [0.125, 0.25, 0.0, 0.5],
    [0.875, 0.25, 0.125, 0.375],
    [0.625, 0.75, 0.25, 0.5],
    [0.75, 0.5, 1.0, 0.625],
    [0.25, 0.625, 0.875, 0.75],
]
GAVE = [
    (SQUARE, {"forgetting_avalanche": 0.05, "backward_transfer": -0.05, "forward_transfer": 0.5}),
    (LARGER, {"forgetting_avalanche": 0.2916666667, "backward_transfer": -0.2916666667, "forward_transfer": 0.125}),
]


def square(values: Values) -> Matrix:
    names = [str(column) for column in range(len(values[0]))]
    return Matrix.from_values(names, values, {name: row for row, name in enumerate(names, 1)})


def by_avalanche(values: Values) -> dict[str, float]:
    """Avalanche's standalone metrics, told the rows in the order in which its plugins are: initial is the row of learning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("avalanche", exc_type=ImportError)
        from avalanche.evaluation.metrics.forgetting_bwt import BWT, Forgetting
        from avalanche.evaluation.metrics.forward_transfer import ForwardTransfer

    forgot, back, forward = Forgetting(), BWT(), ForwardTransfer()
    for column, value in enumerate(values[0]):
        forward.update(column, value, initial=True)
    for learnt, row in enumerate(values[1:]):
        for metric in (forgot, back):
            metric.reset_last()
            for column, value in enumerate(row):
                metric.update(column, value, initial=column == learnt)
        if learnt + 1 < len(row):
            forward.update(learnt + 1, row[learnt + 1])
    found = {"forgetting_avalanche": forgot, "backward_transfer": back, "forward_transfer": forward}
    return {name: sum(metric.result().values()) / len(metric.result()) for name, metric in found.items()}


@pytest.mark.parametrize(("values", "gave"), GAVE)
def test_the_numbers_that_it_gave(values: Values, gave: dict[str, float]) -> None:
    for name, value in gave.items():
        assert MEASURES[name](square(values)).value == pytest.approx(value)


@pytest.mark.parametrize(("values", "gave"), GAVE)
def test_it_still_gives_them(values: Values, gave: dict[str, float]) -> None:
    assert by_avalanche(values) == pytest.approx(gave)


def test_its_own_classes_agree_on_matrices_of_any_size() -> None:
    rng = random.Random(0)
    for tasks in range(2, 12):
        values = [[rng.random() for _ in range(tasks)] for _ in range(tasks + 1)]
        for name, value in by_avalanche(values).items():
            assert MEASURES[name](square(values)).value == pytest.approx(value)


def test_its_forgetting_matrix_agrees_where_nights_teach_blocks() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("avalanche", exc_type=ImportError)
        from avalanche.evaluation.functional import forgetting

    values = [[0.0, 0.2, 0.1], [0.8, 0.6, 0.5], [0.7, 0.8, 0.9]]
    last = forgetting(values[1:], boundary_indices=[0, 0, 1])[-1]
    blocks = Matrix.from_values("abc", values, {"a": 1, "b": 1, "c": 2})
    assert MEASURES["forgetting_avalanche"](blocks).value == pytest.approx((last[0] + last[1]) / 2)
