"""The registrations: that each can be run as it is, and that it is what the programme says."""

from pathlib import Path

import pytest

from eval.errors import EvalError
from eval.experiments.estimate import estimate, power_sentence
from eval.experiments.life import DriftDesign, LifeConfig
from eval.experiments.measures import check_measure
from eval.experiments.plan import FOLDER, Cell, Experiment, Factor, SizeName, read_experiment, registered

TEN = tuple(f"exp{number:02}" for number in range(1, 11))
PHASES = ("crossval", "matrix", "pilot")
SIZES: tuple[SizeName, ...] = ("pocket", "full")
KNOWN = registered()
CELLS = {(name, size): one.cells(size) for name, one in KNOWN.items() for size in one.sizes}


def digests(name: str, size: SizeName = "pocket") -> set[str]:
    return {cell.life.digest("") for cell in CELLS[name, size]}


def levels(experiment: Experiment) -> dict[str, tuple[object, ...]]:
    return {factor.name: factor.levels for factor in experiment.factors}


def own(name: str, size: SizeName) -> list[str]:
    """Variants that are no references."""
    one = KNOWN[name]
    return [variant.name for variant in one.variants(size)][len(one.references) :]


def life(name: str, cell: str) -> LifeConfig:
    (found,) = [one.life for one in CELLS[name, "pocket"] if one.name == cell]
    return found


def test_all_ten_and_the_three_phases_are_registered() -> None:
    assert tuple(KNOWN) == (*PHASES[:1], *TEN, *PHASES[1:], "sources")
    assert [name for name, one in KNOWN.items() if set(one.sizes) != set(SIZES)] == ["sources"]


@pytest.mark.parametrize(
    ("name", "count"), [("exp02", 5 * 4 * 3), ("exp03", 3 * 3), ("exp04", 5 * 3 * 2), ("exp05", 3 * 3 * 2)]
)
def test_the_configurations_of_the_strategies_are_as_many_as_the_programme_counts(name: str, count: int) -> None:
    assert len(own(name, "full")) == count
    assert len({cell.life.digest("") for cell in CELLS[name, "full"] if cell.variant in own(name, "full")}) == 3 * count


@pytest.mark.parametrize(
    ("name", "count"), [("pilot", 1), ("crossval", 5), ("matrix", 8 * 4 * 2), ("exp07", 5 * 3), ("exp09", 3)]
)
def test_the_runs_are_as_many_as_the_programme_counts(name: str, count: int) -> None:
    assert len(CELLS[name, "full"]) == len(digests(name, "full")) == count


def test_formats_are_repeated_three_times_beside_the_agents_own_turns() -> None:
    by_format = [cell.life.night.synthesis.format for cell in CELLS["exp06", "full"]]
    assert {told: by_format.count(told) for told in by_format} == dict.fromkeys("ABCDET", 3)
    assert {cell.life.night.lora.objective for cell in CELLS["exp06", "pocket"] if cell.variant == "C"} == {"dpo"}


def test_every_severity_is_seen_at_five_points_of_recovery_three_times() -> None:
    seen = []
    for cell in CELLS["exp10", "full"]:
        assert isinstance(cell.life.design, DriftDesign)
        seen += [(cell.life.design.severity, cell.seed, sessions) for sessions in (0, *cell.life.design.recovery)]
    assert len(seen) == len(set(seen)) == 3 * 5 * 3
    assert {sessions for *_, sessions in seen} == {0, 1, 5, 10, 20}


def test_the_levels_are_the_programmes() -> None:
    assert levels(KNOWN["exp02"]) == {
        "buffer": (250, 500, 1000, 2000, 5000),  # it names four of its five
        "priority": ("recency", "difficulty", "diversity", "confidence"),
        "replayed": (0.25, 0.5, 0.75),
    }
    assert levels(KNOWN["exp03"]) == {"experts": (3, 4, 5), "top_k": (1, 2, 3)}
    assert levels(KNOWN["exp04"]) == {
        "lambda": (0, 10, 100, 1000, 10000),
        "samples": (50, 100, 200),
        "accumulate": ("replace", "average"),
    }
    assert levels(KNOWN["exp05"]) == {"budget": (32, 64, 128), "target": (1, 2, 4), "merge": (2, 4)}
    assert {name: dict(KNOWN[name].sized("pocket").levels) for name in ("exp02", "exp04", "exp05")} == {
        "exp02": {"buffer": (8, 16, 32), "replayed": (0.25, 0.5)},
        "exp04": {"samples": (4, 8, 16)},
        "exp05": {"budget": (12, 16, 24), "merge": (2, 3), "target": (1, 2)},
    }
    assert levels(KNOWN["exp07"]) == {"budget": (3, 5, 10, 20, 50)}
    assert levels(KNOWN["exp10"]) == {"severity": ("minor", "moderate", "major")}
    assert KNOWN["crossval"].sized("full").spread["design.split"] == ("A", "B", "C", "D", "E")
    assert "counts five" in " ".join(KNOWN["exp02"].limits.split())


