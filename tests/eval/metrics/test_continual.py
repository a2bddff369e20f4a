"""Measures of continual learning: by hand, by other people's formulas, and by what must always hold."""

import itertools
import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.metrics.continual import (
    MEASURES,
    NET,
    Measure,
    Weights,
    acc,
    aulc,
    backward_transfer,
    cl_score,
    clf_beta,
    forgetting_avalanche,
    forgetting_chaudhry,
    forgetting_paper,
    forward_transfer,
    forward_transfer_unlearnt,
    measures_of,
    minus_control,
    plasticity,
    stability,
)
from eval.metrics.matrix import Matrix, Missing, matrix_of
from eval.metrics.rows import Attempted
from memory.trajectories import Outcome

SQUARE = Matrix.from_values(
    "xyz", [[0.1, 0.2, 0.0], [0.6, 0.9, 0.1], [0.9, 0.7, 0.3], [0.4, 0.8, 0.9]], {"x": 1, "y": 2, "z": 3}
)
BY_HAND = {
    # (.4 + .8 + .9) / 3
    "acc": 0.7,
    # x: max(.6) - .4 = .2; y: max(.9, .7) - .8 = .1
    "forgetting_paper": 0.15,
    # x: max(.6, .9) - .4 = .5; y: max(.7) - .8 = -.1
    "forgetting_chaudhry": 0.2,
    # x: .6 - .4 = .2; y: .7 - .8 = -.1
    "forgetting_avalanche": 0.05,
    "backward_transfer": -0.05,
    # y: .9 - .2 = .7; z: .3 - 0 = .3
    "forward_transfer": 0.5,
    # diagonal .6 .7 .9; running means .6, 1.3/2 = .65, 2.2/3 = .73333; their mean 1.98333/3
    "aulc": 0.661111,
    # 2.2 / 3
    "plasticity": 0.733333,
    # 1 - .15
    "stability": 0.85,
    # 2 * .73333 * .85 / (.73333 + .85) = 1.246667 / 1.583333
    "clf_beta": 0.787368,
    # .7 - .15 + .5 - .05 + .661111 + .787368
    "cl_score": 2.448480,
}
# Two nights: the first teaches two blocks, the second one; "t" is never learnt; after no night is another row.
BLOCKS = Matrix.from_values(
    "abct", [[0.0, 0.2, 0.1, 0.3], [0.8, 0.6, 0.5, 0.4], [0.7, 0.8, 0.9, 0.6]], {"a": 1, "b": 1, "c": 2, "t": None}
)
ONCE = [
    Attempted(task_id="t", repo="r", outcome=outcome, steps=1, config_hash="c")
    for outcome in (Outcome.UNRESOLVED, Outcome.RESOLVED)
]


@pytest.mark.parametrize(("name", "value"), BY_HAND.items())
def test_a_square_matrix_by_hand(name: str, value: float) -> None:
    assert MEASURES[name](SQUARE).value == pytest.approx(value, abs=1e-6)


def test_blocks_and_nights_by_hand() -> None:
    assert acc(BLOCKS).value == pytest.approx((0.7 + 0.8 + 0.9 + 0.6) / 4)
    # earlier columns are a and b: .8 - .7 = .1 and .6 - .8 = -.2
    for of in (forgetting_paper, forgetting_chaudhry, forgetting_avalanche):
        assert of(BLOCKS).value == pytest.approx(-0.05)
    # c, learnt in row 2, in row 1 minus row 0; a and b were learnt in the first row: nothing came before them
    assert forward_transfer(BLOCKS).value == pytest.approx(0.4)
    assert forward_transfer_unlearnt(BLOCKS).value == pytest.approx(0.3)
    # rows' diagonals: (.8 + .6) / 2 = .7 and .9; running means .7 and .8
    assert aulc(BLOCKS).value == pytest.approx(0.75)
    # columns weigh the same: (.8 + .6 + .9) / 3
    assert plasticity(BLOCKS).value == pytest.approx(2.3 / 3)
    # S = 1.05 is raw, and 1 inside of F_beta: 2 P / (P + 1)
    assert stability(BLOCKS).value == pytest.approx(1.05)
    assert clf_beta(BLOCKS).value == pytest.approx(2 * (2.3 / 3) / (2.3 / 3 + 1))


