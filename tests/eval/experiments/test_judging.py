"""Verdicts where lives failed, where all are equal, and against the best of the others."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import pytest

from eval.errors import EvalError
from eval.experiments.analysis import Analysis, Judged, analyse
from eval.experiments.contrasts import against_base, contrasts
from eval.experiments.judging import judge
from eval.experiments.plan import Cell, Experiment
from eval.experiments.study import Study
from memory.arms import Arm
from tests.eval.experiments.test_analysis import (
    FACTOR,
    SPREAD,
    Rate,
    analysed,
    experiment,
    lived,
    only,
    size,
    table,
    verdict,
    verdicts,
)

REPOS = ("train", "boat", "farm", "bank")
PLACES = {"pocket": size(seeds=4, spread={"design.repo": list(REPOS)})}
P = {"measure": "p_value", "operator": "<", "threshold": 0.05}


def failing(plan: Experiment, rate: Rate, dead: Callable[[Cell], bool]) -> Analysis:
    cells = plan.cells("pocket")
    lives = {cell.name: lived(rate(cell)) for cell in cells if not dead(cell)}
    return analyse(plan, "pocket", lives, cells, {cell.name: "boom" for cell in cells if dead(cell)})


def judged(plan: Experiment, rate: Rate, dead: Callable[[Cell], bool] = lambda cell: False) -> Judged:
    """What `failing` says of the only criterion, without the rest."""
    cells = plan.cells("pocket")
    lives = {cell.name: lived(rate(cell)) for cell in cells if not dead(cell)}
    (criterion,) = plan.criteria
    return judge(Study(plan, "pocket", cells, lives, {cell.name: "boom" for cell in cells if dead(cell)}), criterion)


def of(found: Analysis, variant: str) -> tuple[Any, Any, Any]:
    """Its summary, its contrast and it against the base."""
    summary = next(one for one in found.summaries if (one.variant, one.measure) == (variant, "forward_transfer"))
    contrast = next((one for one in found.contrasts if (one.variant, one.measure) == (variant, "forward_transfer")), None)
    return summary, contrast, next(one for one in found.against_base if (one.variant, one.arm) == (variant, "skill"))


def test_seed_that_lacks_a_place_is_left_out_of_all_that_compares() -> None:
    plan = experiment({"variant": "y", "threshold": 0.2}, sizes=PLACES)
    found = failing(
        plan, lambda cell: 0.2 + 0.1 * cell.seed, lambda cell: cell.seed == 1 and cell.place["design.repo"] == "bank"
    )
    summary, contrast, base = of(found, "y")
    assert (summary.interval.n, summary.interval.unit) == (3, "seeds")
    assert summary.interval.mean == pytest.approx((0.2 + 0.4 + 0.5) / 3)
    assert (contrast.difference.n, contrast.difference.unit, contrast.left_out) == (3, "seeds", ("seed 1",))
    assert (base.compared.lives, base.left_out) == (3, ("seed 1",))
    curve = next(one for one in found.curves if (one.kind, one.variant) == ("learning", "y"))
    assert curve.points[1].interval.n == 3
    assert any("lack a place: seed 1 of x, seed 1 of y" in warning for warning in found.warnings)


def test_seeds_stay_the_replicates_when_all_but_one_are_broken() -> None:
    plan = experiment({"variant": "y", "threshold": 0.1}, {"variant": "y", **P}, sizes=PLACES)
    found = failing(plan, lambda cell: 0.5, lambda cell: cell.seed > 0 and cell.place["design.repo"] == "bank")
    summary, contrast, base = of(found, "y")
    assert (summary.interval.n, summary.interval.unit, summary.interval.low) == (1, "seeds", None)
    assert (contrast.tested.p, base.compared.tested.p) == (None, None)
    assert [judged.verdict for judged in found.judged] == ["undecided", "not measured"]
    assert "3 of 16 cells have no life" in found.judged[0].why
    none = failing(plan, lambda cell: 0.5, lambda cell: cell.place["design.repo"] == "bank")
    assert of(none, "y")[0].interval is None
    assert [judged.verdict for judged in none.judged] == ["not measured", "not measured"]


def test_one_seed_of_several_is_one_replicate_whatever_its_places() -> None:
    plan = experiment({"variant": "y", "threshold": 0.1}, sizes=PLACES)
    cells = plan.cells("pocket", 1)
    found = analyse(plan, "pocket", {cell.name: lived(0.5) for cell in cells}, cells)
    assert of(found, "y")[0].interval.n == 1
    assert only(found).verdict == "undecided"


MATRIX = {"pocket": size(seeds=1, spread={"design.repo": list(REPOS), "design.split": ["A", "D"]})}
RATES = dict(zip(REPOS, (0.2, 0.3, 0.4, 0.6), strict=True))


def test_with_one_seed_repositories_are_the_replicates() -> None:
    plan = experiment({"variant": "default", "threshold": 0.1}, references=[], sizes=MATRIX)
    found = analysed(plan, lambda cell: RATES[cell.place["design.repo"]] + 0.05 * (cell.place["design.split"] == "D"))
    summary, _, base = of(found, "default")
    assert (summary.interval.n, summary.interval.unit) == (4, "repositories")
    assert summary.interval.mean == pytest.approx(sum(RATES.values()) / 4 + 0.025)
    assert (base.compared.lives, only(found).value) == (4, summary.interval)
    assert found.variance is not None
    assert found.variance.n == 8  # the analysis of variance keeps the cells
    broken = failing(plan, lambda cell: 0.5, lambda cell: cell.place == {"design.repo": "boat", "design.split": "D"})
    summary, _, base = of(broken, "default")
    assert (summary.interval.n, base.compared.lives, base.left_out) == (3, 3, ("boat",))
    places = experiment(references=[], sizes={"pocket": size(seeds=1, spread={"design.repo": list(REPOS)})})
    assert of(analysed(places, lambda cell: 0.5), "default")[0].interval.unit == "lives"


BEST = {"x": (0.1, 0.15, 0.2, 0.1), "y": (0.2, 0.25, 0.2, 0.1), "z": (0.8, 0.85, 0.9, 0.9)}


@pytest.mark.parametrize(
    ("criterion", "dead"),
    [
        ({"variant": "z"}, "z"),
        ({"variant": "z", "operator": "<"}, "z"),
        ({"variant": "z", "against": "x"}, "x"),
        ({"variant": "z", "against": "others"}, "y"),
        ({"variant": "best"}, "y"),
        ({"variant": "best", "against": "x"}, "x"),
        ({"variant": "z", **P}, "z"),
        ({"variant": "z", **P, "operator": ">"}, "z"),
        ({"measure": "p_variants", "operator": "<", "threshold": 0.05}, "y"),
    ],
)
def test_nothing_is_decided_where_a_cell_that_is_looked_at_has_no_life(criterion: dict[str, Any], dead: str) -> None:
    plan = experiment(criterion, sizes={"pocket": size(seeds=4)})
    assert judged(plan, table(BEST)).verdict in ("met", "not met")
    found = judged(plan, table(BEST), lambda cell: (cell.variant, cell.seed) == (dead, 2))
    assert found.verdict == "undecided"
    assert "1 of " in found.why
    assert "so nothing is decided" in found.why


def test_variant_that_is_all_there_can_fall_for_the_others() -> None:
    found = judged(experiment({"threshold": 0.7}), table(BEST), lambda cell: cell.name == "z/seed 0")
    assert (found.verdict, found.variant) == ("not met", "x")


def test_knee_needs_the_lives_of_its_own_levels() -> None:
    criterion = {"measure": "knee", "operator": "<=", "threshold": 4}
    references = [{"name": "x", "settings": {"night.seed": 9}}]
    plan = experiment(criterion, references=references, factors=[FACTOR], sizes={"pocket": size(seeds=4)})
    ys = {1: 0.1, 2: 0.5, 4: 0.55, 5: 0.0, 8: 0.6}

    def of_dead(name: str) -> Judged:
        dead = (name, 2)
        return judged(
            plan,
            lambda cell: ys[cell.life.night.synthesis.budget] + 0.05 * cell.seed,
            lambda cell: (cell.variant, cell.seed) == dead,
        )

    assert (of_dead("x").verdict, of_dead("budget=8").verdict) == ("met", "undecided")


def flat(
    rate: float, threshold: float, measure: str = "forward_transfer", tasks: Collection[str] = "0", **changes: Any
) -> Judged:
    """All replicates equal: 20 tasks for each name in `tasks`, by turns of the seeds."""
    plan = experiment({"variant": "z", "measure": measure, "threshold": threshold, **changes})
    cells, names = plan.cells("pocket"), [*tasks]
    lives = {}
    for cell in cells:
        found = lived(rate)
        mark = names[cell.seed % len(names)]
        rows = [
            row.model_copy(update={"attempt": row.attempt.model_copy(update={"task_id": mark + row.attempt.task_id})})
            for row in found.exams
        ]
        lives[cell.name] = found.model_copy(update={"exams": tuple(rows)})
    return judge(Study(plan, "pocket", cells, lives, {}), plan.criteria[0])


def test_equal_shares_get_the_bound_of_none_in_so_many_distinct_tasks() -> None:
    bound = 1 - 0.025 ** (1 / 20)
    found = flat(0.5, 0.3)
    assert found.value is not None
    assert (found.value.low, found.value.high) == pytest.approx((0.5 - bound, 0.5 + bound))
    assert (found.verdict, flat(0.5, 0.35).verdict, flat(0.5, 0.7).verdict) == ("met", "undecided", "not met")
    assert "all 3 lives are equal: the interval is what no event among 20 distinct tasks allows" in found.why
    assert flat(0.5, 0.35, tasks="012").verdict == "met"  # 60 tasks of three worlds say more than one task thrice
    assert "60 distinct tasks" in flat(0.5, 0.35, tasks="012").why
    skills = flat(0.5, -0.02, "base_skills")
    assert skills.verdict == "undecided"
    assert "2 distinct tasks" in skills.why  # the base's own two, and none of the 40 others


def test_equal_values_of_other_units_decide_nothing() -> None:
    for found in (flat(0.5, 1, "steps"), flat(0.5, 0.5, against="y", compare="ratio"), flat(0.5, 0.1, "useful_time")):
        assert found.verdict == "undecided"
        assert "their spread is not known, so nothing is decided" in found.why


def test_curve_that_rises_equally_in_all_seeds_must_rise_beyond_the_bound() -> None:
    plan = experiment({"measure": "knee", "operator": "<=", "threshold": 4}, references=[], factors=[FACTOR])
    for top, said in ((0.15, "not met"), (0.4, "met")):
        ys = {1: 0.0, 2: top - 0.05, 4: top, 8: top}
        found = verdict(plan, lambda cell, ys=ys: ys[cell.life.night.synthesis.budget])  # type: ignore[misc]
        assert found.verdict == said


def test_best_of_the_others_is_what_makes_the_claim_hardest() -> None:
    rates = {"x": (0.5, 0.1, 0.1), "y": (0.1, 0.5, 0.15), "z": (0.9, 0.85, 0.8)}
    plan = experiment(
        {"variant": "z", "against": "others", "threshold": 0.3},
        {"variant": "z", "against": "others", "operator": "<=", "threshold": 0.3},
        {"variant": "z", "against": "others", "without": ["y"]},
        {"variant": "best", "against": "others"},
        {"variant": "z", "against": "others@frozen"},
        {"variant": "z", "against": "others", "without": ["x", "y"]},
    )
    means = [one.value.mean if one.value else None for one in verdicts(plan, table(rates))]
    assert means[:3] == pytest.approx([(0.4 + 0.35 + 0.65) / 3, (0.8 + 0.75 + 0.7) / 3, (0.4 + 0.75 + 0.7) / 3])
    assert means[3:5] == pytest.approx([means[0], 0.85])
    assert means[5] is None


def test_variants_can_be_left_out_of_what_is_compared() -> None:
    rates = {"x": (0.1, 0.15, 0.1), "y": (0.15, 0.1, 0.15), "z": (0.8, 0.85, 0.85)}
    differ = {"measure": "p_variants", "operator": "<", "threshold": 0.05}
    plan = experiment(differ, {**differ, "without": ["z"]}, {"variant": "best", "without": ["z"]}, {"without": ["x", "y"]})
    found = verdicts(plan, table(rates))
    assert [one.verdict for one in found[:2]] == ["met", "not met"]
    assert "of 1 pairs" in found[1].why
    assert [one.variant for one in found[2:]] == ["y", "z"]
    with pytest.raises(EvalError, match="no variant 'w' to leave out"):
        verdict(experiment({"without": ["w"]}), table(SPREAD))


def test_wilcoxon_is_reported_from_six_replicates_on_and_decides_nothing() -> None:
    for seeds, p in ((5, None), (6, 0.03125)):
        plan = experiment({"variant": "z", **P, "threshold": 0.03}, sizes={"pocket": size(seeds=seeds)})
        cells = plan.cells("pocket")
        better = {cell.name: 0.5 + 0.05 * cell.seed if cell.variant == "z" else 0.1 for cell in cells}
        study = Study(plan, "pocket", cells, {cell.name: lived(better[cell.name], 0.1) for cell in cells}, {})
        (contrast,) = contrasts(study, "forward_transfer", [("z", "x")])
        (base,) = against_base(study, ["z"], [Arm.SKILL])
        assert [one.wilcoxon.p if one.wilcoxon else None for one in (contrast, base)] == [p, p]
        assert contrast.p_adjusted == contrast.tested.p
        assert base.p_adjusted == base.compared.tested.p
        assert judge(study, plan.criteria[0]).verdict == "met"  # by its own p, below 0.03
