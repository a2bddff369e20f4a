"""Measures of continual learning, from a matrix a[i, j] alone (SWE-Bench-CL paper, section 7).

The paper's matrix is square: N tasks, task i learnt in row i. Here column j is learnt in row l(j), or never, and R is the last
row; with l(j) = j and R = N every formula is the paper's. `earlier` columns are those learnt before the last row, l(j) < R.
A measure that needs a cell which is missing is missing, with that cell's reason; no cell is ever left out in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from statistics import fmean
from typing import ParamSpec

from eval.metrics.matrix import Matrix, Missing, told

NOTHING_TAUGHT = "no column was learnt"
NOTHING_EARLIER = "no column was learnt before the last row, so none can have been forgotten yet"


@dataclass(frozen=True)
class Measure:
    """A value, or None and why there is none.

    Raises:
        ValueError: it has neither, or both.
    """

    value: float | None
    why: str = ""

    def __post_init__(self) -> None:
        if (self.value is None) != bool(self.why):
            raise ValueError("a measure has either a value or a reason why it has none")


class _Lack(Exception):
    """There is no value; the text says why."""


P = ParamSpec("P")
Forgetting = Callable[[Matrix], Measure]


@dataclass(frozen=True)
class Weights:
    """The lambdas of CL-Score. A part whose weight is 0 need not be measured."""

    forgetting: float = 1.0
    forward_transfer: float = 1.0
    backward_transfer: float = 1.0
    aulc: float = 1.0


def _measure(of: Callable[P, float]) -> Callable[P, Measure]:
    @wraps(of)
    def measured(*args: P.args, **kwargs: P.kwargs) -> Measure:
        try:
            return Measure(of(*args, **kwargs))
        except _Lack as lack:
            return Measure(None, str(lack))

    return measured


@_measure
def acc(matrix: Matrix) -> float:
    """ACC: mean of the last row, a[R, j] over all columns, learnt or not (paper: 1/N sum_j a[N, j])."""
    return _mean([_at(matrix, matrix.last, column) for column in matrix.columns], "there are no columns")


def forgetting_paper(matrix: Matrix) -> Measure:
    """F as in the paper: mean over earlier columns of max(1 <= k <= l(j)) a[k, j] - a[R, j]. Raw: negative where more is known.

    It ignores what a column gains after its own row.
    """
    return _forgetting(matrix, lambda row: range(1, row + 1))


def forgetting_chaudhry(matrix: Matrix) -> Measure:
    """F of Chaudhry et al. 2018 (section 3): mean over earlier columns of max(l(j) <= k <= R-1) a[k, j] - a[R, j]. Raw.

    Rows before l(j) have no part in it, as there, where a[k, j] is defined for j <= k alone.
    """
    return _forgetting(matrix, lambda row: range(row, matrix.last))


def forgetting_avalanche(matrix: Matrix) -> Measure:
    """F as Avalanche computes it (StreamForgetting): mean over earlier columns of a[l(j), j] - a[R, j]. Raw.

    It takes no maximum, so that chance alone does not make it positive; it is -BWT.
    """
    return _forgetting(matrix, lambda row: range(row, row + 1))


@_measure
def backward_transfer(matrix: Matrix) -> float:
    """BWT: mean over earlier columns of a[R, j] - a[l(j), j] (paper: 1/(N-1) sum_(i<N) (a[N, i] - a[i, i]))."""
    return 0.0 - _value(forgetting_avalanche(matrix))


@_measure
def forward_transfer(matrix: Matrix) -> float:
    """FT: mean over columns learnt in row 2 or later of a[l(j)-1, j] - a[0, j] (paper: the superdiagonal minus row 0)."""
    return _mean(
        [_at(matrix, row - 1, column) - _at(matrix, 0, column) for column, row in matrix.taught.items() if row > 1],
        "no column was learnt after the first row, so nothing could be carried over to one"
        if matrix.taught
        else NOTHING_TAUGHT,
    )


@_measure
def forward_transfer_unlearnt(matrix: Matrix) -> float:
    """Programme, phases 1-3: mean over columns never learnt of a[R, j] - a[0, j]."""
    if not matrix.last:
        raise _Lack("there is no row after row 0")
    return _mean(
        [_at(matrix, matrix.last, column) - _at(matrix, 0, column) for column in matrix.untaught], "every column was learnt"
    )


@_measure
def aulc(matrix: Matrix) -> float:
    """AULC: mean over teaching rows of the running mean of d (paper: 1/N sum_i 1/i sum_(k<=i) a[k, k]).

    d of a row is the mean a[i, j] of the columns it taught; rows that taught nothing have none. So the order of columns that
    were learnt together does not matter.
    """
    taught = matrix.taught
    curve = [
        fmean(_at(matrix, row, column) for column in taught if taught[column] == row) for row in sorted({*taught.values()})
    ]
    return _mean([fmean(curve[:number]) for number in range(1, len(curve) + 1)], NOTHING_TAUGHT)


@_measure
def plasticity(matrix: Matrix) -> float:
    """CL-P: mean over learnt columns of a[l(j), j] (paper: 1/N sum_i a[i, i])."""
    return _mean([_at(matrix, row, column) for column, row in matrix.taught.items()], NOTHING_TAUGHT)


@_measure
def stability(matrix: Matrix, forgetting: Forgetting = forgetting_paper) -> float:
    """CL-S: 1 - F. Over 1 where F is negative."""
    return 1 - _value(forgetting(matrix))


@_measure
def clf_beta(matrix: Matrix, beta: float = 1.0, forgetting: Forgetting = forgetting_paper) -> float:
    """CL-F_beta: (1 + beta^2) P S / (beta^2 P + S) of CL-P and CL-S, S clipped to 0 ... 1 here alone; 0 where both are 0.

    Raises:
        ValueError: beta is negative.
    """
    if beta < 0:
        raise ValueError(f"beta is {beta}; it must not be negative")
    p, s = _value(plasticity(matrix)), min(1.0, max(0.0, _value(stability(matrix, forgetting))))
    divisor = beta**2 * p + s
    return (1 + beta**2) * p * s / divisor if divisor else 0.0


@_measure
def cl_score(
    matrix: Matrix, weights: Weights | None = None, beta: float = 1.0, forgetting: Forgetting = forgetting_paper
) -> float:
    """CL-Score: ACC - l_F F + l_FT FT + l_BWT BWT + l_AULC AULC + CL-F_beta; all weights 1 unless given."""
    weights = weights or Weights()
    weighted: tuple[tuple[float, Forgetting], ...] = (
        (-weights.forgetting, forgetting),
        (weights.forward_transfer, forward_transfer),
        (weights.backward_transfer, backward_transfer),
        (weights.aulc, aulc),
    )
    parts = [weight * _value(of(matrix)) for weight, of in weighted if weight]
    return _value(acc(matrix)) + sum(parts) + _value(clf_beta(matrix, beta, forgetting))


def minus_control(measure: Measure, frozen: Measure) -> Measure:
    """A measure minus the same measure of the frozen control, on a matrix of the same columns, rows and attempts per cell.

    What remains is learning. A maximum over noisy cells is above their mean: an agent that never learns, sampled once for each
    cell of N = 20 at p = 0.1, shows F of about 0.49.
    """
    if measure.value is None:
        return measure
    return Measure(measure.value - frozen.value) if frozen.value is not None else Measure(None, f"frozen control: {frozen.why}")


MEASURES: dict[str, Callable[[Matrix], Measure]] = {
    "acc": acc,
    "forgetting_paper": forgetting_paper,
    "forgetting_chaudhry": forgetting_chaudhry,
    "forgetting_avalanche": forgetting_avalanche,
    "forward_transfer": forward_transfer,
    "forward_transfer_unlearnt": forward_transfer_unlearnt,
    "backward_transfer": backward_transfer,
    "aulc": aulc,
    "plasticity": plasticity,
    "stability": stability,
    "clf_beta": clf_beta,
    "cl_score": cl_score,
}
NET = ("forgetting_paper", "forgetting_chaudhry", "forgetting_avalanche")
"""Reported minus the frozen control too, under `NAME_net`."""


def measures_of(matrix: Matrix, frozen: Matrix | None = None, forgetting: Forgetting = forgetting_paper) -> dict[str, Measure]:
    """Every measure by name, and those of `NET` minus the frozen control's matrix.

    `forgetting` is what stability and the scores made of it are of; where tasks are not examined before they are learnt, the
    paper's has no value, and the others have.
    """
    found = {name: of(matrix) for name, of in MEASURES.items()}
    found["stability"] = stability(matrix, forgetting)
    found["clf_beta"] = clf_beta(matrix, forgetting=forgetting)
    found["cl_score"] = cl_score(matrix, forgetting=forgetting)
    for name in NET:
        control = MEASURES[name](frozen) if frozen else Measure(None, "not measured")
        found[f"{name}_net"] = minus_control(found[name], control)
    return found


@_measure
def _forgetting(matrix: Matrix, rows: Callable[[int], range]) -> float:
    earlier = {column: row for column, row in matrix.taught.items() if row < matrix.last}
    return _mean(
        [max(_at(matrix, k, column) for k in rows(row)) - _at(matrix, matrix.last, column) for column, row in earlier.items()],
        NOTHING_EARLIER if matrix.taught else NOTHING_TAUGHT,
    )


def _mean(values: Sequence[float], nothing: str) -> float:
    if not values:
        raise _Lack(nothing)
    return fmean(values)


def _value(measure: Measure) -> float:
    if measure.value is None:
        raise _Lack(measure.why)
    return measure.value


def _at(matrix: Matrix, row: int, column: str) -> float:
    value = matrix.at(row, column)
    if isinstance(value, Missing):
        raise _Lack(f"{told((row, column))} is missing: {value.reason}")
    return value
