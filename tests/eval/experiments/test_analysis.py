"""Findings of lives written by hand: intervals, contrasts, verdicts, curves."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from eval.errors import EvalError
from eval.experiments.analysis import Analysis, Interval, Judged, analyse
from eval.experiments.judging import judge, within
from eval.experiments.levels import bend
from eval.experiments.life import Life
from eval.experiments.plan import Cell, Experiment
from eval.experiments.study import Study
from tests.eval.experiments.lives import life

TASKS = 20
Rate = Callable[[Cell], float]


def marks(rate: float) -> str:
    """So many of the tasks resolved, the first ones."""
    solved = round(rate * TASKS)
    return "+" * solved + "-" * (TASKS - solved)


def lived(skill: float, base: float = 0.0, **changes: Any) -> Life:
    """One night; `a` is learnt and `t` never; all arms but the skill arm stay the base."""
    row = {"a": marks(base), "t": marks(base), "": "++"}
    exams = {("base", 0): row, ("frozen", 0): row, ("frozen", 1): row}
    exams[("skill", 1)] = {"a": marks(skill), "t": marks(skill), "": "++"}
    return life(exams, {"a": 1, "t": None}, **changes)


def experiment(*criteria: Mapping[str, Any], **changes: Any) -> Experiment:
    """Variants x, y, z (x is the baseline), three seeds."""
    body: dict[str, Any] = {
        "id": "exp99",
        "title": "t",
        "hypothesis": "h",
        "expected": "e",
        "references": [{"name": name, "settings": {"night.seed": place}} for place, name in enumerate("xyz")],
        "measures": ["forward_transfer", "steps"],
        "primary": "forward_transfer",
        "analysis": "a",
        "criteria": [
            {"name": "c", "text": "c", "measure": "forward_transfer", "operator": ">=", "threshold": 0.1, **criterion}
            for criterion in criteria or ({},)
        ],
        "limits": "l",
        "sizes": {"pocket": size()},
    }
    return Experiment.model_validate(body | changes)


def size(**changes: Any) -> dict[str, Any]:
    return {
        "seeds": 3,
        "design": {"kind": "split", "repo": "train"},
        "settings": {"arms": ["base", "skill", "frozen"]},
        "minutes": 1,
        "machine": "m",
    } | changes


def analysed(plan: Experiment, rate: Rate, base: float = 0.0, **changes: Any) -> Analysis:
    cells = plan.cells("pocket")
    lives = {cell.name: lived(rate(cell), base) for cell in cells}
    return analyse(plan, "pocket", lives | changes.pop("lives", {}), cells, **changes)


def table(rates: Mapping[str, Sequence[float]]) -> Rate:
    """A rate for each variant and seed."""
    return lambda cell: rates[cell.variant][cell.seed]


def verdicts(plan: Experiment, rate: Rate, base: float = 0.0) -> list[Judged]:
    """What `analyse` says of the criteria, without the rest."""
    cells = plan.cells("pocket")
    study = Study(plan, "pocket", cells, {cell.name: lived(rate(cell), base) for cell in cells}, {})
    return [judge(study, criterion) for criterion in plan.criteria]


def verdict(plan: Experiment, rate: Rate, base: float = 0.0) -> Judged:
    (judged,) = verdicts(plan, rate, base)
    return judged


def only(analysis: Analysis) -> Judged:
    (judged,) = analysis.judged
    return judged


SPREAD = {"x": (0.1, 0.1, 0.1), "y": (0.2, 0.4, 0.6), "z": (0.45, 0.5, 0.55)}


def test_interval_is_students() -> None:
    found = analysed(experiment(), table(SPREAD))
    (y,) = (s for s in found.summaries if (s.variant, s.measure) == ("y", "forward_transfer"))
    assert y.values == pytest.approx((0.2, 0.4, 0.6))
    assert y.interval is not None
    half = 4.302653 * 0.2 / 3**0.5
    assert (y.interval.low, y.interval.high) == pytest.approx((0.4 - half, 0.4 + half), abs=1e-5)
    assert (y.interval.mean, y.interval.n, y.interval.unit) == (pytest.approx(0.4), 3, "lives")


@pytest.mark.parametrize(
    ("ends", "sign", "said"),
    [
        ((0.2, 0.4), ">=", "met"),
        ((0.1, 0.4), ">=", "met"),
        ((0.1, 0.4), ">", "undecided"),
        ((0.0, 0.4), ">=", "undecided"),
        ((0.0, 0.09), ">=", "not met"),
        ((0.0, 0.09), "<", "met"),
        ((0.2, 0.4), "<=", "not met"),
        ((0.0, 0.1), "<=", "met"),
        ((0.0, 0.1), "<", "undecided"),
    ],
)
def test_verdict_needs_the_whole_interval(ends: tuple[float, float], sign: str, said: str) -> None:
    criterion = experiment({"operator": sign}).criteria[0]
    assert within(Interval(mean=sum(ends) / 2, low=ends[0], high=ends[1], n=3), criterion)[0] == said


def test_one_life_decides_nothing() -> None:
    found = verdict(experiment({"variant": "z"}, sizes={"pocket": size(seeds=1)}), lambda cell: 1.0)
    assert (found.verdict, found.value) == ("undecided", Interval(mean=1.0, n=1))
    assert "nothing about chance" in found.why


def test_claim_on_every_variant_falls_with_one() -> None:
    rates = {**SPREAD, "x": (0.3, 0.35, 0.4)}
    found = verdicts(experiment({}, {"threshold": 0.05}, {"variant": "[yz]"}), table(rates))
    every, low, two = found
    assert (every.verdict, every.variant) == ("undecided", "y")
    assert (low.verdict, two.verdict) == ("undecided", "undecided")
    assert "2 of 3 variants meet it" in low.why
    assert verdict(experiment({"threshold": 0.3}), table(SPREAD)).verdict == "not met"
    assert verdict(experiment({"threshold": 0.05}), lambda cell: 0.1 + 0.05 * cell.seed).verdict == "undecided"
    assert verdict(experiment({"threshold": 0.05}), lambda cell: 0.5 + 0.05 * cell.seed).verdict == "met"


def test_arms_that_are_equal_come_out_null() -> None:
    plan = experiment(
        {"variant": "y", "against": "x", "threshold": 0.2}, {"measure": "p_value", "operator": "<", "threshold": 0.01}
    )
    found = analysed(plan, lambda cell: 0.5, base=0.5)
    assert [judged.verdict for judged in found.judged] == ["not met", "not met"]
    assert {contrast.p_adjusted for contrast in found.contrasts if contrast.measure == "forward_transfer"} == {1.0}
    frozen = [one for one in found.against_base if one.arm == "frozen"]
    assert len(frozen) == 3
    assert all(one.compared.difference == 0 and one.compared.tested.p == 1 for one in frozen)


def test_shuffled_labels_are_rarely_a_finding() -> None:
    rng, met = random.Random(8), 0
    plan = experiment({"variant": "y", "against": "x", "operator": ">", "threshold": 0.0})
    for _ in range(60):
        rates = {name: [rng.choice((0.3, 0.35, 0.4, 0.45, 0.5)) for _ in range(3)] for name in "xyz"}
        met += verdict(plan, table(rates)).verdict == "met"
    assert met <= 6  # 2.5 % are expected; more than 6 of 60 have a chance of 1 in 2,000


def test_contrasts_are_paired_and_corrected() -> None:
    rates = {"x": (0.1, 0.3, 0.5), "y": (0.3, 0.5, 0.75), "z": (0.1, 0.35, 0.5)}
    found = [c for c in analysed(experiment(), table(rates)).contrasts if c.measure == "forward_transfer"]
    assert [(c.variant, c.against) for c in found] == [("y", "x"), ("z", "x")]
    first = found[0]
    assert first.difference is not None
    assert first.difference.mean == pytest.approx((0.2 + 0.2 + 0.25) / 3)
    assert first.tested.p is not None
    assert first.tested.p < 0.01  # unpaired it could not be: x alone spreads over 0.4
    assert first.p_adjusted == pytest.approx(2 * first.tested.p)


def test_life_with_problems_counts_for_nothing() -> None:
    plan = experiment({"variant": "z"})
    cell = next(cell for cell in plan.cells("pocket") if cell.variant == "z")
    bad = lived(0.0, problems=("a held-out task was trained on",))
    found = analysed(plan, table(SPREAD), lives={cell.name: bad})
    assert found.failed == {cell.name: "refused by the runner's own checks: a held-out task was trained on"}
    assert (found.done, found.cells) == (8, 9)
    z = next(s for s in found.summaries if (s.variant, s.measure) == ("z", "forward_transfer"))
    assert z.values == (None, pytest.approx(0.5), pytest.approx(0.55))
    assert "held-out" in z.missing[cell.name]
    assert "1 of 3 cells have no life that counts (refused by" in only(found).why
    assert any("1 of 9 cells" in warning for warning in found.warnings)


def test_cells_that_were_not_lived_or_failed_say_so() -> None:
    plan = experiment({"variant": "z"})
    cells = plan.cells("pocket")
    found = analyse(plan, "pocket", {}, cells, {cells[0].name: "out of memory"})
    assert (only(found).verdict, found.done, found.load) == ("not measured", 0, None)
    assert found.failed == {cells[0].name: "out of memory"}
    assert set(found.summaries[0].missing.values()) == {"out of memory", "the cell has not been lived yet"}
    assert found.exploratory == ()


def test_best_is_chosen_on_other_seeds() -> None:
    lucky = {"x": (0.9, 0.1, 0.1), "y": (0.1, 0.9, 0.1), "z": (0.1, 0.1, 0.9)}
    found = verdict(experiment({"variant": "best", "threshold": 0.3}), table(lucky))
    assert found.value is not None
    assert found.value.mean == pytest.approx(0.1)  # the best on all seeds would show 0.367
    assert found.verdict == "not met"
    assert "chosen on other seeds" in found.why


def test_best_by_another_measure_and_without_what_it_is_against() -> None:
    rates = {"x": (0.9, 0.9, 0.95), "y": (0.2, 0.25, 0.2), "z": (0.5, 0.55, 0.5)}
    plan = experiment(
        {"variant": "best", "against": "x", "compare": "ratio", "threshold": 0.5},
        {"variant": "best:forward_transfer", "measure": "steps", "operator": "<=", "threshold": 7},
        {"variant": "best", "measure": "steps", "operator": ">=", "threshold": 7},
    )
    ratio, steps, slowest = verdicts(plan, table(rates))
    assert ratio.variant == "z"
    assert ratio.value is not None
    assert ratio.value.mean == pytest.approx((0.5 / 0.9 + 0.55 / 0.9 + 0.5 / 0.95) / 3)
    assert (steps.variant, steps.verdict) == ("x", "met")
    assert slowest.variant == "y"


def test_best_that_cannot_be_chosen_for_a_seed_decides_nothing() -> None:
    rates = {"x": (0.0, 0.0, 0.5), "y": (0.9, 0.9, 0.95), "z": (0.1, 0.1, 0.1)}
    plan = experiment({"variant": "best", "against": "x", "compare": "ratio", "threshold": 0.5})
    found = verdict(plan, table(rates))  # x has 0 on both of the other seeds of seed 2
    assert found.verdict == "not measured"
    assert "none for seed 2" in found.why
    only = verdict(plan, table({**rates, "x": (0.0, 0.5, 0.0)}))
    assert only.verdict == "not measured"
    two = verdict(plan, table({**rates, "x": (0.0, 0.5, 0.5)}))
    assert two.verdict == "undecided"


def test_best_of_one_seed_is_undecided() -> None:
    found = verdict(experiment({"variant": "best"}, sizes={"pocket": size(seeds=1)}), lambda cell: 0.9)
    assert found.verdict == "undecided"
    assert "judged on what it was chosen by" in found.why


def test_against_another_arm_of_the_same_lives() -> None:
    plan = experiment({"variant": "z", "measure": "resolve_rate", "against": "@frozen", "threshold": 0.05})
    found = verdict(plan, table(SPREAD), base=0.3)
    assert found.value is not None
    assert found.value.mean == pytest.approx(0.2)
    assert found.verdict == "met"


def test_ratio_to_nothing_is_not_measured() -> None:
    plan = experiment({"variant": "z", "against": "x", "compare": "ratio"})
    found = verdict(plan, table({**SPREAD, "x": (0.0, 0.0, 0.0)}))
    assert found.verdict == "not measured"
    assert "ratio" in found.why


def test_lives_without_a_value_leave_it_undecided() -> None:
    plan = experiment({"variant": "z", "against": "x", "compare": "ratio", "threshold": 0.1})
    found = verdict(plan, table({**SPREAD, "x": (0.0, 0.5, 0.5)}))
    assert found.verdict == "undecided"
    assert "1 of 3 lives have no value" in found.why


def test_what_never_came_is_a_negative_result() -> None:
    drift = size(design={"kind": "drift", "repo": "train", "lived": 4, "recovery": [10, 20], "examined": 4})
    plan = experiment(
        {"variant": "z", "measure": "recovery_sessions", "operator": "<=", "threshold": 1},
        {"variant": "z", "measure": "recovery_sessions", "operator": "<=", "threshold": 10},
        {"variant": "z", "measure": "recovery_sessions", "operator": "<=", "threshold": 30},
        sizes={"pocket": drift},
    )
    cells = plan.cells("pocket")
    exams = {("base", 0): {"before": "----", "after": "----"}}
    exams |= {("skill", night): {"before": "++++", "after": "----"} for night in (1, 2, 3)}
    never = life(exams, {"before": 1, "after": 2, "after 20": 3}, nights=3)
    study = Study(plan, "pocket", cells, {cell.name: never for cell in cells}, {})
    _, ten, thirty = (judge(study, criterion) for criterion in plan.criteria)
    assert (ten.verdict, thirty.verdict) == ("undecided", "not measured")
    assert "all 3 lives are at 20" in ten.why  # what is equal everywhere says nothing of its spread
    assert "not recovered within 20 sessions" in ten.why
    exams |= {("skill", night): {"before": "++++", "after": "++++"} for night in (2, 3)}
    late = life(exams, {"before": 1, "after": 2, "after 20": 3}, nights=3)
    lives = {cell.name: late if cell.seed == 2 else never for cell in cells}
    one, ten, _ = (judge(Study(plan, "pocket", cells, lives, {}), criterion) for criterion in plan.criteria)
    assert (one.verdict, ten.verdict) == ("not met", "undecided")
    assert "2 of 3 lives count with the least that it can be" in one.why


SPLITS = {"pocket": size(spread={"design.split": ["A", "B", "C"]})}


def test_claim_must_hold_in_each_split() -> None:
    plan = experiment({"variant": "z", "threshold": 0.2}, sizes=SPLITS)
    good = verdict(plan, lambda cell: 0.5 + 0.05 * cell.seed)
    assert good.verdict == "met"
    assert [place.place for place in good.places] == ["design.split=A", "design.split=B", "design.split=C"]
    bad = verdict(plan, lambda cell: 0.0 if cell.place["design.split"] == "B" else 0.5 + 0.05 * cell.seed)
    assert bad.verdict == "not met"
    assert [place.verdict for place in bad.places] == ["met", "not met", "met"]
    assert "2 of 3 splits meet it" in bad.why


def test_seeds_are_the_replicates_where_there_are_places() -> None:
    plan = experiment({"variant": "z", "measure": "p_value", "operator": "<", "threshold": 0.01}, sizes=SPLITS)
    found = analysed(plan, lambda cell: 0.5 + 0.05 * cell.seed)
    z = next(s for s in found.summaries if s.variant == "z")
    assert z.interval is not None
    assert (len(z.values), z.interval.n, z.interval.unit) == (9, 3, "seeds")
    one = next(one for one in found.against_base if (one.variant, one.arm) == ("z", "skill"))
    assert (one.blocks, one.compared.lives, one.compared.pairs) == ("never learnt", 3, 9 * TASKS)


def test_p_against_the_base_needs_the_right_direction() -> None:
    plan = experiment({"variant": "z", "measure": "p_value", "operator": "<", "threshold": 0.05})
    better = verdict(plan, lambda cell: 0.9 + 0.05 * (cell.seed % 2), base=0.1)
    worse = verdict(plan, lambda cell: 0.05 * (cell.seed % 2), base=0.9)
    assert (better.verdict, worse.verdict) == ("met", "not met")
    assert worse.value is not None
    assert worse.value.mean < 0.05
    assert "not better than the base" in worse.why
    arm = experiment({"variant": "z", "measure": "p_value@both", "operator": "<", "threshold": 0.05})
    assert verdict(arm, lambda cell: 1.0).verdict == "not measured"


def test_p_between_variants_is_corrected_over_all_pairs() -> None:
    plan = experiment({"measure": "p_variants", "operator": "<", "threshold": 0.05})
    rates = {"x": (0.1, 0.15, 0.1), "y": (0.1, 0.1, 0.15), "z": (0.8, 0.85, 0.85)}
    found = verdict(plan, table(rates))
    assert found.verdict == "met"
    assert "z" in found.variant
    assert verdict(plan, lambda cell: 0.1 * cell.seed).verdict == "not met"


FACTOR = {"name": "budget", "setting": "night.synthesis.budget", "levels": [1, 2, 4, 8], "centre": 2}


def swept(ys: Mapping[int, float], **changes: Any) -> Analysis:
    plan = experiment({"measure": "knee", "operator": "<=", "threshold": 4}, references=[], factors=[FACTOR], **changes)

    def rate(cell: Cell) -> float:
        return ys[cell.life.night.synthesis.budget] + 0.05 * (cell.seed == 1)

    return analysed(plan, rate)


def test_knee_is_where_the_curve_is_farthest_above_its_chord() -> None:
    assert bend([1, 2, 4, 8], [0.1, 0.5, 0.55, 0.6]) == 2
    assert bend([1, 2, 3], [0, 1, 2]) is None
    assert bend([1, 2, 3], [0, 0.1, 2]) is None
    assert bend([1, 2, 3], [1, 1, 1]) is None
    assert bend([1, 2, 3], [1, 0, 2]) is None
    found = swept({1: 0.1, 2: 0.5, 4: 0.55, 8: 0.6})
    assert found.levels[0].knee == 2
    assert [point.x for point in found.levels[0].points] == [1, 2, 4, 8]
    assert (only(found).verdict, only(found).value) == ("met", Interval(mean=2, low=2, high=2, n=3))


def test_flat_curve_has_no_knee() -> None:
    found = swept({1: 0.5, 2: 0.5, 4: 0.5, 8: 0.5})
    assert only(found).verdict == "not met"
    assert "nothing that bends" in found.levels[0].why


def test_noise_has_no_knee() -> None:
    plan = experiment({"measure": "knee", "operator": "<=", "threshold": 4}, references=[], factors=[FACTOR])
    found = verdict(plan, lambda cell: (0.9, 0.1, 0.5)[cell.seed] if cell.variant == "centre" else 0.4)
    assert found.verdict == "not met"
    assert "nothing that bends" in found.why


def test_references_are_no_levels() -> None:
    references = [{"name": "x", "settings": {"night.seed": 9}}]
    plan = experiment({"threshold": 0.3}, references=references, factors=[FACTOR])
    found = analysed(plan, lambda cell: 0.0 if cell.variant == "x" else 0.5 + 0.05 * cell.seed)
    assert only(found).verdict == "met"
    against = {(c.variant, c.against) for c in found.contrasts}
    assert against == {(name, "x") for name in ("centre", "budget=1", "budget=4", "budget=8")}


def test_curves_matrices_and_errors() -> None:
    found = analysed(experiment(), table(SPREAD), base=0.1)
    learning = next(c for c in found.curves if (c.kind, c.variant, c.arm) == ("learning", "y", "skill"))
    assert [(point.x, point.interval.mean) for point in learning.points] == [(0, pytest.approx(0.1)), (1, pytest.approx(0.4))]
    retention = next(c for c in found.curves if (c.kind, c.variant) == ("retention", "y"))
    assert [(point.x, point.interval.mean) for point in retention.points] == [(0, pytest.approx(0.4))]
    grid = next(g for g in found.grids if (g.variant, g.arm) == ("y", "skill"))
    assert grid.columns == ("a", "t")
    assert grid.values == ((pytest.approx(0.1),) * 2, (pytest.approx(0.4),) * 2)
    assert grid.learnt == {"a": 1, "t": None}
    assert found.errors["y"] == {"unresolved: assertionerror": 2 * (16 + 12 + 8)}
    assert {c.arm for c in found.curves} == {"skill", "frozen"}


def test_what_was_not_registered_is_exploratory() -> None:
    found = analysed(experiment(), table(SPREAD))
    assert {summary.measure for summary in found.summaries} == {"forward_transfer", "steps"}
    measures = {summary.measure for summary in found.exploratory}
    assert "gain" in measures
    assert not measures & {"forward_transfer", "steps"}
    assert "router_accuracy" not in measures  # nothing was measured


def test_lives_of_other_code_are_warned_of() -> None:
    plan = experiment()
    cell = plan.cells("pocket")[0]
    found = analysed(plan, table(SPREAD), lives={cell.name: lived(0.1, code="other", model="n")}, warnings=["given"])
    assert found.code_hashes == ("code", "other")
    assert found.warnings[0] == "given"
    assert any("2 versions of the code" in warning for warning in found.warnings)
    assert any("2 models" in warning for warning in found.warnings)


def test_variance_is_of_two_places() -> None:
    spread = {"design.repo": ["train", "boat"], "design.split": ["A", "B"]}
    plan = experiment(references=[], sizes={"pocket": size(spread=spread)})
    high = {"train": 0.6, "boat": 0.2}
    found = analysed(plan, lambda cell: high[cell.place["design.repo"]] + 0.05 * cell.seed)
    assert found.variance is not None
    repo, split = found.variance.sources[:2]
    assert repo.p is not None
    assert repo.p < 0.001
    assert split.p is not None
    assert split.p > 0.5
    assert analysed(experiment(), table(SPREAD)).variance is None


def test_what_does_not_exist_is_named() -> None:
    plan = experiment()
    with pytest.raises(EvalError, match="of none of its cells"):
        analyse(plan, "pocket", {"w/seed 0": lived(0.1)}, plan.cells("pocket"))
    with pytest.raises(EvalError, match="no variant 'w'"):
        verdict(experiment({"variant": "w"}), table(SPREAD))
    with pytest.raises(EvalError, match="no variant 'w' to compare with"):
        verdict(experiment({"against": "w"}), table(SPREAD))
    with pytest.raises(EvalError, match="no numeric factor"):
        verdict(experiment({"measure": "knee"}), table(SPREAD))


def test_analysis_reads_back_and_is_the_same_again() -> None:
    found = analysed(experiment(), table(SPREAD))
    assert Analysis.model_validate_json(found.model_dump_json()) == found
    assert analysed(experiment(), table(SPREAD)) == found
