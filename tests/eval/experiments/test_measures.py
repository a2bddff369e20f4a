"""Every measure of a life, by a value worked out by hand."""

from __future__ import annotations

import pytest

from eval.errors import EvalError
from eval.experiments.life import DriftDesign, ExamRow, Life, LifeConfig, NightRow
from eval.experiments.lived import Behind, Lived
from eval.experiments.measures import MEASURES, check_measure, measured
from memory.arms import Arm
from tests.eval.experiments.lives import attempt, exam, life

# Three blocks of four tasks; `a` is learnt in night 1, `b` in night 2, `c` never. Rates:
#            a     b     c          frozen   a     b     c
# row 0    .25     0   .25                 .25     0   .50
# row 1    1     .25   .25                 .50   .25   .25
# row 2    .50   .75   .75                 .25     0   .50
NIGHTS = (
    NightRow(
        night=1,
        block="a",
        examples=10,
        tokens=1000,
        seconds=4.0,
        extra_seconds=1.0,
        bytes=500,
        rank=4,
        loss_first=2.0,
        loss_last=0.5,
        notes={"router_accuracy": 0.5, "energy_1": 0.9},
    ),
    NightRow(
        night=2,
        block="b",
        examples=30,
        tokens=2000,
        seconds=6.0,
        extra_seconds=4.0,
        bytes=700,
        rank=8,
        loss_first=1.0,
        loss_last=0.25,
        losses={"a": 0.5},
        base_losses={"a": 2.0},
        notes={"router_accuracy": 0.75, "energy_1": 0.7, "energy_2": 0.5},
    ),
)
SEQUENCE = life(
    {
        ("base", 0): {"a": "+---", "b": "----", "c": "---+", "": "++--"},
        ("skill", 1): {"a": "++++", "b": "+---", "c": "---+", "": "++--"},
        ("skill", 2): {"a": "++--", "b": "+++-", "c": "+++-", "": "+---"},
        ("frozen", 0): {"a": "+---", "b": "----", "c": "--++", "": "++--"},
        ("frozen", 1): {"a": "++--", "b": "+---", "c": "---+"},
        ("frozen", 2): {"a": "+---", "b": "----", "c": "+--+", "": "++--"},
    },
    {"a": 1, "b": 2, "c": None},
    NIGHTS,
)
BY_HAND = {
    "acc": (0.5 + 0.75 + 0.75) / 3,
    "forward_transfer": 0.75 - 0.25,
    "gain": (0.75 + 0.75) / 2,
    "final_gain": (0.25 + 0.75) / 2,
    "forgetting": 1 - 0.5,  # of a alone: b was taught by the last night, c never
    "forgetting@frozen": 0.5 - 0.25,
    "forgetting_net": 0.5 - 0.25,
    "forgotten": 2 / 8,  # a's third and fourth task, resolved after the first night
    "forgotten@frozen": 2 / 8,  # a's second and b's first
    "forgotten_net": 0.0,
    "backward_transfer": 0.5 - 1,
    "aulc": (1 + (1 + 0.75) / 2) / 2,
    "plasticity": (1 + 0.75) / 2,
    "stability": 1 - (1 - 0.5),
    "clf_beta": 2 * 0.875 * 0.5 / (0.875 + 0.5),
    # ACC - F + FT (of b, in row 1) + BWT + AULC + CL-F
    "cl_score": 2 / 3 - 0.5 + 0.25 - 0.5 + 0.9375 + 2 * 0.875 * 0.5 / 1.375,
    "retention": (0.5 - 0.25) / (1 - 0.25),
    "retention_worst": (0.5 - 0.25) / (1 - 0.25),
    "retention_rate": (0.5 + 0.75) / 2,
    "retention_min": 0.5,
    "base_skills": 0.25 - 0.5,
    "base_skills@frozen": 0.0,
    "base_skills@base": 0.0,
    "resolve_rate": 8 / 12,
    "resolve_rate@base": 2 / 12,
    "resolve_rate@frozen": 3 / 12,
    "resolve_rate_test": 0.75,
    "steps": (8 * 4 + 4 * 8) / 12,
    "steps_resolved": 4.0,
    "tokens": 25 * 64 / 12,
    "tokens_resolved": 100.0,
    "prompt_tokens": 20 * 64 / 12,
    "seconds": 0.5 * 64 / 12,
    "malformed": 0.0,
    "conflicts": 0.0,
    "useful_calls": (64 - 12) / 64,
    "useful_time": 0.5,
    "tue_time": 2 / 2,
    "median_steps_to_green": 3.0,
    "training_loss": 0.25,
    "loss_retention": 1 - 0.5 / 2,
    "examples": 40.0,
    "train_tokens": 3000.0,
    "train_seconds": 10.0,
    "overhead": 0.5,
    "adapter_bytes": 700.0,
    "rank": 8.0,
    "gain_per_rank": 0.5 / 8,
    "router_accuracy": 0.75,
    "compression_kept": (0.9 + 0.7 + 0.5) / 3,
}


