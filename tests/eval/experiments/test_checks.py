"""The checks of a life by themselves: what they refuse, and what they must let pass."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from consolidation.guards import Answer, Routes
from eval.errors import EvalError
from eval.exams import at_seat, seat_of, seats
from eval.experiments.checks import Checks
from eval.experiments.life import ExamRow, LifeConfig, NightRow, SequenceDesign, SplitDesign
from eval.experiments.worlds import Block, World, open_world, sat
from eval.metrics.rows import Attempted
from memory.arms import Arm
from memory.trajectories import Outcome

IDS = tuple(f"farm-stream-1-{number}" for number in range(40))
BLOCKS = (Block("train 1", IDS[:4], IDS),)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    config = LifeConfig(design=SplitDesign(repo="farm", tasks=40), seed=1, arms=(Arm.BASE, Arm.SKILL, Arm.FROZEN))
    return open_world(config, tmp_path_factory.mktemp("world"))


def row(arm: Arm, night: int, number: int, resolved: bool = True, adapter: str = "") -> ExamRow:
    outcome = Outcome.RESOLVED if resolved else Outcome.UNRESOLVED
    attempt = Attempted(task_id=IDS[number], repo="farm", outcome=outcome, steps=3, adapter=adapter, config_hash="c")
    return ExamRow(arm=arm, night=night, block="train 1", attempt=attempt)


def examined(*frozen: bool, skill: str = "new", last: int = 1) -> list[ExamRow]:
    flips = (*frozen, *(True for _ in range(len(IDS) - len(frozen))))
    rows = [row(Arm.BASE, 0, n) for n in range(len(IDS))]
    for night in range(1, last + 1):
        rows += [row(Arm.FROZEN, night, n, right) for n, right in enumerate(flips)]
        rows += [row(Arm.SKILL, night, n, adapter=skill) for n in range(len(IDS))]
    return rows


def found(world: World, rows: list[ExamRow], *nights: NightRow) -> tuple[str, ...]:
    last = max(row.night for row in rows)
    return Checks(world, BLOCKS, ()).of_rows(rows, last, nights or NIGHTS, SimpleNamespace(asked={}))  # type: ignore[arg-type]


NIGHTS = (NightRow(night=1, block="train 1", adapters={"farm": "new"}),)


def test_a_sound_life_has_no_problem(world: World) -> None:
    assert found(world, examined()) == ()


@pytest.mark.parametrize("adapter", ["", "old"])
def test_who_was_not_served_by_what_was_live_is_told(world: World, adapter: str) -> None:
    rows = examined()
    rows[-1] = row(Arm.SKILL, 1, len(IDS) - 1, adapter=adapter)
    (problem,) = found(world, rows)
    assert problem.startswith("served: after night 1, arm skill")
    assert f"adapter {adapter or 'none'}, where new was due" in problem


def test_no_other_arm_is_served_by_an_adapter(world: World) -> None:
    rows = examined()
    (at,) = (n for n, r in enumerate(rows) if r.arm is Arm.FROZEN and r.attempt.task_id == IDS[0])
    rows[at] = row(Arm.FROZEN, 1, 0, adapter="new")
    assert "adapter new, where none was due" in found(world, rows)[0]


def test_a_night_that_trained_nothing_leaves_the_last_adapter_live(world: World) -> None:
    nights = (*NIGHTS, NightRow(night=2, block="train 1", refused="too few"))
    assert found(world, examined(last=2), *nights) == ()


def test_a_frozen_control_may_differ_by_chance_and_no_more(world: World) -> None:
    assert found(world, examined(False, False, False)) == ()
    five = [night.model_copy(update={"night": number}) for number in range(1, 6) for night in NIGHTS]
    assert found(world, examined(False, False, False, last=5), *five) == ()
    (one_way,) = found(world, examined(*[False] * 11))
    assert "lost 11 and gained 0 of 40" in one_way
    both = examined(*[False] * 10)
    for n in range(10, 20):  # ten that only the base fails
        both[n] = row(Arm.BASE, 0, n, resolved=False)
    assert "lost 10 and gained 10 of 40" in found(world, both)[0]


def test_rows_are_whole_and_single(world: World) -> None:
    assert "39 of 40 tasks" in found(world, examined()[:-1])[0]
    rows = examined()
    assert any("examined twice" in problem for problem in found(world, [*rows[:-1], rows[-2]]))
    assert any("arm skill has no row" in problem for problem in found(world, [r for r in rows if r.arm is not Arm.SKILL]))


def test_nothing_is_lived_and_examined_as_unseen(tmp_path: Path) -> None:
    design = SequenceDesign(repos=("farm", "boat"), lived=6, examined=2)
    world = open_world(LifeConfig(design=design, seed=1), tmp_path)
    with pytest.raises(EvalError, match="would be lived and examined as unseen"):
        world._taught("farm", world.unseen("farm", 1), 2)


class Exam:
    """A guard of two problems, each asked of every adapter that serves."""

    name = claim = "exam"
    role = "capability"
    digest = "d"

    def items(self, routes: Routes) -> Sequence[str]:
        return [at_seat(seat, problem) for problem in ("p1", "p2") for seat in seats(routes)]

    def category(self, item: str) -> str:
        return ""

    def repo(self, item: str) -> str:
        return seat_of(item)[0]

    def answer(self, items: Sequence[str], routes: Routes) -> Mapping[str, Answer]:
        return {item: Answer(score=float(item.endswith("p1")), said="s") for item in items}


def test_a_problem_has_one_name_whoever_sits_it_so_that_adapter_and_base_are_compared() -> None:
    base, adapted = sat(Exam(), {}), sat(Exam(), {"farm": Path("a")})  # type: ignore[arg-type]
    assert [(row.task_id, row.resolved) for row in base] == [("exam/p1", True), ("exam/p2", False)]
    assert [row.task_id for row in adapted] == [row.task_id for row in base]
    assert [row.repo for row in adapted] == ["farm", "farm"]
    with pytest.raises(EvalError, match="2 adapters would sit it"):
        sat(Exam(), {"farm": Path("a"), "boat": Path("b")})  # type: ignore[arg-type]
