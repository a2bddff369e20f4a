"""The primary comparison, beside statsmodels and by hand, and on lives that say little."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.sandwich_covariance import cov_cluster_2groups

from eval.errors import EvalError
from eval.statistics.lives import Compared, compare_lives

Lives = list[dict[str, bool]]
LIVES = st.lists(
    st.dictionaries(st.sampled_from("abcdef"), st.tuples(st.booleans(), st.booleans()), max_size=6), min_size=0, max_size=6
)


def lived(seed: int, lives: int, tasks: int, share: float, luck: float = 0.0, of: int | None = None) -> Lives:
    rng = random.Random(seed)
    found = []
    for _ in range(lives):
        chance = min(max(share + rng.uniform(-luck, luck), 0), 1)
        found.append({f"t{task}": rng.random() < chance for task in rng.sample(range(of or tasks), tasks)})
    return found


def both(lives: list[dict[str, tuple[bool, bool]]]) -> Compared:
    return compare_lives(
        [{k: v[0] for k, v in one.items()} for one in lives], [{k: v[1] for k, v in one.items()} for one in lives]
    )


def test_the_variance_is_that_of_two_way_clusters() -> None:
    """Beside statsmodels' regression on a constant; each of its three parts by the same formula."""
    for seed in range(20):
        base, candidate = lived(seed, 6, 12, 0.4), lived(seed + 100, 6, 12, 0.5, 0.3)
        found = compare_lives(base, candidate)
        rows = [(life, task, candidate[life][task] - hit) for life, one in enumerate(base) for task, hit in one.items()]
        values = np.array([value for *_, value in rows], float)
        groups = [np.unique([row[place] for row in rows], return_inverse=True)[1] for place in (0, 1)]
        fit = OLS(values, np.ones(len(rows))).fit()
        of_lives = cov_cluster_2groups(fit, groups[0], groups[1], use_correction=False)[1]
        of_tasks = cov_cluster_2groups(fit, groups[0], groups[1], use_correction=False)[2]
        single = float(values.var(ddof=1)) / len(values)
        lives, tasks = float(of_lives.item()) * 6 / 5, float(of_tasks.item()) * 12 / 11
        variance = max(lives, lives + tasks - single)
        assert found.tested.statistic == pytest.approx(values.mean() / math.sqrt(variance))
        assert found.tested.p == pytest.approx(2 * stats.t.sf(abs(values.mean()) / math.sqrt(variance), 5))
        assert found.tested.effect == pytest.approx((found.tested.statistic or 0) / math.sqrt(6))
        assert found.design_effect == pytest.approx(variance / single)
        assert found.low == pytest.approx(values.mean() - stats.t.ppf(0.975, 5) * math.sqrt(variance))


def test_lives_of_unequal_length_weigh_the_same_in_every_part() -> None:
    """Three lives of 4, 2 and 2 tasks, two of them shared: the parts of the variance by hand, with weights of 1/12 and 1/6."""
    changed = [{"a": 1, "b": 0, "c": 1, "d": 0}, {"a": 1, "e": 1}, {"a": 1, "b": 0}]
    found = compare_lives(
        [dict.fromkeys(life, False) for life in changed], [{task: bool(v) for task, v in life.items()} for life in changed]
    )
    centre = (0.5 + 1 + 0.5) / 3
    up, down = 1 - centre, -centre
    of_tasks = (
        ((up / 12 + up / 6 + up / 6) ** 2 + (down / 12 + down / 6) ** 2 + (up / 12) ** 2 + (down / 12) ** 2 + (up / 6) ** 2)
        * 5
        / 4
    )
    single = (2 * (up / 12) ** 2 + 2 * (down / 12) ** 2 + 3 * (up / 6) ** 2 + (down / 6) ** 2) * 8 / 7
    of_lives = (2 * (0.5 - centre) ** 2 + (1 - centre) ** 2) / 9 * 3 / 2
    assert found.tested.statistic == pytest.approx(centre / math.sqrt(of_lives + of_tasks - single))
    assert found.design_effect == pytest.approx((of_lives + of_tasks - single) / single)


def test_lives_that_share_no_task_give_the_paired_t() -> None:
    base = [{f"{life}.{task}": task % 3 == 0 for task in range(9)} for life in range(5)]
    candidate = [{f"{life}.{task}": task % 3 == 0 or task <= life for task in range(9)} for life in range(5)]
    found = compare_lives(base, candidate)
    assert found.tested.statistic == pytest.approx(found.over_lives.statistic)
    assert found.tested.p == pytest.approx(found.over_lives.p)
    assert found.per_life == pytest.approx([0, 1 / 9, 2 / 9, 2 / 9, 3 / 9])
    assert (found.base, found.difference) == (pytest.approx(1 / 3), pytest.approx(8 / 45))
    assert (found.gained, found.lost, found.pairs, found.tasks, found.lives) == (8, 0, 45, 45, 5)
    assert found.sd_tasks is None