@pytest.mark.parametrize("name", BY_HAND)
def test_measure_has_the_value_worked_out_by_hand(name: str) -> None:
    found = measured(name, SEQUENCE)
    assert found.why == ""
    assert found.value == pytest.approx(BY_HAND[name])


def test_every_measure_is_known_worked_out_somewhere_and_said_in_words() -> None:
    elsewhere = {"stale_change", "recovered", "recovery_sessions", "stale_conflicts", "repeat_error_rate"}
    assert {name.partition("@")[0] for name in BY_HAND} | elsewhere == set(MEASURES)
    assert all(metric.text and metric.unit for metric in MEASURES.values())


def test_sequence_in_which_all_is_learnt_transfers_along_the_superdiagonal() -> None:
    found = life(
        {
            ("base", 0): {"a": "----", "b": "+---"},
            ("skill", 1): {"a": "++--", "b": "+++-"},
            ("skill", 2): {"a": "++--", "b": "++++"},
        },
        {"a": 1, "b": 2},
        nights=2,
    )
    assert measured("forward_transfer", found).value == pytest.approx(0.75 - 0.25)
    assert "never" not in measured("forward_transfer", found).why
    assert measured("resolve_rate_test", found).why == "every block was learnt"


def test_forgetting_is_of_what_a_night_before_the_last_taught() -> None:
    rows = [{"a": "+++-", "c": "++++"}, {"a": "++--", "c": "++++"}, {"a": "+++-", "c": "----"}, {"a": "+---", "c": "----"}]
    exams = {("skill" if night else "base", night): row for night, row in enumerate(rows)}
    three = life(exams, {"a": 1, "c": None}, nights=3)
    assert measured("forgetting", three).value == 0.5  # from the peak in row 2; neither row 0 nor c, never learnt, has a part
    assert measured("forgotten", three).value == 0.5
    one = life({key: row for key, row in exams.items() if key[1] < 2}, {"a": 1, "c": None})
    assert "none can have been forgotten yet" in measured("forgetting", one).why
    assert measured("forgotten", one).value == 0.25  # single tasks, row 0 included


def test_the_worst_kept_block_is_not_hidden_by_the_others() -> None:
    rows = [{"a": "----", "b": "----", "c": "--"}, {"a": "++--", "b": "----", "c": "--"}]
    rows += [{"a": "++--", "b": "++++", "c": "--"}, {"a": "++++", "b": "+---", "c": "++"}]
    exams = {("skill" if night else "base", night): row for night, row in enumerate(rows)}
    found = life(exams, {"a": 1, "b": 2, "c": 3}, nights=3)
    assert measured("retention", found).value == (2 + 0.25) / 2
    assert measured("retention_worst", found).value == 0.25
    kept = found.model_copy(update={"exams": tuple(row for row in found.exams if row.block != "b"), "blocks": ("a", "c")})
    assert measured("retention_worst", kept).value == 1


@pytest.mark.parametrize(
    ("behind", "blocks"),
    [("all", "abc"), ("learnt", "ab"), ("earlier", "a"), ("never", "c"), ("skills", ("",)), ("after", "")],
)
def test_shares_know_their_tasks(behind: Behind, blocks: str) -> None:
    assert Lived(SEQUENCE).tasks(behind) == {f"{block}/{place}" for block in blocks for place in range(4)}


