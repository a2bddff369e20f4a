"""Training in the child process, and everything it must refuse (FACTS 10.6)."""

import json
import math
import os
import signal
import sys
from pathlib import Path

import pytest
import torch

from agent.model import Message
from agent.pocket import WEIGHTS
from agent.pocket.model import PocketModel
from consolidation.errors import ConsolidationError, TrainingCrashed, TrainingRefused
from consolidation.trainers.base import Example, Job, LoraConfig, Progress, read_job, write_job
from consolidation.trainers.checks import check_examples
from consolidation.trainers.child import ChildTrainer
from consolidation.trainers.torch_lora import fit

LORA = LoraConfig(rank=4, alpha=8, learning_rate=3e-3, epochs=3, batch_size=4)
JOB = Job(base=WEIGHTS, lora=LORA, context=200)


def examples(count: int = 8) -> list[Example]:
    """Small conversations that teach one sentence."""
    tokenizer = PocketModel(slots=1).tokenizer
    made: list[Example] = []
    for number in range(count):
        ids, own = tokenizer.example(
            [Message("user", f"issue in shop\n`f{number}` is wrong."), Message("assistant", "search quux")]
        )
        made.append(Example(ids=ids, own=own, rehearsal=number % 2 == 0))
    return made


def test_a_child_trains_an_adapter_that_changes_answers_and_reports_every_step(tmp_path: Path) -> None:
    seen: list[Progress] = []
    trained = ChildTrainer().fit(JOB, examples(), tmp_path / "job", seen.append)
    assert [p.step for p in seen] == list(range(1, 7))
    assert trained.steps == 6
    assert trained.loss_last < trained.loss_first
    assert trained.tokens == 3 * sum(len(e.ids) for e in examples())
    assert not list(trained.folder.glob("*.bin"))
    model = PocketModel(slots=1)
    before = {name: p.clone() for name, p in model.network.named_parameters()}
    model.use(trained.folder)
    changed = [name for name, p in model.network.named_parameters() if not torch.equal(p, before[name])]
    assert len(changed) == 7 * model.config.num_hidden_layers
    ids, own = examples(1)[0].ids, examples(1)[0].own
    with torch.no_grad():
        losses = []
        for adapter in (None, trained.folder):
            model.use(adapter)
            scores = torch.log_softmax(model.network.logits(model.network.hidden(torch.tensor([ids])))[0], -1)
            losses.append(-sum(scores[i - 1, ids[i]].item() for i in range(1, len(ids)) if own[i]))
    assert losses[1] < losses[0]


def test_a_seed_decides_the_adapter(tmp_path: Path) -> None:
    for name in ("a", "b"):
        fit(JOB, examples(), tmp_path / name, lambda progress: None)
    fit(JOB.model_copy(update={"seed": 1}), examples(), tmp_path / "c", lambda progress: None)
    one, two, other = ((tmp_path / n / "adapter_model.safetensors").read_bytes() for n in "abc")
    assert one == two != other


def test_rehearsal_with_kl_stays_closer_to_the_base(tmp_path: Path) -> None:
    sizes = []
    for name, weight in (("free", 0.0), ("held", 30.0)):
        lora = LORA.model_copy(update={"kl_weight": weight, "epochs": 6})
        every = [e.model_copy(update={"rehearsal": True}) for e in examples()]
        trained = fit(JOB.model_copy(update={"lora": lora}), every, tmp_path / name, lambda progress: None)
        sizes.append(trained.loss_first - trained.loss_last)
    assert sizes[1] < sizes[0]


def test_jobs_survive_the_disk(tmp_path: Path) -> None:
    write_job(tmp_path, JOB, examples())
    assert read_job(tmp_path) == (JOB, examples())


def broken(**changes: object) -> Example:
    return Example.model_validate({**examples(1)[0].model_dump(), **changes})


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (lambda: examples(3), "3 examples, fewer than one batch of 4"),
        (lambda: [*examples(7), broken(own=[False] * len(examples(1)[0].ids))], "example 7: the loss mask is empty"),
        (lambda: [*examples(7), broken(ids=[9] * 300, own=[True] * 300)], "do not fit 200"),
        (lambda: [*examples(7), broken(own=[True])], "a mask of 1"),
    ],
)
def test_data_that_cannot_teach_is_refused_before_anything_starts(tmp_path: Path, bad, why: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(TrainingRefused, match=why):
        ChildTrainer().fit(JOB, bad(), tmp_path / "job", lambda progress: None)
    assert not (tmp_path / "job").exists()
    with pytest.raises(TrainingRefused):
        check_examples(JOB, bad())


def test_a_loss_that_is_not_finite_is_refused_across_the_process_boundary(tmp_path: Path) -> None:
    wild = JOB.model_copy(update={"lora": LORA.model_copy(update={"learning_rate": 1e30, "max_grad_norm": 1e30})})
    with pytest.raises(TrainingRefused, match=r"not finite|gradient"):
        ChildTrainer().fit(wild, examples(), tmp_path / "job", lambda progress: None)


def test_a_loss_that_does_not_move_is_refused(tmp_path: Path) -> None:
    still = JOB.model_copy(update={"lora": LORA.model_copy(update={"learning_rate": 1e-30, "batch_size": 8})})
    with pytest.raises(TrainingRefused, match="nothing was learnt"):
        fit(still, examples(), tmp_path / "out", lambda progress: None)


def test_a_killed_child_is_an_error_with_its_status_not_a_result(tmp_path: Path) -> None:
    def kill(progress: Progress) -> None:
        for line in Path("/proc/self/task").glob("*/children"):
            for pid in map(int, line.read_text().split()):
                assert pid > 1
                os.kill(pid, signal.SIGKILL)

    with pytest.raises(ConsolidationError, match="ended with status -9"):
        ChildTrainer().fit(JOB, examples(), tmp_path / "job", kill)


def test_a_base_that_is_no_model_is_an_error_with_a_log(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ConsolidationError, match=r"stderr\.log"):
        ChildTrainer().fit(
            JOB.model_copy(update={"base": tmp_path / "nothing"}), examples(), tmp_path / "job", lambda progress: None
        )


def test_losses_reported_are_means_over_epochs(tmp_path: Path) -> None:
    seen: list[float] = []
    trained = fit(JOB, examples(), tmp_path / "out", lambda progress: seen.append(progress.loss))
    assert math.isclose(trained.loss_first, sum(seen[:2]) / 2)
    assert math.isclose(trained.loss_last, sum(seen[-2:]) / 2)
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["r"] == 4


def test_what_is_served_is_the_stated_share_of_what_was_trained(tmp_path: Path) -> None:
    for name, share in (("whole", 1.0), ("half", 0.5)):
        lora = LORA.model_copy(update={"serving_scale": share})
        fit(JOB.model_copy(update={"lora": lora}), examples(), tmp_path / name, lambda progress: None)
    model = PocketModel(slots=1)
    layer = dict(model.network.named_parameters())["model.layers.0.mlp.down_proj.weight"]
    base = layer.detach().clone()
    changes = []
    for name in ("whole", "half"):
        model.use(tmp_path / name)
        changes.append(layer.detach().clone() - base)
    assert torch.allclose(changes[0], 2 * changes[1], atol=1e-5)
    assert changes[0].abs().max() > 1e-3


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the private memory of a process")
def test_a_child_over_its_memory_fails_alone_and_can_be_tried_again(tmp_path: Path) -> None:
    with pytest.raises(TrainingCrashed, match="the training process ended with status"):
        ChildTrainer(memory_mb=60, niceness=1).fit(JOB, examples(), tmp_path / "job", lambda progress: None)
