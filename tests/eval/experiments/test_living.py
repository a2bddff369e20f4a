"""Lives in miniature, lived for real: what they measure, and that a life which was broken on purpose is found out."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from consolidation.night_config import NightConfig
from consolidation.strategies.naive import NaiveSequential
from consolidation.trainers.base import LoraConfig
from eval.errors import EvalError
from eval.experiments.life import DriftDesign, Fault, Life, LifeConfig, SequenceDesign, SplitDesign
from eval.experiments.living import Living, mislabelled, model_hash
from eval.experiments.worlds import open_world
from memory.arms import Arm
from memory.trajectories import Outcome, Trajectory

LORA = LoraConfig(rank=4, alpha=8, epochs=1, batching="packed", precision="bf16")
NIGHT = NightConfig(threads=1, lora=LORA)
SKILL = (Arm.BASE, Arm.SKILL)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lab")


def split(fault: Fault = "", arms: tuple[Arm, ...] = SKILL, **more: object) -> LifeConfig:
    design = SplitDesign(repo="farm", tasks=12)
    return LifeConfig(design=design, seed=41, night=NIGHT, arms=arms, skills=2, fault=fault, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def honest(lab: Path) -> Life:
    return Living(lab)(split(arms=tuple(Arm)))


def rates(life: Life, arm: Arm, night: int) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in life.exams:
        if row.arm is arm and row.night == night:
            found[row.block] = found.get(row.block, 0) + 1
    return found


def test_every_arm_is_examined_on_every_task_and_on_the_base_skills(honest: Life) -> None:
    assert honest.problems == ()
    assert honest.blocks == ("train 1", "test")
    assert honest.learnt == {"train 1": 1, "test": None}
    asked = {"train 1": 6, "test": 6, "": 2}
    assert rates(honest, Arm.BASE, 0) == asked
    assert rates(honest, Arm.SKILL, 1) == asked
    for arm in (Arm.FROZEN, Arm.KNOWLEDGE, Arm.BOTH):
        assert rates(honest, arm, 1) == {"train 1": 6, "test": 6}, arm
    assert len(honest.exams) == 5 * 12 + 2 * 2


def test_who_is_served_by_what_is_seen_in_the_rows(honest: Life) -> None:
    (night,) = honest.nights
    for row in honest.exams:
        assert bool(row.attempt.adapter) == row.arm.adapts
    assert {row.attempt.adapter for row in honest.exams if row.arm is Arm.SKILL} == set(night.adapters.values())
    assert {row.arm for row in honest.exams if row.attempt.recalled} == {Arm.KNOWLEDGE, Arm.BOTH}
    assert night.losses["train 1"] < night.base_losses["train 1"]
    assert night.examples >= 4
    assert night.seconds > 0


def test_the_frozen_control_does_what_the_base_did(honest: Life) -> None:
    def outcomes(arm: Arm) -> dict[str, str]:
        return {row.attempt.task_id: row.attempt.outcome for row in honest.exams if row.arm is arm and row.block}

    assert outcomes(Arm.BASE) == outcomes(Arm.FROZEN)


def test_a_life_is_lived_the_same_again_and_survives_json(honest: Life, lab: Path, tmp_path: Path) -> None:
    config = split(arms=(Arm.BASE, Arm.SKILL))
    again = Living(tmp_path)(config)

    def told(life: Life) -> list[object]:
        rows = [row for row in life.exams if row.arm in SKILL]
        return [
            (r.arm, r.night, r.block, r.attempt.model_dump(exclude={"seconds", "useful_seconds", "config_hash", "adapter"}))
            for r in rows
        ]

    assert told(again) == told(honest)
    assert again.nights[0].loss_last == honest.nights[0].loss_last
    assert Life.model_validate_json(again.model_dump_json()) == again
    assert again.digest == config.digest(model_hash(config)) != honest.digest


@pytest.mark.parametrize(
    ("fault", "arms", "found"),
    [
        ("leak", SKILL, "leak: "),
        ("labels", SKILL, "labels: "),
        ("shared_memory", (Arm.BASE, Arm.KNOWLEDGE, Arm.BOTH), "shared memory: knowledge.db was asked by both and knowledge"),
    ],
)
def test_a_life_that_was_broken_on_purpose_is_found_out(fault: Fault, arms: tuple[Arm, ...], found: str, lab: Path) -> None:
    life = Living(lab)(split(fault, arms))
    assert [problem for problem in life.problems if problem.startswith(found)]


def test_a_sequence_is_examined_whole_after_every_night(lab: Path) -> None:
    night = NIGHT.model_copy(update={"scope": "all", "strategy": NaiveSequential()})
    design = SequenceDesign(repos=("farm", "boat"), lived=6, examined=2)
    life = Living(lab)(LifeConfig(design=design, seed=41, night=night, skills=2))
    assert life.problems == ()
    assert life.learnt == {"farm": 1, "boat": 2}
    assert [rates(life, Arm.SKILL, row) for row in (1, 2)] == [{"farm": 2, "boat": 2, "": 2}] * 2
    assert {row.attempt.kind for row in life.exams if row.block} == {"convention"}
    assert [list(night.adapters) for night in life.nights] == [["*"], ["*"]]
    assert set(life.nights[1].losses) == {"farm", "boat"}


def test_a_repository_that_changed_is_examined_as_it_was_and_as_it_is(lab: Path) -> None:
    design = DriftDesign(repo="farm", severity="moderate", lived=6, recovery=(1, 5), examined=2)
    life = Living(lab)(LifeConfig(design=design, seed=41, night=NIGHT, guards=False))
    assert life.problems == ()
    assert life.blocks == ("before", "after", "after 5")
    assert life.learnt == {"before": 1, "after": 2, "after 5": 3}
    assert rates(life, Arm.SKILL, 3) == {"before": 2, "after": 2}
    assert {row.attempt.task_id.partition("-")[0] for row in life.exams if row.block == "after"} == {"farm.moderate"}


def test_only_the_last_row_is_measured_where_one_is_enough(lab: Path) -> None:
    design = SplitDesign(repo="farm", tasks=12, nights=2)
    config = LifeConfig(design=design, seed=41, night=NIGHT, arms=(Arm.BASE, Arm.FROZEN), skills=0, every_row=False)
    life = Living(lab)(config)
    assert {row.night for row in life.exams} == {0, 2}
    assert all("no arm of this life trains" in night.refused for night in life.nights)


def test_what_the_base_did_is_played_once_and_again_where_it_was_damaged(lab: Path, honest: Life) -> None:
    kept = sorted((lab / "days").rglob("farm-stream-41-*.json"))
    assert len(kept) == 12
    kept[0].write_text("{")
    assert Living(lab)(split(arms=(Arm.BASE, Arm.FROZEN))).problems == ()
    assert json.loads(kept[0].read_text())["task_id"] == kept[0].stem


def test_sessions_must_be_there_to_be_lived(tmp_path: Path) -> None:
    design = SplitDesign(repo="farm", tasks=12, sessions=(4, 8))
    with pytest.raises(EvalError, match=r"sessions .* 6 tasks are there"):
        open_world(LifeConfig(design=design, seed=1), tmp_path).blocks()
    with pytest.raises(EvalError, match="say how many"):
        open_world(LifeConfig(design=SplitDesign(repo="farm"), seed=1), tmp_path).blocks()


def test_every_split_teaches_and_examines_both_kinds_of_task(tmp_path: Path) -> None:
    for name in ("A", "B", "C", "D", "E"):
        design = SplitDesign(repo="farm", split=name, tasks=40)
        train, test = open_world(LifeConfig(design=design, seed=1), tmp_path).blocks()
        assert len(set(train.examined) | set(test.examined)) == 40
        for block in (train, test):
            about_the_convention = sum(int(identity.rsplit("-", 1)[1]) % 2 for identity in block.examined)
            assert 4 <= about_the_convention <= 16, (name, block.name)


def test_shuffled_labels_are_the_same_labels_elsewhere() -> None:
    played = [
        Trajectory(
            id=str(n),
            task_id=str(n),
            repo="farm",
            prompt="p",
            model="m",
            started_at=datetime.now(UTC),
            config_hash="c",
            outcome=Outcome.UNRESOLVED if n % 2 else Outcome.RESOLVED,
        )
        for n in range(9)
    ]
    turned = mislabelled(played)
    assert sorted(t.resolved for t in turned) == sorted(t.resolved for t in played)
    assert [t.resolved for t in turned] != [t.resolved for t in played]
