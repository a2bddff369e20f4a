"""The matrix a[i, j], counted from attempts."""

import pytest

from eval.metrics.matrix import Matrix, Missing, matrix_of
from eval.metrics.rows import Attempted
from memory.trajectories import Outcome

MARKS = {"+": Outcome.RESOLVED, "-": Outcome.UNRESOLVED, "~": Outcome.GAVE_UP, "!": Outcome.INFRASTRUCTURE_FAILURE}


def attempts(marks: str) -> list[Attempted]:
    return [
        Attempted(task_id=str(number), repo="r", outcome=MARKS[mark], steps=1, config_hash="c")
        for number, mark in enumerate(marks)
    ]


def test_a_cell_is_the_share_of_graded_attempts_that_resolved_their_task() -> None:
    found = matrix_of(
        {(0, "x"): attempts("--"), (1, "x"): attempts("+-~!"), (1, "y"): attempts("!!"), (0, "y"): Missing("left out")},
        columns=["x", "y"],
        rows=3,
        learnt={"x": 1, "y": None},
    )
    # x after night 1: one of three graded; the fourth was the infrastructure's, and is counted apart.
    assert found.at(1, "x") == pytest.approx(1 / 3)
    assert (found.cell(1, "x").graded, found.cell(1, "x").excluded) == (3, 1)
    assert found.at(0, "x") == 0.0
    assert found.at(0, "y") == Missing("left out")
    assert found.at(1, "y") == Missing("the infrastructure failed all 2 attempts")
    assert found.cell(1, "y").excluded == 2
    assert found.at(2, "x") == Missing("not examined")
    assert (found.last, found.taught, found.untaught) == (2, {"x": 1}, ("y",))
    assert [place for place, _ in found][:3] == [(0, "x"), (0, "y"), (1, "x")]


def test_what_was_taught_is_in_the_order_of_the_rows() -> None:
    assert list(Matrix.from_values("abc", [[0] * 3] * 4, {"a": 3, "b": 1, "c": 1}).taught.items()) == [
        ("b", 1),
        ("c", 1),
        ("a", 3),
    ]


@pytest.mark.parametrize("place", [(0, "z"), (2, "x"), (-1, "x")])
def test_no_attempt_is_counted_nowhere(place: tuple[int, str]) -> None:
    with pytest.raises(ValueError, match="outside of the matrix"):
        matrix_of({place: attempts("+")}, columns=["x"], rows=2, learnt={})
    with pytest.raises(KeyError, match="no a"):
        Matrix.from_values("x", [[0], [1]]).at(*place)


@pytest.mark.parametrize(
    ("columns", "values", "learnt", "said"),
    [
        ("xx", [[0, 0]], {}, "twice"),
        ("xy", [[0]], {}, "2 cells"),
        ("x", [], {}, "row 0"),
        ("x", [[0]], {"x": 1}, "row 1"),
        ("x", [[0], [0]], {"x": 0}, "row 0"),
        ("x", [[0], [0]], {"y": None}, "'y'"),
        ("x", [[1.5]], {}, "share"),
        ("x", [[-0.5]], {}, "share"),
        ("x", [[float("nan")]], {}, "share"),
    ],
)
def test_a_matrix_that_cannot_be_is_refused(
    columns: str, values: list[list[float]], learnt: dict[str, int | None], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        Matrix.from_values(columns, values, learnt)