def thresholds(name: str) -> dict[str, tuple[str, float]]:
    return {each.name: (each.operator, each.threshold) for each in KNOWN[name].criteria}


def test_the_thresholds_are_the_programmes() -> None:
    assert thresholds("exp01") | {"upper bound": ()} == {
        "flat retention": (">", 0.9),
        "general capability": (">", -0.02),
        "upper bound": (),
    }
    assert thresholds("exp02")["retention"] == (">", 0.8)
    assert thresholds("exp02")["cost"] == ("<", 0.3)
    assert thresholds("exp03")["routing"] == (">", 0.85)
    assert thresholds("exp04")["less forgetting"] == ("<", 0.75)
    assert thresholds("exp04")["overhead"] == ("<", 0.5)
    assert thresholds("exp04")["general capability"] == (">", -0.03)
    assert thresholds("exp05")["information per parameter"] == (">", 1.15)
    assert thresholds("exp05")["compression"] == (">", 0.7)
    assert thresholds("exp06")["formats differ"] == ("<", 0.05)
    assert thresholds("exp06")["one stands out"] == (">", 0.1)
    assert thresholds("exp08")["quality"] == (">=", -0.1)
    assert thresholds("exp09")["both against knowledge: success"] == (">=", 0.1)
    headline = {name: found for name, found in thresholds("crossval").items() if name.startswith("headline")}
    assert sorted(headline.values()) == [("<", 0.01), ("<=", 0.02), (">=", -0.02), (">=", 0.2)]


@pytest.mark.parametrize("name", KNOWN)
def test_every_measure_is_known_and_every_variant_that_a_criterion_names_is_there(name: str) -> None:
    one = KNOWN[name]
    for measure in (one.primary, *one.measures, *(criterion.measure for criterion in one.criteria)):
        check_measure(measure)
    assert one.primary in one.measures
    for size in KNOWN[name].sizes:
        variants = {variant.name for variant in one.variants(size)}
        for criterion in one.criteria:
            assert criterion.variant.partition(":")[0] in variants | {"*", "best"}, criterion
            assert criterion.against.partition("@")[0] in variants | {"", "others"}, criterion
            assert set(criterion.without) <= variants, criterion
            arms = {cell.life.arms for cell in CELLS[name, size]}
            for text in (criterion.measure, criterion.against):
                assert all(text.partition("@")[2] in {"", *each} for each in arms), criterion


@pytest.mark.parametrize("name", KNOWN)
def test_a_name_stands_for_one_cell_and_another_configuration_for_another_life(name: str) -> None:
    for size in KNOWN[name].sizes:
        cells = CELLS[name, size]
        assert len({cell.name for cell in cells}) == len(cells) == len(digests(name, size))
        assert all(cell.life.seed == cell.life.night.seed == cell.seed for cell in cells)


def test_experiments_share_lives() -> None:
    assert digests("pilot") < digests("crossval")
    assert len(digests("exp09") & digests("crossval")) == 3  # split A of train, with each seed
    naive = {life(name, f"naive/seed {seed}").digest("") for name in ("exp02", "exp04", "exp05") for seed in range(3)}
    assert len(naive) == 3
    assert len(set().union(*map(digests, KNOWN))) < sum(len(digests(name)) for name in KNOWN)


def test_the_pocket_size_takes_an_evening_and_no_network() -> None:
    minutes = {cell.life.digest(""): KNOWN[name].sized("pocket").minutes for name in KNOWN for cell in CELLS[name, "pocket"]}
    assert sum(minutes.values()) < 6 * 60
    for name in KNOWN:
        for cell in CELLS[name, "pocket"]:
            assert (cell.life.model.kind, cell.life.tasks.source) == ("pocket", "pocket")
            assert cell.life.night.synthesis.source in ("offline", "self") or cell.variant == "hybrid"
            lora, threads = cell.life.night.lora, cell.life.night.threads
            assert (lora.batching, lora.precision, threads) == ("packed", "bf16", 1)


