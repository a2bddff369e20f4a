"""Adaptive rank: sums and SVDs of adapters, the knee, the budget, and what a session is trained on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from agent.adapters import Factors, Lora, read_peft
from agent.model import Message, Sampling
from agent.models.weights import folder_hash
from agent.pocket import WEIGHTS
from agent.pocket.model import PocketModel
from consolidation.adapters import Adapter, AdapterStore
from consolidation.errors import TrainingRefused
from consolidation.fuse import fuse
from consolidation.layouts.peft import write_peft
from consolidation.lora_algebra import concatenated, divided, svd_of, truncated
from consolidation.strategies.adaptive_rank import AdaptiveRank
from consolidation.strategies.naive import NaiveSequential
from consolidation.strategies.probing import at_rank, knee, probe
from consolidation.strategies.seam import Learnt
from consolidation.strategies.svd import SEGMENTS, Part, Segment, Segments, parts_of, within
from consolidation.trainers.base import Example
from tests.consolidation.adapting import random_lora
from tests.consolidation.lessons import trainer_of, weights
from tests.consolidation.strategy_nights import Counting, admitted, bench_at, lesson, recipe, samples

ASKED = ["issue in shop\n`shop0` is wrong", "issue in bank\n`bank1` is wrong", "issue in mail\n`mail2` is wrong"]


def apart(one: Lora, two: Lora) -> float:
    """Largest difference of two adapters' weight changes."""
    return max((one.delta(path) - two.delta(path)).abs().max().item() for path in {*one.layers, *two.layers})


def answers(folder: Path) -> list[str]:
    model = PocketModel(slots=1)
    model.use(folder)
    return [a.text for a in model.complete([[Message("user", text)] for text in ASKED], Sampling(max_tokens=12))]


def wide(lora: Lora) -> Lora:
    """The same layers at half the scale, and one layer less."""
    return Lora(lora.rank, lora.alpha / 2, dict(list(lora.layers.items())[1:]))


def test_concatenation_is_the_sum_of_the_weight_changes() -> None:
    parts = [random_lora(rank=2, alpha=3.0, seed=1), wide(random_lora(rank=3, alpha=9.0, seed=2)), random_lora(rank=1, seed=3)]
    whole = concatenated(parts)
    assert (whole.rank, whole.scale) == (6, parts[0].scale)
    for path in whole.layers:
        expected = sum((part.delta(path) for part in parts if path in part.layers), start=torch.zeros(()))
        torch.testing.assert_close(whole.delta(path), expected, rtol=1e-5, atol=1e-5)
    assert [part.rank for part in divided(whole, [2, 3, 1])] == [2, 3, 1]
    assert apart(divided(whole, [2, 3, 1])[0], parts[0]) == 0
    with pytest.raises(ValueError, match="do not make up rank 6"):
        divided(whole, [2, 3])


def test_svd_at_full_rank_loses_nothing_and_answers_the_same(tmp_path: Path) -> None:
    lora = random_lora(rank=4, alpha=2.0, seed=5)
    cut = truncated(lora, 4)
    assert apart(cut.lora, lora) < 1e-5
    assert cut.energy == pytest.approx(1, abs=1e-12)
    assert truncated(lora, 9).lora.rank == 4
    for name, each in (("before", lora), ("after", cut.lora), ("half", truncated(lora, 1).lora)):
        write_peft(each, tmp_path / name, "base")
    before, after, half = (answers(tmp_path / name) for name in ("before", "after", "half"))
    assert before == after != half


def test_what_truncation_loses_are_the_singular_values_it_drops() -> None:
    lora = random_lora(rank=6, seed=6)
    cut, total, dropped = truncated(lora, 2), 0.0, 0.0
    for path, factors in lora.layers.items():
        values = torch.linalg.svdvals(lora.delta(path).double())
        torch.testing.assert_close(svd_of(factors, lora.scale)[1], values[:6], rtol=1e-4, atol=1e-6)
        error = (lora.delta(path) - cut.lora.delta(path)).double().square().sum().item()
        assert error == pytest.approx(values[2:6].square().sum().item(), rel=1e-3)
        total, dropped = total + values.square().sum().item(), dropped + values[2:].square().sum().item()
    assert cut.lost == pytest.approx(dropped, rel=1e-3)
    assert cut.energy == pytest.approx(1 - dropped / total, rel=1e-4)