def test_rows_that_taught_nothing_are_no_points_of_the_learning_curve() -> None:
    idle = Matrix.from_values("ab", [[0, 0], [0.4, 0], [0.3, 0], [0.2, 0.8]], {"a": 1, "b": 3})
    assert aulc(idle).value == pytest.approx((0.4 + 0.6) / 2)
    assert forward_transfer(idle).value == 0.0
    assert forgetting_avalanche(idle).value == pytest.approx(0.2)


def test_beta_and_the_lambdas_weigh() -> None:
    # F_2 = 5 P S / (4 P + S) = 5 * .623333 / 3.783333
    assert clf_beta(SQUARE, beta=2).value == pytest.approx(0.823789, abs=1e-6)
    assert clf_beta(SQUARE, beta=0).value == plasticity(SQUARE).value
    plain = cl_score(SQUARE, Weights(0, 0, 0, 0)).value
    assert plain == pytest.approx(0.7 + 0.787368, abs=1e-6)
    for name, shift in {"forgetting": -0.15, "forward_transfer": 0.5, "backward_transfer": -0.05, "aulc": 0.661111}.items():
        only = Weights(**{weight: 2.0 * (weight == name) for weight in Weights.__dataclass_fields__})
        assert cl_score(SQUARE, only).value == pytest.approx(plain + 2 * shift, abs=1e-5)
    # with Chaudhry's F: S = .8, F1 = 2 * .733333 * .8 / 1.533333 = .765217; .7 - .2 + .5 - .05 + .661111 + .765217
    assert cl_score(SQUARE, forgetting=forgetting_chaudhry).value == pytest.approx(2.376329, abs=1e-6)
    assert measures_of(SQUARE, forgetting=forgetting_chaudhry)["stability"].value == pytest.approx(0.8)
    with pytest.raises(ValueError, match="negative"):
        clf_beta(SQUARE, beta=-1)


def test_nothing_learnt_and_nothing_kept_is_a_score_of_0() -> None:
    # P = 0 and F = 1: only a later peak can be forgotten whole while nothing was learnt at once.
    peak = Matrix.from_values("ab", [[0, 0], [0, 0], [1, 0], [0, 0]], {"a": 1, "b": 3})
    assert forgetting_chaudhry(peak).value == 1.0
    assert clf_beta(peak, forgetting=forgetting_chaudhry).value == 0.0


def test_a_missing_cell_that_is_needed_is_the_reason_and_one_that_is_not_is_none() -> None:
    lost = Missing("the infrastructure failed all 3 attempts")
    early = Matrix.from_values("xy", [[0.1, 0.2], [0.6, 0.3], [0.5, lost], [0.4, 0.8]], {"x": 1, "y": 3})
    for of in (forgetting_paper, forgetting_chaudhry, forgetting_avalanche, backward_transfer, plasticity, aulc, acc):
        assert of(early).value is not None
    found = forward_transfer(early)
    assert found == Measure(None, "a[2, y] is missing: the infrastructure failed all 3 attempts")
    assert cl_score(early) == found
    assert cl_score(early, Weights(forward_transfer=0)).value is not None
    last = Matrix.from_values("xy", [[0.1, 0.2], [0.6, 0.3], [lost, 0.4]], {"x": 1, "y": 2})
    for name in (
        "acc",
        "forgetting_paper",
        "forgetting_chaudhry",
        "forgetting_avalanche",
        "backward_transfer",
        "stability",
        "clf_beta",
    ):
        assert MEASURES[name](last).why == f"a[2, x] is missing: {lost.reason}"


