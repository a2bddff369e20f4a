"""Bootstrap intervals: against scipy, against formulas, and where whole clusters matter."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from eval.errors import EvalError
from eval.statistics.bootstrap import bootstrap, cluster_bootstrap, crossed_bootstrap
from eval.statistics.tested import Interval

MICE = (94, 197, 16, 38, 99, 141, 23)
"""Efron & Tibshirani 1993, table 2.1: days that treated mice survived."""


def width(interval: Interval) -> float:
    assert interval.low is not None
    assert interval.high is not None
    return interval.high - interval.low


@pytest.mark.parametrize("method", ["percentile", "BCa"])
def test_the_interval_is_scipys(method: str) -> None:
    found = bootstrap(MICE, np.median, method=method, seed=3, resamples=999)  # type: ignore[arg-type]
    theirs = stats.bootstrap(
        (np.array(MICE, float),), np.median, method=method, n_resamples=999, random_state=np.random.default_rng(3)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx(tuple(theirs))
    assert (found.estimate, found.n) == (94, 7)


def test_the_mean_of_the_mice() -> None:
    """Its standard error is 25.24 (Efron & Tibshirani, table 2.2, formula): sqrt(6/7) of it is what is drawn from."""
    found = bootstrap(MICE, method="percentile", confidence=0.6826895)
    assert found.estimate == pytest.approx(86.857, abs=1e-3)
    assert width(found) / 2 == pytest.approx(25.24 * math.sqrt(6 / 7), rel=0.04)


def test_whole_clusters_are_drawn() -> None:
    """Ten lives whose tasks are all alike: the interval must be that of ten values, not of 250."""
    clusters = {f"life {number}": [float(number % 2)] * 25 for number in range(10)}
    alone = bootstrap([float(number % 2) for number in range(10)], method="percentile")
    for weight in ("cluster", "value"):
        found = cluster_bootstrap(clusters, weight=weight, method="percentile")  # type: ignore[arg-type]
        assert (found.low, found.high, found.n) == (alone.low, alone.high, 10)
    flat = bootstrap([value for values in clusters.values() for value in values])
    assert width(flat) < width(alone) / 3


def test_clusters_or_values_weigh_the_same() -> None:
    clusters = {"a": [1.0] * 9, "b": [0.0], "c": [0.0] * 2}
    assert cluster_bootstrap(clusters).estimate == pytest.approx(1 / 3)
    assert cluster_bootstrap(clusters, weight="value").estimate == pytest.approx(9 / 12)
    halves = cluster_bootstrap({"a": [0.0, 1.0] * 9, "b": [1.0, 0.0], "c": [0.5]}, weight="value", method="percentile")
    assert (halves.low, halves.high) == pytest.approx((0.5, 0.5))


def test_pigeonholes_know_lives_and_tasks() -> None:
    lives = [{f"t{task}": float(life % 2) for task in range(20)} for life in range(10)]
    tasks = [{f"t{task}": float(task % 2) for task in range(20)} for _ in range(10)]
    assert width(crossed_bootstrap(lives)) == pytest.approx(0.6, abs=0.11)
    assert width(crossed_bootstrap(tasks)) == pytest.approx(4 * math.sqrt(0.25 / 20), rel=0.15)


def test_the_seed_decides() -> None:
    rng = random.Random(0)
    values = [rng.random() for _ in range(20)]
    assert bootstrap(values, seed=1) == bootstrap(values, seed=1)
    assert bootstrap(values, seed=1) != bootstrap(values, seed=2)
    rows = [{f"t{task}": rng.random() for task in range(5)} for _ in range(5)]
    assert crossed_bootstrap(rows, seed=1) == crossed_bootstrap(rows, seed=1)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=12))
def test_an_interval_is_never_nan(values: list[int]) -> None:
    for method in ("percentile", "BCa"):
        found = bootstrap(values, method=method, resamples=199)  # type: ignore[arg-type]
        if found.low is None or found.high is None or found.estimate is None:
            assert found.why
        else:
            assert min(values) <= found.low <= found.high <= max(values)
    if len(set(values)) > 1:
        assert found.low is not None


def test_what_has_no_interval_says_why() -> None:
    assert "at least two" in bootstrap([1.0]).why
    assert bootstrap([1.0]).estimate == 1
    assert "no spread" in bootstrap([0.1, 0.1, 0.1]).why
    assert bootstrap([]).estimate is None
    assert "at least two" in cluster_bootstrap({"a": [1.0, 0.0], "b": []}).why
    assert "1 rows of 2 keys" in crossed_bootstrap([{"a": 1.0, "b": 0.0}]).why
    with pytest.raises(EvalError, match="confidence"):
        bootstrap([1.0, 2.0], confidence=95)
    with pytest.raises(EvalError, match="values"):
        bootstrap([1.0, math.nan])
