"""Two-way analysis of variance: a published table, sums of squares by hand, and cells without runs."""

import pytest

from eval.statistics.anova import Run, two_way_anova
from tests.eval.statistics.worked import TEETH

RUNS = [Run(a=a, b=b, value=float(value)) for (a, b), values in TEETH.items() for value in values.split()]


@pytest.mark.parametrize("of_type", [2, 3])
def test_the_table_of_tooth_growth(of_type: int) -> None:
    """As R's `aov(len ~ supp * factor(dose))` prints it."""
    found = two_way_anova(RUNS, ("supp", "dose"), of_type)  # type: ignore[arg-type]
    assert [source.name for source in found.sources] == ["supp", "dose", "supp x dose"]
    assert [source.df for source in found.sources] == [1, 2, 2]
    assert [source.sum_of_squares for source in found.sources] == pytest.approx([205.35, 2426.43, 108.32], abs=0.005)
    assert [source.f for source in found.sources] == pytest.approx([15.572, 92.000, 4.107], abs=0.0005)
    assert [source.p for source in found.sources] == pytest.approx([0.0002312, 4.046e-18, 0.02186], rel=1e-3)
    assert (found.residual_sum_of_squares, found.residual_df) == (pytest.approx(712.106), 54)
    assert (found.balanced, found.interaction, found.missing, found.why, found.n) == (True, True, (), "", 60)


def test_effect_sizes_by_hand() -> None:
    squares, error = (205.35, 2426.434333, 108.319), 712.106
    total = sum(squares) + error
    found = two_way_anova(RUNS).sources
    assert [source.partial_eta_squared for source in found] == pytest.approx([ss / (ss + error) for ss in squares])
    omega = [(ss - df * error / 54) / (total + error / 54) for ss, df in zip(squares, (1, 2, 2), strict=True)]
    assert [source.omega_squared for source in found] == pytest.approx(omega)


def test_no_effect_has_a_negative_omega() -> None:
    values = {("a", "x"): (1, 3), ("a", "y"): (2, 2.5), ("b", "x"): (1.5, 2.5), ("b", "y"): (1, 3.4)}
    found = two_way_anova([Run(a=a, b=b, value=v) for (a, b), pair in values.items() for v in pair])
    assert (found.sources[0].omega_squared or 0) < 0


def test_types_differ_where_cells_are_unequal() -> None:
    """Type 2 of the first factor is what it adds to the second: by hand, from means within levels of the second."""
    runs = [Run(a=a, b=b, value=v) for a, b, v in (("p", "x", 1), ("p", "x", 2), ("p", "y", 4), ("q", "x", 5), ("q", "y", 6))]
    runs += [Run(a="q", b="y", value=8), Run(a="q", b="y", value=7)]
    two, three = two_way_anova(runs), two_way_anova(runs, of_type=3)
    assert not two.balanced
    # Differences q - p of 3.5 (x: 1 beside 2 runs) and 3 (y: 3 beside 1), weighted by 2/3 and 3/4.
    weights, gaps = (2 / 3, 3 / 4), (3.5, 3.0)
    mean = sum(w * g for w, g in zip(weights, gaps, strict=True)) / sum(weights)
    assert two.sources[0].sum_of_squares == pytest.approx(mean**2 * sum(weights))
    # Type 3: the unweighted mean gap.
    assert three.sources[0].sum_of_squares == pytest.approx(3.25**2 / (sum(1 / w for w in weights) / 4))
    assert two.sources[2].sum_of_squares == pytest.approx(three.sources[2].sum_of_squares)


def test_missing_cells_are_named_and_nothing_is_made_of_them() -> None:
    found = two_way_anova([run for run in RUNS if (run.a, run.b) != ("VC", "1")], of_type=3)
    assert found.missing == (("VC", "1"),)
    assert (found.type, found.interaction, found.balanced, len(found.sources)) == (2, False, False, 2)
    assert "no run in 1 of 6 cells (VC x 1)" in found.why
    assert [source.df for source in found.sources] == [1, 2]


def test_one_run_a_cell_leaves_no_interaction() -> None:
    found = two_way_anova(RUNS[::10])
    assert (len(found.sources), found.residual_df, found.balanced) == (2, 2, True)
    assert "one run a cell" in found.why


@pytest.mark.parametrize(
    ("runs", "why"),
    [
        ([], "two levels"),
        (RUNS[:30], "repository: 1"),
        ([run.model_copy(update={"value": 0.1}) for run in RUNS], "every run has the value 0.1"),
        ([RUNS[0], RUNS[1], RUNS[-1], RUNS[-2]], "share no level"),
        ([RUNS[0], RUNS[10], RUNS[30]], "no run is left over"),
        ([run for run in RUNS[::10] for _ in range(2)], "no error to compare"),
    ],
)
def test_what_cannot_be_analysed_says_why(runs: list[Run], why: str) -> None:
    found = two_way_anova(runs)
    assert found.sources == ()
    assert why in found.why
