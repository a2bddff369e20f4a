"""Training that is killed goes on where it was, and ends in the same bits."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from consolidation.errors import TrainingCrashed, TrainingRefused
from consolidation.trainers.base import Job, Progress
from consolidation.trainers.checkpoint import load_state, state_file
from consolidation.trainers.child import ChildTrainer
from consolidation.trainers.machine import Machine
from tests.consolidation.lessons import job, lessons, losses, preferences, trainer_of, weights

OFTEN = Machine(state_steps=1)


class Pulled(Exception):
    """The plug."""


def pull_at(step: int) -> object:
    def on_step(progress: Progress) -> None:
        if progress.step == step:
            raise Pulled

    return on_step


def kill_at(step: int) -> object:
    """SIGKILL for every child of this process when it reports the step."""

    def on_step(progress: Progress) -> None:
        if progress.step == step:
            for line in Path("/proc/self/task").glob("*/children"):
                for pid in map(int, line.read_text().split()):
                    assert pid > 1
                    os.kill(pid, signal.SIGKILL)

    return on_step


@pytest.mark.parametrize(("engine", "kind"), [("torch", "sft"), ("torch", "dpo"), ("mlx", "sft")])
def test_a_training_that_was_cut_off_ends_as_if_it_were_not(engine: str, kind: str, tmp_path: Path) -> None:
    trainer, data = trainer_of(engine), preferences() if kind == "dpo" else lessons()
    recipe = job(objective=kind, epochs=2, checkpoints=2, machine=OFTEN)
    whole = trainer.fit(recipe, data, tmp_path / "whole", lambda progress: None)
    for step in (1, 3):
        with pytest.raises(Pulled):
            trainer.fit(recipe, data, tmp_path / "cut", pull_at(step))  # type: ignore[arg-type]
        assert not (tmp_path / "cut/adapter_model.safetensors").exists()
    seen: list[Progress] = []
    ended = trainer.fit(recipe, data, tmp_path / "cut", seen.append)
    assert [(p.step, p.resumed_from) for p in seen] == [(4, 3)]
    assert ended.resumed_from == 3
    assert weights(ended) == weights(whole)
    assert [weights(c.folder) for c in ended.checkpoints] == [weights(c.folder) for c in whole.checkpoints]
    assert (ended.loss_first, ended.loss_last, ended.tokens) == (whole.loss_first, whole.loss_last, whole.tokens)
    assert not state_file(tmp_path / "cut").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="finds its children in /proc")
def test_a_child_killed_in_the_middle_goes_on_bit_for_bit(tmp_path: Path) -> None:
    recipe = job(epochs=3, machine=OFTEN)
    whole = trainer_of("torch").fit(recipe, lessons(), tmp_path / "whole", lambda progress: None)
    with pytest.raises(TrainingCrashed, match="status -9"):
        ChildTrainer().fit(recipe, lessons(), tmp_path / "cut", kill_at(4))  # type: ignore[arg-type]
    ended = ChildTrainer().fit(recipe, lessons(), tmp_path / "cut", lambda progress: None)
    assert 4 <= ended.resumed_from < 6
    assert weights(ended) == weights(whole)


def test_a_state_of_another_job_or_a_damaged_one_is_not_used(tmp_path: Path) -> None:
    trainer, recipe = trainer_of("torch"), job(machine=OFTEN)
    whole = trainer.fit(recipe, lessons(), tmp_path / "whole", lambda progress: None)
    other: list[tuple[Job, object]] = [(recipe, lessons(5)[1:]), (job(machine=OFTEN, seed=1), lessons())]
    for changed, data in other:
        with pytest.raises(Pulled):
            trainer.fit(changed, data, tmp_path / "a", pull_at(1))  # type: ignore[arg-type]
        assert weights(trainer.fit(recipe, lessons(), tmp_path / "a", lambda progress: None)) == weights(whole)
    state = state_file(tmp_path / "a")
    with pytest.raises(Pulled):
        trainer.fit(recipe, lessons(), tmp_path / "a", pull_at(1))  # type: ignore[arg-type]
    good = state.read_bytes()
    for bad in (b"", good[:100], good[:-100], b"\xff" * 8 + good[8:], good.replace(b'"step', b'"stop')):
        state.write_bytes(bad)
        left = state.with_name(f".{state.name}.left")
        left.write_bytes(good)
        assert load_state(state, "any") is None
        assert not state.exists()
        assert not left.exists()
        state.write_bytes(bad)
        assert trainer.fit(recipe, lessons(), tmp_path / "a", lambda progress: None).resumed_from == 0


def test_the_state_is_written_by_time_too(tmp_path: Path) -> None:
    for seconds, there in ((0.0, True), (1e6, False)):
        with pytest.raises(Pulled):
            trainer_of("torch").fit(job(machine=Machine(state_seconds=seconds)), lessons(), tmp_path / "a", pull_at(1))  # type: ignore[arg-type]
        assert state_file(tmp_path / "a").exists() == there
        state_file(tmp_path / "a").unlink(missing_ok=True)


def test_what_is_refused_in_the_end_is_not_taken_up_again(tmp_path: Path) -> None:
    still = job(learning_rate=1e-30, batch_size=4, epochs=2, machine=OFTEN)
    with pytest.raises(TrainingRefused, match="nothing was learnt"):
        losses(trainer_of("torch"), still, lessons(), tmp_path / "a")
    assert not state_file(tmp_path / "a").exists()


def test_the_child_of_another_engine_does_every_duty_as_the_parent_would(tmp_path: Path) -> None:
    trainer, child = trainer_of("mlx"), ChildTrainer(name="mlx")
    one = trainer.fit(job(), lessons(), tmp_path / "one", lambda progress: None)
    two = child.fit(job(), lessons(), tmp_path / "two", lambda progress: None)
    assert weights(one) == weights(two)
    assert child.loss(job(), lessons(2), one.folder) == trainer.loss(job(), lessons(2), one.folder)
    files = [t.fisher(job(), lessons(1), tmp_path / n, one.folder) for n, t in (("f1", trainer), ("f2", child))]
    assert files[0].read_bytes() == files[1].read_bytes()
    with pytest.raises(ValueError, match="choose one of torch, mlx"):
        ChildTrainer(name="jax")


def test_a_process_over_its_memory_ends_where_the_system_sets_no_limit() -> None:
    source = "from consolidation.trainers.child import _watch_memory; _watch_memory(1)"
    ended = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 4
    assert ended.stderr == "over the limit of 1 MiB\n"


def test_what_libraries_print_is_no_event_and_the_output_comes_back() -> None:
    source = (
        "from consolidation.trainers.child import _channel\nimport os\n"
        "with _channel() as channel:\n os.system('echo noise'); print('more'); print('event', file=channel)\n"
        "print('after')"
    )
    ended = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout.split() == ["event", "after"]
    assert sorted(ended.stderr.split()) == ["more", "noise"]
