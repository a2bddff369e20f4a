"""Bootstrap intervals, seeded.

Values of one cluster (a life, whose tasks share an adapter; a task, met by several lives) are not independent: whole clusters
are drawn then. With few clusters (below about ten) these intervals of a mean are too narrow; those of `eval.statistics.lives`
are not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from eval.errors import EvalError
from eval.statistics.tested import Interval, finite, is_flat

if TYPE_CHECKING:
    from numpy.typing import NDArray

Method = Literal["percentile", "BCa"]
Weight = Literal["cluster", "value"]
Statistic = Callable[..., Any]
"""Called with arrays and `axis`, as `numpy.mean` and `numpy.median` are."""
RESAMPLES = 9_999


def bootstrap(
    values: Sequence[float],
    statistic: Statistic | None = None,
    method: Method = "BCa",
    confidence: float = 0.95,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """Interval of a statistic (the mean) of independent values: percentile, or bias-corrected and accelerated (Efron 1987).

    Raises:
        EvalError: a value is no finite number, or the confidence is not between 0 and 1.
    """
    import numpy as np

    found = np.array(finite(values, "values"))
    return _interval((found,), statistic or np.mean, method, confidence, seed, resamples, f"{method} bootstrap")


def cluster_bootstrap(
    clusters: Mapping[str, Sequence[float]],
    weight: Weight = "cluster",
    method: Method = "BCa",
    confidence: float = 0.95,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """Interval of the mean, drawing whole clusters (Davison & Hinkley 1997, section 3.8): of the clusters' means (`cluster`:
    each counts the same), or of all values (`value`). Empty clusters are left out.

    Raises:
        EvalError: a value is no finite number, or the confidence is not between 0 and 1.
    """
    import numpy as np

    kept = [finite(values, name) for name, values in clusters.items() if values]
    sums, counts = np.array([sum(values) for values in kept]), np.array([float(len(values)) for values in kept])
    if weight == "cluster":
        sums, counts = sums / counts, np.ones_like(counts)

    def mean(total: NDArray[Any], count: NDArray[Any], axis: int = -1) -> Any:
        return total.sum(axis=axis) / count.sum(axis=axis)

    return _interval((sums, counts), mean, method, confidence, seed, resamples, f"{method} bootstrap of clusters")


def crossed_bootstrap(
    rows: Sequence[Mapping[str, float]], confidence: float = 0.95, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """Interval of the mean of values that have a life (a row) and a task (a key), drawing both independently: the pigeonhole
    bootstrap (Owen 2007), percentile; cautious by design where only one of the two matters.

    Raises:
        EvalError: a value is no finite number, or the confidence is not between 0 and 1.
    """
    import numpy as np

    _check(confidence)
    kept = [row for row in rows if row]
    tasks = {task: place for place, task in enumerate(sorted({task for row in kept for task in row}))}
    method = "pigeonhole bootstrap"
    value, there = np.zeros((len(kept), len(tasks))), np.zeros((len(kept), len(tasks)))
    for number, row in enumerate(kept):
        for task, one in zip(row, finite(list(row.values()), f"rows[{number}]"), strict=True):
            value[number, tasks[task]], there[number, tasks[task]] = one, 1.0
    estimate = float(value.sum() / there.sum()) if kept else None
    if min(value.shape) < 2:
        why = f"{len(kept)} rows of {len(tasks)} keys: at least two of each are needed"
        return Interval(method=method, estimate=estimate, confidence=confidence, n=len(kept), why=why)
    rng = np.random.default_rng(seed)
    lives = rng.multinomial(len(kept), np.full(len(kept), 1 / len(kept)), size=resamples).astype(float)
    drawn = rng.multinomial(len(tasks), np.full(len(tasks), 1 / len(tasks)), size=resamples).astype(float)
    total, count = ((lives @ value) * drawn).sum(1), ((lives @ there) * drawn).sum(1)
    low, high = np.quantile((total / np.where(count > 0, count, 1.0))[count > 0], [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(method=method, estimate=estimate, low=float(low), high=float(high), confidence=confidence, n=len(kept))


def _interval(
    data: tuple[NDArray[Any], ...],
    statistic: Statistic,
    method: Method,
    confidence: float,
    seed: int,
    resamples: int,
    name: str,
) -> Interval:
    """By `scipy.stats.bootstrap`; the arrays are drawn together."""
    import numpy as np
    from scipy.stats import bootstrap as resampled

    _check(confidence)
    n = len(data[0])
    estimate = float(statistic(*data, axis=-1)) if n else None
    if n < 2:
        why = f"{n} to draw from: at least two are needed"
        return Interval(method=name, estimate=estimate, confidence=confidence, n=n, why=why)
    if all(is_flat(array.tolist()) for array in data):
        why = "all are equal: there is no spread to draw from"
        return Interval(method=name, estimate=estimate, confidence=confidence, n=n, why=why)

    def drawn(how: Method) -> tuple[float, float]:
        found = resampled(
            data,
            statistic,
            paired=True,
            vectorized=True,
            method=how,
            confidence_level=confidence,
            n_resamples=resamples,
            random_state=np.random.default_rng(seed),
        ).confidence_interval
        return float(found.low), float(found.high)

    import warnings

    with warnings.catch_warnings():
        # Where BCa is not defined scipy warns and gives nan; the percentile interval then stands in, by its name.
        warnings.filterwarnings("ignore", message=".*BCa confidence interval cannot be calculated.*")
        low, high = drawn(method)
    why = ""
    if not (np.isfinite(low) and np.isfinite(high)):
        (low, high), why = drawn("percentile"), "BCa is not defined here; percentile instead"
    return Interval(method=name, estimate=estimate, low=low, high=high, confidence=confidence, n=n, why=why)


def _check(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise EvalError(f"a confidence of {confidence} is not between 0 and 1")