def test_a_maximum_over_rows_of_which_one_is_missing_has_no_value() -> None:
    lost = Missing("not examined")
    gap = Matrix.from_values("xy", [[0, 0], [0.6, lost], [lost, 0.5], [0.4, 0.4], [0.4, 0.4]], {"x": 1, "y": 2})
    assert forgetting_paper(gap).why == "a[1, y] is missing: not examined"
    assert forgetting_chaudhry(gap).why == "a[2, x] is missing: not examined"
    assert forgetting_avalanche(gap).value == pytest.approx(0.15)


def test_what_cannot_be_has_a_reason() -> None:
    one = Matrix.from_values("xt", [[0.1, 0.1], [0.5, 0.2]], {"x": 1, "t": None})
    for name in (*NET, "backward_transfer", "stability", "clf_beta", "cl_score"):
        assert "before the last row" in MEASURES[name](one).why
    assert "after the first row" in forward_transfer(one).why
    assert forward_transfer_unlearnt(one).value == pytest.approx(0.1)
    assert forward_transfer_unlearnt(SQUARE).why == "every column was learnt"
    never = Matrix.from_values("t", [[0.1]])
    assert acc(never).value == 0.1
    for name in set(MEASURES) - {"acc", "forward_transfer_unlearnt"}:
        assert MEASURES[name](never).why == "no column was learnt"
    assert forward_transfer_unlearnt(never).why == "there is no row after row 0"
    with pytest.raises(ValueError, match="either"):
        Measure(None)
    with pytest.raises(ValueError, match="either"):
        Measure(0.0, "why")


def test_a_control_is_taken_away() -> None:
    net = minus_control(Measure(0.5), Measure(0.49))
    assert net.value == pytest.approx(0.01)
    assert minus_control(Measure(None, "a"), Measure(0.5)).why == "a"
    assert minus_control(Measure(0.5), Measure(None, "b")).why == "frozen control: b"
    found = measures_of(SQUARE, SQUARE)
    assert set(found) == {*MEASURES, *(f"{name}_net" for name in NET)}
    assert all(found[f"{name}_net"].value == 0 for name in NET)
    assert measures_of(SQUARE)["forgetting_paper_net"] == Measure(None, "frozen control: not measured")


def frozen(seed: int, tasks: int, rate: float) -> Matrix:
    """An agent that never learns, examined once for each cell."""
    rng = random.Random(seed)
    names = [str(column) for column in range(tasks)]
    cells = {(row, name): [ONCE[rng.random() < rate]] for row in range(tasks + 1) for name in names}
    return matrix_of(cells, columns=names, rows=tasks + 1, learnt={name: row for row, name in enumerate(names, 1)})


def mean(of: Callable[[Matrix], Measure], matrices: list[Matrix]) -> float:
    values = [of(matrix).value for matrix in matrices]
    return sum(value for value in values if value is not None) / len(matrices)


def test_an_agent_that_never_learns_seems_to_forget_half_of_it() -> None:
    # E F = 1/19 sum_(j=1..19) (1 - .9^j) - .1 = 1 - (9 (1 - .9^19) / 19) - .1 = .4903 for the paper's maximum; 200 lives of 19
    # columns: standard error below .01.
    lives = [frozen(seed, tasks=20, rate=0.1) for seed in range(200)]
    assert mean(forgetting_paper, lives) == pytest.approx(0.4903, abs=0.02)
    assert mean(forgetting_chaudhry, lives) == pytest.approx(0.4903, abs=0.02)  # the same by symmetry: rows j to 19, for each j
    assert mean(forgetting_avalanche, lives) == pytest.approx(0, abs=0.02)
    assert mean(forward_transfer, lives) == pytest.approx(0, abs=0.02)
    net = [minus_control(forgetting_paper(one), forgetting_paper(other)).value or 0 for one, other in itertools.pairwise(lives)]
    assert sum(net) / len(net) == pytest.approx(0, abs=0.02)