def test_shares_of_a_gain_are_of_the_tasks_gained() -> None:
    assert Lived(SEQUENCE).tasks("gained") == {"a/1", "a/2", "a/3"}
    assert {name for name, metric in MEASURES.items() if metric.unit == "share" and metric.behind is None} == {
        *("useful_time", "loss_retention", "overhead")  # of seconds and of losses
    }


def test_missing_row_is_a_reason_and_never_a_zero() -> None:
    found = SEQUENCE.model_copy(update={"exams": tuple(row for row in SEQUENCE.exams if row.night != 1)})
    for name in ("gain", "forgetting", "retention", "plasticity", "backward_transfer", "aulc", "cl_score"):
        measure = measured(name, found)
        assert measure.value is None
        assert "not examined" in measure.why
    assert measured("final_gain", found).value == pytest.approx(0.5)


def test_arm_that_was_not_examined_is_a_reason() -> None:
    for name in ("acc@both", "resolve_rate@knowledge", "base_skills@both"):
        assert "not examined" in measured(name, SEQUENCE).why


def test_arm_that_trains_nothing_has_no_costs() -> None:
    assert measured("train_tokens@knowledge", SEQUENCE).why == "arm knowledge trains nothing"
    assert measured("rank@frozen", SEQUENCE).value is None


def test_nights_that_were_refused_cost_nothing_and_say_why() -> None:
    nights = tuple(NightRow(night=n, block="a", refused="too few examples") for n in (1, 2))
    found = SEQUENCE.model_copy(update={"nights": nights})
    assert measured("training_loss", found).why == "no night trained anything: too few examples"
    one = SEQUENCE.model_copy(update={"nights": (NIGHTS[0], nights[1])})
    assert measured("training_loss", one).value == 0.5
    assert measured("train_tokens", one).value == 1000


def test_infrastructure_failures_are_left_out() -> None:
    exams = {("base", 0): {"a": "+-!!"}, ("skill", 1): {"a": "+!!!"}}
    found = life(exams, {"a": 1})
    assert measured("resolve_rate", found).value == 1
    assert measured("gain", found).value == pytest.approx(0.5)
    gone = life({("base", 0): {"a": "+-"}, ("skill", 1): {"a": "!!"}}, {"a": 1})
    assert "infrastructure failed all 2" in measured("resolve_rate", gone).why
    assert "infrastructure failed all 2" in measured("gain", gone).why


def test_nothing_gained_leaves_nothing_to_retain() -> None:
    same = {"a": "+---", "b": "+---"}
    found = life({("base", 0): same, ("skill", 1): same, ("skill", 2): same}, {"a": 1, "b": 2}, nights=2)
    assert "had gained anything" in measured("retention", found).why
    single = life({("base", 0): {"a": "--"}, ("skill", 1): {"a": "++"}}, {"a": 1})
    assert "before the last night" in measured("retention", single).why


def test_blocks_that_gained_nothing_are_left_out_of_retention() -> None:
    rows = [{"a": "++--", "b": "----", "c": "--"}, {"a": "+---", "b": "++++", "c": "--"}, {"a": "----", "b": "++--", "c": "++"}]
    exams = {("skill" if night else "base", night): row for night, row in enumerate(rows)}
    found = life(exams, {"a": 1, "b": 1, "c": 2}, nights=2)
    assert measured("retention", found).value == 0.5


def test_kind_restricts_the_tasks() -> None:
    rows = [*exam("base", 0, {"a": "--"}), *exam("skill", 1, {"a": "+-"}, kind="convention")]
    other = attempt("a/9", "+", kind="function")
    exams = (*rows, ExamRow(arm=Arm.SKILL, night=1, block="a", attempt=other))
    found = life({}, {"a": 1}).model_copy(update={"exams": exams})
    assert measured("resolve_rate", found).value == pytest.approx(2 / 3)
    assert measured("resolve_rate[convention]", found).value == 0.5
    assert measured("resolve_rate[function]@skill", found).value == 1
    assert "not examined" in measured("resolve_rate[other]", found).why


