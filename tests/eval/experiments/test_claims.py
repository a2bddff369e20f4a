"""What a registration names is there: asked before anything is lived."""

import pytest

from eval.errors import EvalError
from eval.experiments.claims import check_claims
from eval.experiments.plan import Criterion, Experiment, SizeName, registered
from tests.eval.experiments.works import experiment

KNOWN = registered()


def claiming(**changes: object) -> Experiment:
    body = {"name": "c", "text": "t", "measure": "acc", "operator": ">=", "threshold": 0.1} | changes
    return experiment(criteria=(Criterion.model_validate(body),))


@pytest.mark.parametrize(("name", "size"), [(name, size) for name, one in KNOWN.items() for size in one.sizes])
def test_every_registration_can_be_judged(name: str, size: SizeName) -> None:
    check_claims(KNOWN[name], size)


@pytest.mark.parametrize(
    "named",
    [
        {},
        {"variant": "best"},
        {"variant": "best:forgetting", "against": "plain"},
        {"variant": "guards=*"},
        {"variant": "plain", "without": ["centre"], "against": "others"},
        {"against": "@base"},
        {"against": "plain@base"},
        {"measure": "acc[convention]@base"},
        {"measure": "p_value"},
        {"measure": "p_variants:acc", "without": ["guards=False"]},
    ],
)
def test_what_is_there_may_be_named(named: dict[str, object]) -> None:
    check_claims(claiming(**named), "pocket")


@pytest.mark.parametrize(
    ("named", "why"),
    [
        ({"measure": "ac"}, "no measure 'ac'; did you mean acc"),
        ({"measure": "acc@knowledge"}, "arm knowledge is never examined; there are base, skill"),
        ({"measure": "p_value@both"}, "arm both is never examined"),
        ({"measure": "p_variants:ac"}, "no measure 'ac'"),
        ({"measure": "knee"}, "no numeric factor ''; there are none"),
        ({"measure": "knee:acc/guards"}, "no numeric factor 'guards'"),
        ({"variant": "guardz=*"}, r"no variant 'guardz=\*'"),
        ({"variant": "best:ac"}, "no measure 'ac'"),
        ({"variant": "best:examples"}, "examples has no better or worse"),
        ({"against": "plane"}, "no variant 'plane'; there are plain, centre, guards=False"),
        ({"against": "@knowledge"}, "arm knowledge is never examined"),
        ({"against": "@skil"}, "no arm 'skil'; did you mean skill"),
        ({"without": ["plane"]}, "no variant 'plane'"),
        ({"variant": "centre", "without": ["guards=False"], "against": "others"}, "there are no others"),
    ],
)
def test_what_is_not_there_is_named_with_its_criterion(named: dict[str, object], why: str) -> None:
    with pytest.raises(EvalError, match=f"exp99, criterion 'c': .*{why}.*; correct its registration"):
        check_claims(claiming(**named), "pocket")


def test_the_primary_measure_is_of_one_life() -> None:
    with pytest.raises(EvalError, match="exp99, primary: no measure 'knee'"):
        check_claims(experiment(primary="knee"), "pocket")


def test_cells_leave_a_registration_as_it_is() -> None:
    planned = experiment(
        settings={"night.strategy": {"kind": "ewc"}},
        references=(),
        factors=({"name": "weight", "setting": "night.strategy.weight", "levels": (1.0, 2.0), "centre": 1.0},),
    )
    before = planned.hash
    cells = planned.cells("pocket")
    assert planned.hash == before
    assert planned.settings == {"night.strategy": {"kind": "ewc"}}
    assert cells == planned.cells("pocket")