def test_a_layer_narrower_than_the_rank_is_compressed_too() -> None:
    generator = torch.Generator().manual_seed(0)
    narrow = Lora(5, 5.0, {"x": Factors(torch.randn(5, 3, generator=generator), torch.randn(2, 5, generator=generator))})
    cut = truncated(narrow, 4)
    cut.lora.check("it")
    assert apart(cut.lora, narrow) < 1e-5


@pytest.mark.parametrize(
    ("curve", "tolerance", "rank"),
    [
        ({1: 0.5, 2: 0.5, 4: 0.5, 8: 0.5}, 0.02, 1),  # flat: nothing is gained by rank
        ({1: 2.0, 2: 1.0, 4: 0.5, 8: 0.25}, 0.02, 8),  # still falling: the largest
        ({1: 2.0, 2: 1.0, 4: 0.51, 8: 0.505, 16: 0.5}, 0.02, 4),  # a knee, its bound included
        ({1: 2.0, 2: 1.0, 4: 0.511, 8: 0.505, 16: 0.5}, 0.02, 8),
        ({1: 0.9, 2: 0.5, 4: 0.7, 8: 0.49, 16: 0.8}, 0.05, 2),  # noisy: the worse larger ones do not matter
        ({16: 0.5, 1: 0.51, 4: 0.4}, 0.0, 4),  # in no order, no tolerance
        ({1: 0.0, 2: 0.0}, 0.02, 1),
    ],
)
def test_the_knee_is_the_smallest_rank_near_the_best(curve: dict[int, float], tolerance: float, rank: int) -> None:
    assert knee(curve, tolerance) == rank


@pytest.mark.parametrize("curve", [{}, {1: float("nan"), 2: 0.5}, {1: 0.5, 2: float("inf")}, {1: -1.0}])
def test_what_is_no_loss_has_no_knee(curve: dict[int, float]) -> None:
    with pytest.raises(TrainingRefused, match="are no losses"):
        knee(curve, 0.02)


def test_the_oldest_are_merged_and_the_newest_kept_as_they_are() -> None:
    parts = [Part(Segment(nights=(n,), rank=n), random_lora(rank=n, alpha=1.5 * n, seed=n)) for n in (1, 2, 3, 4)]
    kept, energies = within(parts, 6, merge=2, target=1)
    assert [(p.segment.nights, p.segment.rank) for p in kept] == [((1, 2, 3), 1), ((4,), 4)]  # 10 -> 1 + 7 -> 1 + 4
    assert len(energies) == 2
    assert kept[0].segment.energy == energies[-1]
    assert kept[1].lora is parts[3].lora
    assert within(parts, 10, merge=2, target=1) == (parts, [])
    best = truncated(concatenated([parts[0].lora, parts[1].lora]), 1)
    assert energies[0] == best.energy
    alone, _ = within(parts[3:], 2, merge=2, target=2)
    assert [p.segment.rank for p in alone] == [2]


def test_probes_differ_by_rank_alone_and_are_cheaper_than_the_session(tmp_path: Path) -> None:
    trainer = Counting(trainer_of("torch"))
    learnt = AdaptiveRank(ranks=(2, 1), probe_epochs=1, validation=0.34).learn(lesson(1), bench_at(tmp_path, trainer, epochs=3))
    short, whole = trainer.jobs[:2], trainer.jobs[2]
    assert [job.lora.rank for job in short] == [1, 2]
    assert {job.lora.alpha / job.lora.rank for job in trainer.jobs} == {2.0}
    assert {(job.lora.epochs, job.lora.validation) for job in short} == {(1, 0.34)}
    assert (whole.lora.epochs, whole.lora.validation, whole.lora.rank) == (3, 0.0, learnt.rank)
    assert learnt.cost.tokens > learnt.trained[0].tokens
    assert 0 < learnt.cost.extra_seconds == pytest.approx(learnt.cost.extra_seconds)
    found = {rank: learnt.notes[f"loss_at_rank_{rank}"] for rank in (1, 2)}
    assert learnt.notes["rank"] == knee(found, 0.02)
    bench = bench_at(tmp_path / "again", epochs=1, validation=0.34)
    assert probe(bench, [s.item for s in lesson(1).new], bench.job, (1, 2), 0.02).losses == found