SHARES = st.integers(0, 8).map(lambda eighths: eighths / 8)


@st.composite
def matrices(draw: st.DrawFn, square: bool = False) -> Matrix:
    columns = [f"c{number}" for number in range(draw(st.integers(2, 6)))]
    rows = len(columns) if square else draw(st.integers(1, 6))
    values = draw(
        st.lists(st.lists(SHARES, min_size=len(columns), max_size=len(columns)), min_size=rows + 1, max_size=rows + 1)
    )
    learnt = {name: number if square else draw(st.none() | st.integers(1, rows)) for number, name in enumerate(columns, 1)}
    return Matrix.from_values(columns, values, learnt)


@settings(max_examples=50)
@given(matrices(square=True))
def test_square_matrices_agree_with_the_published_formulas(matrix: Matrix) -> None:
    """Lopez-Paz and Ranzato 2017, section 2 (ACC, BWT, FWT with b = row 0); Chaudhry et al. 2018, section 3 (F)."""
    a = np.array([[cell.value for cell in row] for row in matrix.cells])
    r, b, n = a[1:], a[0], len(a) - 1
    assert acc(matrix).value == pytest.approx(r[-1].mean())
    assert backward_transfer(matrix).value == pytest.approx((r[-1] - np.diag(r))[:-1].mean())
    assert forward_transfer(matrix).value == pytest.approx(np.mean([r[i - 1, i] - b[i] for i in range(1, n)]))
    assert forgetting_chaudhry(matrix).value == pytest.approx(np.mean([r[j : n - 1, j].max() - r[-1, j] for j in range(n - 1)]))
    assert forgetting_paper(matrix).value == pytest.approx(np.mean([r[: j + 1, j].max() - r[-1, j] for j in range(n - 1)]))
    assert plasticity(matrix).value == pytest.approx(np.diag(r).mean())
    assert aulc(matrix).value == pytest.approx(np.mean([np.diag(r)[:i].mean() for i in range(1, n + 1)]))


@settings(max_examples=50)
@given(matrices())
def test_measures_stay_within_their_bounds(matrix: Matrix) -> None:
    found = measures_of(matrix)
    bounds = {"acc": (0, 1), "aulc": (0, 1), "plasticity": (0, 1), "clf_beta": (0, 1), "stability": (0, 2)}
    for name in set(MEASURES) - {"cl_score"}:
        low, high = bounds.get(name, (-1, 1))
        value = found[name].value
        assert value is None or low <= value <= high
    kinds = [found[name].value for name in NET]
    if kinds[2] is not None:
        assert kinds[2] <= min(kinds[0] or 0.0, kinds[1] or 0.0) + 1e-12
        assert found["backward_transfer"].value == -kinds[2]


@settings(max_examples=50)
@given(matrices(), st.randoms(use_true_random=False))
def test_the_order_of_columns_does_not_matter(matrix: Matrix, rng: random.Random) -> None:
    order = list(range(len(matrix.columns)))
    rng.shuffle(order)
    table = tuple(tuple(row[place] for place in order) for row in matrix.cells)
    other = measures_of(Matrix(tuple(matrix.columns[place] for place in order), table, matrix.learnt))
    for name, found in measures_of(matrix).items():
        assert other[name].value == (None if found.value is None else pytest.approx(found.value))


@settings(max_examples=50)
@given(matrices())
def test_an_agent_that_never_changes_and_is_measured_without_noise_transfers_and_forgets_nothing(matrix: Matrix) -> None:
    still = Matrix(matrix.columns, matrix.cells[:1] * len(matrix.cells), matrix.learnt)
    for name in (*NET, "forward_transfer", "forward_transfer_unlearnt", "backward_transfer"):
        assert MEASURES[name](still).value in (None, 0.0)