def test_turns_and_errors_are_counted_over_the_last_examination() -> None:
    rows = [attempt("a/0", "-", malformed=2, conflicts=1, errors=("e",)), attempt("a/1", "-", conflicts=3, errors=("e", "f"))]
    exams = (*exam("base", 0, {"a": "--"}), *(ExamRow(arm=Arm.SKILL, night=1, block="a", attempt=row) for row in rows))
    found = life({}, {"a": 1}).model_copy(update={"exams": exams})
    assert measured("malformed", found).value == 2 / 16
    assert measured("conflicts", found).value == 4 / 16
    assert measured("repeat_error_rate", found).value == 0.5  # of the second task's two errors, one had been made before
    assert "no test run pass" in measured("median_steps_to_green", found).why


def test_skills_are_compared_on_the_tasks_that_both_have() -> None:
    found = life({("base", 0): {"a": "-", "": "+-++"}, ("skill", 1): {"a": "-", "": "++"}}, {"a": 1})
    assert measured("base_skills", found).value == 0.5


def drifted(*after: str) -> Life:
    """Rows of block `after` from row 1 on; `before` is at 3 of 4 once it was learnt, and `after` at 2 of 4 before any night."""
    exams = {("base", 0): {"before": "----", "after": "++--"}}
    exams |= {("skill", night): {"before": "+++-", "after": row} for night, row in enumerate(after, 1)}
    learnt = {"before": 1, "after": 2} | {f"after {night}": night for night in range(3, len(after) + 1)}
    return life(exams, learnt, nights=len(after))


DRIFT = LifeConfig(design=DriftDesign(repo="train", lived=4, recovery=(1, 5, 10), examined=4), seed=0)


def test_drift_is_measured_against_the_base_and_against_what_was_learnt() -> None:
    found = drifted("+---", "++--", "+++-", "++++")
    assert measured("stale_change", found, DRIFT).value == -0.25
    assert measured("stale_conflicts", found, DRIFT).value == 0
    assert measured("recovered", found, DRIFT).value == 0.25
    assert measured("recovery_sessions", found, DRIFT).value == 5  # row 3: one session by row 2, five by row 3
    assert measured("acc", found, DRIFT).value == pytest.approx((0.75 + 1) / 2)  # blocks that are only lived have no column


def test_stale_conflicts_are_those_with_the_changed_repository_before_recovery() -> None:
    found = drifted("+---", "++++")
    exams = [
        row.model_copy(update={"attempt": row.attempt.model_copy(update={"conflicts": row.night})})
        if row.block == "after"
        else row
        for row in found.exams
    ]
    measure = measured("stale_conflicts", found.model_copy(update={"exams": tuple(exams)}), DRIFT)
    assert measure.value == pytest.approx(4 * 1 / (4 + 3 * 8))


def test_recovery_that_does_not_come_or_need_not_come() -> None:
    never = measured("recovery_sessions", drifted("+---", "++--", "++--", "++--"), DRIFT)
    assert (never.value, never.why) == (None, "not recovered within 10 sessions")
    assert measured("recovery_sessions", drifted("+++-", "++--"), DRIFT).value == 0
    assert "no drift" in measured("stale_change", SEQUENCE, DRIFT).why
    assert "configuration" in measured("recovery_sessions", drifted("+---", "++++")).why


def test_unknown_names_say_the_nearest() -> None:
    with pytest.raises(EvalError, match="did you mean forgetting"):
        measured("forgeting", SEQUENCE)
    with pytest.raises(EvalError, match="did you mean frozen"):
        check_measure("acc@frozn")
    for name in ("acc", "acc@both", "knee", "knee:retention/buffer", "p_value@both", "p_variants:gain", "acc[convention]@base"):
        check_measure(name)
    for name in ("kneee", "knee:acccc", "p_value@nobody", "acc@", "acc[]"):
        with pytest.raises(EvalError):
            check_measure(name)