def test_a_single_segment_is_a_plain_adapter_of_this_rank(tmp_path: Path) -> None:
    learnt = AdaptiveRank(ranks=(2,)).learn(lesson(1), bench_at(tmp_path / "adaptive"))
    plain = bench_at(tmp_path / "plain", rank=2, alpha=4.0)
    naive = NaiveSequential().learn(lesson(1), plain)
    assert weights(learnt.folder) == weights(naive.folder)
    assert (learnt.folder / "adapter_config.json").read_bytes() == (naive.folder / "adapter_config.json").read_bytes()


def test_a_second_session_is_trained_on_the_first_and_served_beside_it(tmp_path: Path) -> None:
    store, strategy = AdapterStore(tmp_path / "adapters"), AdaptiveRank(ranks=(2,))
    first = admitted(store, strategy, strategy.learn(lesson(1), bench_at(tmp_path / "1")))
    trainer = Counting(trainer_of("torch"))
    learnt = strategy.learn(lesson(2, first), bench_at(tmp_path / "2", trainer, checkpoints=2, epochs=2))
    ground = trainer.jobs[0].base
    assert ground != WEIGHTS
    assert not ground.exists()  # it was temporary
    old, session, served = read_peft(first.folder), read_peft(learnt.trained[0].folder), read_peft(learnt.folder)
    assert (served.rank, served.scale) == (4, 2.0 * 0.75)  # the serving scale once
    for path in served.layers:
        torch.testing.assert_close(served.delta(path), old.delta(path) + session.delta(path), rtol=1e-5, atol=1e-6)
    attachment = Segments.model_validate_json(learnt.attachments[SEGMENTS].read_bytes())
    assert [(s.nights, s.rank) for s in attachment.segments] == [((1,), 2), ((2,), 2)]
    assert [read_peft(folder).rank for folder in learnt.candidates] == [4, 4]
    alone = NaiveSequential().learn(replace(lesson(2), previous=None), bench_at(tmp_path / "alone", rank=2, alpha=4.0))
    assert weights(learnt.trained[0].folder) != weights(alone.folder)


def test_the_loss_it_was_trained_to_is_that_of_what_is_served(tmp_path: Path) -> None:
    """The session on the fused base, and the concatenation on the bare base, say the same."""
    store, strategy = AdapterStore(tmp_path / "adapters"), AdaptiveRank(ranks=(2,))
    first = admitted(store, strategy, strategy.learn(lesson(1), bench_at(tmp_path / "1")))
    learnt = strategy.learn(lesson(2, first), bench_at(tmp_path / "2"))
    fuse(WEIGHTS, first, tmp_path / "ground")
    trainer, session = trainer_of("torch"), learnt.trained[0].folder
    asked = [sample.item for sample in samples(0, 3) if isinstance(sample.item, Example)]
    on_ground = recipe().model_copy(update={"base": tmp_path / "ground"})
    served, alone = (trainer.loss(recipe(), asked, folder) for folder in (learnt.folder, session))
    there = trainer.loss(on_ground, asked, session)
    assert served == pytest.approx(there, rel=1e-3)  # the pocket base is of bfloat16, to which the sum is rounded
    assert max(abs(a - b) for a, b in zip(alone, there, strict=True)) > 0.1