def test_the_strategies_are_compared_under_one_recipe() -> None:
    def without(cell: Cell) -> dict[str, object]:
        body = cell.life.model_dump(mode="json")
        del body["night"]["strategy"], body["night"]["seed"], body["seed"], body["night"]["rehearsal"]
        return body

    bodies = [without(cell) for name in ("exp02", "exp03", "exp04", "exp05") for cell in CELLS[name, "pocket"]]
    assert all(body == bodies[0] for body in bodies)
    kinds = {cell.life.night.strategy.kind for name in TEN[:5] for cell in CELLS[name, "pocket"]}
    assert kinds == {"naive", "full_replay", "partial_replay", "mixture", "ewc", "adaptive_rank"}


def test_full_size_can_be_trained_and_has_folders_of_no_machine() -> None:
    for name in (*TEN, *PHASES):
        for cell in CELLS[name, "full"]:
            weights = cell.life.model.weights
            assert weights is not None
            assert weights.is_relative_to(Path("~/models").expanduser())
            assert cell.life.tasks.source == ("pocket" if name == "exp10" else "swe-bench-cl")
            assert cell.life.night.lora.rank == 16


@pytest.mark.parametrize("name", KNOWN)
def test_a_word_that_changes_is_another_registration(name: str, tmp_path: Path) -> None:
    text = (FOLDER / f"{name}.toml").read_text(encoding="utf-8")
    path = tmp_path / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    assert read_experiment(path).hash == KNOWN[name].hash
    path.write_text(text.replace(" the ", " this ", 1), encoding="utf-8")
    assert read_experiment(path).hash != KNOWN[name].hash


def test_an_estimate_counts_what_is_left() -> None:
    cells = CELLS["exp09", "pocket"]
    whole = estimate(KNOWN["exp09"], "pocket", workers=2)
    assert (whole.cells, whole.lives, whole.there) == (6, 6, 0)
    assert whole.minutes == 6 * KNOWN["exp09"].sized("pocket").minutes == 2 * whole.wall_minutes
    shared = digests("crossval")
    left = estimate(KNOWN["exp09"], "pocket", workers=2, done=shared)
    assert (left.lives, left.there) == (6, 3)
    assert left.minutes == whole.minutes / 2
    assert left.wall_minutes == 2 * KNOWN["exp09"].sized("pocket").minutes  # three lives, two at a time
    assert estimate(KNOWN["exp09"], "pocket", done=shared, model=lambda config: "another").there == 0
    assert estimate(KNOWN["exp09"], "pocket", 1).cells == len({cell.place["design.repo"] for cell in cells})
    assert "3 of them are there" in left.sentence


def test_what_a_life_costs_is_added_up() -> None:
    plan = estimate(KNOWN["exp07"], "full")
    assert plan.dollars == pytest.approx(15 * 0.35)
    assert plan.minutes == 15 * 20
    assert "dollars" in plan.sentence
    assert "dollars" not in estimate(KNOWN["exp07"], "pocket").sentence


def test_the_estimates_are_the_programmes() -> None:
    hours = {name: estimate(KNOWN[name], "full", 1).minutes / 60 for name in ("crossval", "exp02", "exp03", "exp04", "exp05")}
    hours["exp02"] *= 60 / 62  # without its references, and once each
    hours["exp03"] *= 9 / 10
    hours["exp04"] *= 30 / 31
    hours["exp05"] *= 18 / 20
    assert {name: round(value) for name, value in hours.items()} == {
        "crossval": 10,
        "exp02": 30,
        "exp03": 9,
        "exp04": 22,
        "exp05": 18,
    }
    assert estimate(KNOWN["pilot"], "full").minutes == 120
    assert estimate(KNOWN["exp01"], "full").minutes == 20 * 60


def test_power_is_told_of_the_tasks_that_a_claim_rests_on() -> None:
    assert "this plan has 310 tasks x 3 seeds" in power_sentence(KNOWN["crossval"], "pocket")  # 5 splits, 62 unseen in each
    assert "this plan has 18 tasks x 3 seeds" in power_sentence(KNOWN["exp04"], "pocket")  # 3 repositories, 6 in each
    assert "over 8 comparisons" in power_sentence(KNOWN["exp04"], "pocket")
    assert "over" not in power_sentence(KNOWN["exp09"], "pocket").partition("you need")[0]
    assert "not known before" in power_sentence(KNOWN["matrix"], "full")


def test_a_wrong_setting_is_named() -> None:
    wrong = Factor(name="wrong", setting="night.strategy.sice", levels=(1, 2), centre=1)
    with pytest.raises(EvalError, match="names 'experts', which is no factor"):
        KNOWN["exp03"].model_copy(update={"factors": (wrong,)}).cells("pocket")
    with pytest.raises(EvalError, match=r"exp06, cell .*night\.strategy"):
        KNOWN["exp06"].model_copy(update={"factors": (wrong,)}).cells("pocket")