def test_tasks_that_all_lives_share_are_no_new_evidence() -> None:
    """Half of the tasks gained in every life: ten lives of four tasks say what four tasks say."""
    base: Lives = [dict.fromkeys("abcd", False)] * 10
    candidate: Lives = [{"a": True, "b": True, "c": False, "d": life == 0} for life in range(10)]
    found = compare_lives(base, candidate)
    assert (found.over_lives.p or 1) < 1e-6
    assert (found.pooled.p or 1) < 1e-4
    assert (found.tested.p or 0) > 0.1
    assert found.sd_tasks == pytest.approx(0.55, abs=0.06)


def test_lives_that_differ_are_what_counts() -> None:
    """One life with all the gain: many pairs, little evidence."""
    base: Lives = [{f"{life}.{task}": False for task in range(20)} for life in range(4)]
    candidate: Lives = [dict.fromkeys(one, life == 0) for life, one in enumerate(base)]
    found = compare_lives(base, candidate)
    assert (found.pooled.p or 1) < 1e-4
    assert found.tested.p == pytest.approx(stats.ttest_1samp([1, 0, 0, 0], 0).pvalue)
    assert found.sd_lives == pytest.approx(0.5, abs=0.02)
    assert (found.design_effect or 0) > 20


@settings(max_examples=80, deadline=None)
@given(LIVES)
def test_the_arms_can_be_exchanged(lives: list[dict[str, tuple[bool, bool]]]) -> None:
    one = both(lives)
    other = both([{k: (b, a) for k, (a, b) in life.items()} for life in lives])
    again = both([dict(reversed(life.items())) for life in reversed(lives)])
    for turned, sign in ((other, -1), (again, 1)):
        assert turned.difference == (None if one.difference is None else pytest.approx(sign * one.difference))
        assert turned.tested.p == (None if one.tested.p is None else pytest.approx(one.tested.p))
    if one.low is not None:
        assert one.high is not None
        assert other.high == pytest.approx(-one.low)
        assert -1 <= one.low <= (one.difference or 0) + 1e-9
        assert (one.difference or 0) - 1e-9 <= one.high <= 1
    assert (one.tested.p is None) <= bool(one.tested.why)
    assert one.tested.p is None or 0 <= one.tested.p <= 1


def test_a_wider_confidence_gives_a_wider_interval() -> None:
    base, candidate = lived(0, 5, 10, 0.3), lived(1, 5, 10, 0.6)
    found = [compare_lives(base, candidate, confidence) for confidence in (0.8, 0.95, 0.99)]
    widths = [(one.high or 0) - (one.low or 0) for one in found]
    assert widths == sorted(widths)
    assert widths[0] < widths[2]
    p = found[0].tested.p or 0
    edge = compare_lives(base, candidate, 1 - p)
    assert min(abs(edge.low or 1), abs(edge.high or 1)) == pytest.approx(0, abs=1e-9)


def test_only_what_both_arms_met_is_compared() -> None:
    found = compare_lives([{"a": True, "b": False}, {"a": True}], [{"b": True, "c": True}, {"c": False}])
    assert (found.lives, found.pairs, found.unpaired, found.gained) == (1, 1, 4, 1)
    assert (found.base, found.candidate) == (0, 1)


def test_every_life_counts_the_same() -> None:
    base: Lives = [{f"t{n}": False for n in range(10)}, {"t0": False, "t1": False}]
    candidate: Lives = [{f"t{n}": True for n in range(10)}, {"t0": False, "t1": False}]
    assert compare_lives(base, candidate).difference == 0.5


def test_one_life_says_nothing_about_lives() -> None:
    found = compare_lives(lived(0, 1, 30, 0.2), lived(1, 1, 30, 0.8))
    assert (found.tested.p, found.low, found.high, found.design_effect) == (None, None, None, None)
    assert "1 life with" in found.tested.why
    assert found.pooled.p is not None
    assert found.difference is not None
    assert compare_lives([], []).difference is None


def test_no_discordant_pair_is_bounded_by_its_tasks() -> None:
    arm = [dict.fromkeys("abcdefghij", True)] * 3
    found = compare_lives(arm, arm)
    assert (found.tested.p, found.difference, found.tested.why) == (1.0, 0, "no pair is discordant")
    assert found.high == pytest.approx(stats.binomtest(0, 10).proportion_ci(method="exact").high)
    assert found.low == -(found.high or 0)


def test_all_gained_is_found() -> None:
    none: Lives = [dict.fromkeys("abcdefghij", False)] * 8
    found = compare_lives(none, [dict.fromkeys("abcdefghij", True)] * 8)
    assert found.tested.p == pytest.approx(2 / 2**8)
    assert (found.difference, found.high) == (1, 1)
    assert 0 < (found.low or 0) < 1
    assert "sign test" in found.tested.why


def test_lives_that_agree_exactly_are_not_certain() -> None:
    base: Lives = [dict.fromkeys("abcdefgh", False)] * 3
    candidate: Lives = [{task: task == hit for task in "abcdefgh"} for hit in "abc"]
    found = compare_lives(base, candidate)
    assert found.per_life == (0.125,) * 3
    assert (found.tested.p or 0) > 0.05


def test_what_is_not_paired_is_refused() -> None:
    with pytest.raises(EvalError, match="2 lives, candidate 1"):
        compare_lives([{}, {}], [{}])
    with pytest.raises(EvalError, match="confidence"):
        compare_lives([{}], [{}], 95)