def test_the_budget_holds_over_six_nights(tmp_path: Path) -> None:
    store, strategy = AdapterStore(tmp_path / "adapters"), AdaptiveRank(ranks=(3,), budget=7, merge=2, target=2)
    previous: Adapter | None = None
    ranks, nights, learnt = [], [], None
    for night in range(1, 7):
        today = replace(lesson(night, previous, count=2), rehearsal=())
        learnt = strategy.learn(today, bench_at(tmp_path / str(night)))
        previous = admitted(store, strategy, learnt)
        assert read_peft(learnt.folder).rank == learnt.rank <= 7
        attached = previous.attachment(SEGMENTS)
        assert attached is not None
        found = Segments.model_validate_json(attached.read_bytes())
        ranks.append([segment.rank for segment in found.segments])
        nights = [segment.nights for segment in found.segments]
        assert found.rank == learnt.rank
        assert not [path for path in (tmp_path / str(night)).glob("ground*") if path.is_dir()]
        compressed = "energy_1" in learnt.notes
        assert compressed == (night >= 3)
        if compressed:
            assert 0 < learnt.notes["energy_1"] < 1
            assert found.segments[0].energy == pytest.approx(learnt.notes["energy_1"])
    assert ranks == [[3], [3, 3], [2, 3], [2, 3], [2, 3], [2, 3]]
    assert nights == [(1, 2, 3, 4, 5), (6,)]


def test_after_another_strategy_it_goes_on_with_what_there_is_as_one_segment(tmp_path: Path) -> None:
    store = AdapterStore(tmp_path / "adapters")
    naive = admitted(store, NaiveSequential(), NaiveSequential().learn(lesson(1), bench_at(tmp_path / "1")))
    learnt = AdaptiveRank(ranks=(1,)).learn(lesson(2, naive), bench_at(tmp_path / "2"))
    found = Segments.model_validate_json(learnt.attachments[SEGMENTS].read_bytes())
    assert [(s.nights, s.rank) for s in found.segments] == [((0,), 4), ((1,), 1)]


def test_segments_of_another_adapter_are_refused(tmp_path: Path) -> None:
    path = tmp_path / SEGMENTS
    for text in (
        "{",
        '{"segments": []}',
        '{"segments": [{"nights": [1], "rank": 3}]}',
        '{"segments": [{"nights": [], "rank": 4}]}',
    ):
        path.write_text(text)
        with pytest.raises(TrainingRefused, match="not this adapter's segments"):
            parts_of(random_lora(rank=4), path)


def test_bases_and_adapters_that_no_session_can_be_put_on_are_refused(tmp_path: Path) -> None:
    strategy = AdaptiveRank(ranks=(1,))
    learnt = strategy.learn(lesson(1), bench_at(tmp_path / "1"))
    first = admitted(AdapterStore(tmp_path / "adapters"), strategy, learnt)
    base = tmp_path / "q4"
    base.mkdir()
    save_file({"model.layers.0.self_attn.q_proj.scales": torch.zeros(1)}, base / "model.safetensors")
    quantised = first.model_copy(update={"manifest": first.manifest.model_copy(update={"base": folder_hash(base)})})
    with pytest.raises(TrainingRefused, match="is quantised"):
        strategy.learn(
            lesson(2, quantised), replace(bench_at(tmp_path / "2"), job=recipe(base_hash="").model_copy(update={"base": base}))
        )
    (first.folder / "router.json").write_text("{}")
    with pytest.raises(TrainingRefused, match="mixture of experts"):
        strategy.learn(lesson(2, first), bench_at(tmp_path / "3"))


def test_too_few_examples_to_probe_on_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(TrainingRefused, match="for validation"):
        AdaptiveRank(ranks=(1, 2)).learn(lesson(1, count=2), bench_at(tmp_path / "night"))
    assert not (tmp_path / "night").exists()


@pytest.mark.parametrize("bad", [{"ranks": (0, 1)}, {"ranks": (2, 2)}, {"budget": 17}, {"ranks": ()}, {"merge": 1}])
def test_settings_that_contradict_each_other_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AdaptiveRank(**bad)


def test_the_recipe_keeps_its_scale_at_every_rank() -> None:
    lora = recipe().lora
    assert [at_rank(lora, r).alpha / r for r in (1, 3, 16)] == [lora.alpha / lora.rank] * 3


def test_a_learnt_adapter_says_its_rank_and_alpha_as_served(tmp_path: Path) -> None:
    learnt: Learnt = AdaptiveRank(ranks=(3,)).learn(lesson(1), bench_at(tmp_path))
    lora = read_peft(learnt.folder)
    assert (learnt.rank, learnt.alpha) == (lora.rank, lora.alpha) == (3, 2.0 * 3 * 0.75)
