"""A mixture of experts: what it is made of, what its router learns, and that what is served is what was meant."""

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agent.adapters import Lora, read_peft
from agent.pocket import WEIGHTS
from agent.pocket.model import PocketModel
from consolidation.adapters import Adapter, AdapterStore, Manifest, artefact_hash
from consolidation.errors import AdapterError, TrainingRefused
from consolidation.mixture.earlier import CENTRES, earlier_of
from consolidation.mixture.experts import mean_of, mixed
from consolidation.mixture.query import Query, query_in, vectors_of
from consolidation.mixture.router import NONE
from consolidation.mixture.serving import Served, materialise
from consolidation.mixture.taxonomy import clusters_of, merged, skill_of
from consolidation.mixture.training import shares
from consolidation.pairs import Format, Pair
from consolidation.strategies.bench import Bench
from consolidation.strategies.full_replay import FullReplay
from consolidation.strategies.mixture import MixtureOfExperts
from consolidation.strategies.seam import Learnt, Lesson, Sample
from consolidation.trainers.base import Example, Job, LoraConfig
from consolidation.trainers.torch_lora import TORCH
from tests.consolidation.lessons import TOKENIZER
from tests.consolidation.mixing import EMBEDDER, RANKS, answers, experts, issue, issues

torch.set_num_threads(1)
JOB = Job(base=WEIGHTS, context=100, lora=LoraConfig(rank=7, alpha=14, epochs=2, batch_size=2))


def pair(said: Query, *turns: tuple[str, str], how: Format = "T", **more: Any) -> Pair:
    messages = (("user", f"issue in {said.repo}\n{said.issue}"), *(turns or (("assistant", "search quux"),)))
    return Pair.model_validate(
        {"task_id": said.issue, "repo": said.repo, "trajectory_id": said.issue, "source": "agent", **more}
        | {"messages": messages, "format": how}
    )


def sample(said: Query, answer: str = "search quux", rehearsal: bool = False) -> Sample:
    told = pair(said, ("assistant", answer), source="rehearsal" if rehearsal else "agent")
    ids, own = TOKENIZER.example(told.conversation())
    return Sample(told, Example(ids=ids, own=own, rehearsal=rehearsal))


def bench_in(folder: Path, job: Job = JOB) -> Bench:
    return Bench(TORCH, job, folder, EMBEDDER.embed)


LESSON = Lesson(
    scope=("*",),
    new=tuple(sample(issue(topic, number), f"search f{number}") for number in range(4) for topic in range(3)),
    rehearsal=tuple(sample(issue(NONE, number), f"view g{number}.py", rehearsal=True) for number in range(5)),
)


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Learnt:
    return MixtureOfExperts().learn(LESSON, bench_in(tmp_path_factory.mktemp("night")))


class TestExperts:
    @pytest.mark.parametrize("quarters", [(2, 1, 1), (0, 3, 1), (1, 0, 3)])
    def test_a_mixture_changes_weights_by_the_weighted_sum(self, quarters: tuple[int, ...]) -> None:
        parts = experts()
        found = mixed(mean_of(parts), RANKS, quarters, "here")
        assert found.rank == sum(rank for rank, q in zip(RANKS, quarters, strict=True) if q)
        for path in parts[0].layers:
            wanted = sum(q / 4 * part.delta(path) for q, part in zip(quarters, parts, strict=True))
            torch.testing.assert_close(found.delta(path), wanted, atol=1e-5, rtol=0)

    def test_what_is_stored_is_their_mean_and_a_single_one_has_its_own_factors(self) -> None:
        parts = experts()
        mean, alone = mean_of(parts), mixed(mean_of(parts), RANKS, (0, 4, 0), "here")
        for path in parts[0].layers:
            torch.testing.assert_close(mean.delta(path), sum(p.delta(path) for p in parts) / 3, atol=1e-5, rtol=0)
            assert alone.layers[path].a.equal(parts[1].layers[path].a)
            assert alone.layers[path].b.equal(parts[1].layers[path].b)
        assert (alone.rank, alone.alpha) == (parts[1].rank, pytest.approx(parts[1].alpha, abs=1e-9))

    @pytest.mark.parametrize("experts", [1, 2, 3, 4, 5])
    def test_ranks_add_up(self, experts: int) -> None:
        for rank in range(experts, 20):
            assert sum(shares(rank, experts)) == rank
            assert max(shares(rank, experts)) < min(shares(rank, experts)) + experts


class TestLearning:
    def test_all_experts_together_have_the_rank_the_scale_and_the_examples_of_one_adapter(self, learnt: Learnt) -> None:
        parts = [read_peft(trained.folder) for trained in learnt.trained]
        assert [part.rank for part in parts] == [3, 2, 2]
        assert read_peft(learnt.folder).rank == learnt.rank == JOB.lora.rank
        assert {round(part.scale, 9) for part in parts} == {2 * JOB.lora.serving_scale}
        assert learnt.alpha == pytest.approx(read_peft(learnt.folder).alpha)
        assert learnt.examples == len(LESSON.all) == sum(trained.examples for trained in learnt.trained)

    def test_its_router_asks_each_expert_for_its_own_and_the_base_for_the_rest(self, learnt: Learnt) -> None:
        served = Served()
        answering = {topic: {served.choose(learnt.folder, issue(topic, n)) for n in range(20, 26)} for topic in (0, 1, 2, NONE)}
        assert answering[NONE] == {None}
        assert all(len(places) == 1 for places in answering.values())
        assert len(set.union(*answering.values())) == 4
        assert learnt.notes["router_accuracy"] == 1.0
        assert learnt.notes["router_none"] == 5

    def test_a_single_expert_is_one_adapter(self, tmp_path: Path) -> None:
        alike = Lesson(("bank",), tuple(sample(issue(0, n), f"search f{n}") for n in range(4)))
        one = MixtureOfExperts(taxonomy="skill").learn(alike, bench_in(tmp_path / "mixture"))
        whole = FullReplay().learn(alike, bench_in(tmp_path / "whole"))
        folder = Served().choose(one.folder, issue(0, 9))
        assert one.notes["experts"] == 1
        assert folder is not None
        ours, theirs = read_peft(folder), read_peft(whole.folder)
        assert all(torch.allclose(ours.delta(path), theirs.delta(path), atol=1e-6, rtol=0) for path in theirs.layers)
        assert _greedy(folder) == _greedy(whole.folder) != _greedy(None)

    def test_a_night_that_was_broken_off_ends_in_the_same_bytes_without_training_again(
        self, learnt: Learnt, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = artefact_hash(learnt.folder)
        shutil.rmtree(learnt.folder)
        monkeypatch.setattr(type(TORCH), "fit", lambda *given: pytest.fail("it was trained again"))
        again = MixtureOfExperts().learn(LESSON, bench_in(learnt.folder.parent))
        assert artefact_hash(again.folder) == before

    def test_experts_go_on_from_the_live_ones_and_one_with_nothing_new_stays(self, learnt: Learnt, tmp_path: Path) -> None:
        live = _admitted(learnt, tmp_path / "store")
        second = Lesson(("*",), tuple(sample(issue(1, n), f"search f{n}") for n in range(7, 10)), LESSON.new, previous=live)
        on = MixtureOfExperts(goes_on=True).learn(second, bench_in(tmp_path / "on"))
        assert on.notes["trained"] == 1
        assert on.examples == 3
        assert on.trained[0].loss_first < MixtureOfExperts().learn(second, bench_in(tmp_path / "anew")).trained[1].loss_first
        for number in range(3):
            before, after = (_expert(folder, number, tmp_path) for folder in (learnt.folder, on.folder))
            same = all(before.layers[path].b.equal(after.layers[path].b) for path in before.layers)
            assert same == (f"cluster_{number}" not in on.trained[0].folder.name)
        assert {Served().choose(on.folder, issue(NONE, n)) for n in range(30, 33)} == {None}
        again = Lesson(("*",), LESSON.new[:1], previous=_admitted(on, tmp_path / "store"))
        with pytest.raises(TrainingRefused, match="no expert has a batch of 2 new examples"):
            MixtureOfExperts(goes_on=True).learn(again, bench_in(tmp_path / "few"))

    def test_begins_from_scratch_after_another_taxonomy_or_recipe(self, learnt: Learnt, tmp_path: Path) -> None:
        live = _admitted(learnt, tmp_path / "store")
        assert earlier_of(live, "clusters", JOB.lora, EMBEDDER.dimensions) is not None
        assert earlier_of(live, "skill", JOB.lora, EMBEDDER.dimensions) is None
        assert earlier_of(live, "clusters", JOB.lora, 12) is None
        for changed in ({"rank": 8}, {"alpha": 15.0}, {"serving_scale": 0.5}, {"targets": ("q_proj",)}):
            assert earlier_of(live, "clusters", JOB.lora.model_copy(update=changed), EMBEDDER.dimensions) is None
        assert earlier_of(None, "clusters", JOB.lora, EMBEDDER.dimensions) is None
        (live.folder / "attached" / CENTRES).write_bytes(b"x")
        with pytest.raises(AdapterError, match="was changed"):
            earlier_of(live, "clusters", JOB.lora, EMBEDDER.dimensions)

    def test_refuses_what_cannot_be_divided(self, tmp_path: Path) -> None:
        small = JOB.model_copy(update={"lora": JOB.lora.model_copy(update={"rank": 3})})
        with pytest.raises(TrainingRefused, match="rank 3 cannot be divided among 4"):
            MixtureOfExperts(experts=4).learn(LESSON, bench_in(tmp_path, small))
        with pytest.raises(TrainingRefused, match="nothing to be an expert of"):
            MixtureOfExperts().learn(Lesson(("*",), ()), bench_in(tmp_path))


def _admitted(learnt: Learnt, root: Path) -> Adapter:
    manifest = Manifest(
        created_at=datetime.now(UTC),
        base="b",
        strategy="mixture",
        seed=0,
        data="d",
        scope=("*",),
        config_hash="c",
        loss_first=learnt.loss_first,
        loss_last=learnt.loss_last,
        rank=learnt.rank,
        alpha=learnt.alpha,
        targets=JOB.lora.targets,
    )
    return AdapterStore(root).admit(learnt.folder, manifest, learnt.attachments)


def _expert(folder: Path, number: int, room: Path) -> Lora:
    quarters = tuple(4 * (i == number) for i in range(3))
    return read_peft(materialise(folder, (3, 2, 2), quarters, room / f"{artefact_hash(folder)}-{number}"))


class TestTaxonomy:
    def test_skills_are_told_by_what_was_done(self) -> None:
        at = Query("bank", "wrong")
        shown = ("tool", "1|from bank.house import cents\n2|\n3|def f(a):\n4|    return a")
        view = (("assistant", "view bank/f.py"), shown)
        edit, plain = ("assistant", "edit bank/f.py 4\n    return cents(a)"), ("assistant", "edit bank/f.py 4\n    return a")
        assert skill_of(pair(at, *view, edit)) == "conventions"
        assert skill_of(pair(at, *view, plain)) == "workflow"
        assert skill_of(pair(at, *view, plain, ("tool", "1 failed, 3 passed"), edit)) == "recovery"
        assert skill_of(pair(at, *view, *view, *view, plain)) == "tools"
        assert skill_of(pair(at, *view, plain, untaught=(0,))) == "recovery"
        assert [skill_of(pair(at, how=how)) for how in ("A", "B", "D", "E", "T")] == [
            "explanation",
            "explanation",
            "recovery",
            "conventions",
            "workflow",
        ]

    def test_clusters_are_the_topics_and_never_more_than_there_are_issues(self) -> None:
        known = [(query, topic) for query, topic in issues(8) if topic != NONE]
        vectors = vectors_of([query for query, _ in known], EMBEDDER.embed)
        found = clusters_of(vectors, 3, 0)
        assert len({(a, topic) for a, (_, topic) in zip(found, known, strict=True)}) == len(set(found)) == 3
        assert found == clusters_of(vectors, 3, 0)
        assert clusters_of(vectors[:1].repeat(4, 0), 3, 0) == [0] * 4

    def test_a_small_category_joins_the_nearest(self) -> None:
        vectors = np.eye(3, dtype=np.float32)[[0, 0, 1, 1, 2]]
        vectors[4] = [0.0, 0.8, 0.6]
        assert merged(["a", "a", "b", "b", "c"], vectors, 2, 5) == ["a", "a", "b", "b", "b"]
        assert merged(["a", "a", "b", "b", "c"], vectors, 1, 5) == ["a", "a", "b", "b", "c"]
        assert len(set(merged(["a", "a", "b", "b", "c"], vectors, 1, 2))) == 2
        assert set(merged(["a", "b"], vectors[:2], 9, 5)) == {"b"}

    def test_the_router_reads_the_issue_without_what_was_recalled(self) -> None:
        told = pair(Query("x", "y")).model_copy(
            update={"messages": (("user", "past case\nold\nissue in bank\n`f` is wrong\nissue in here"), ("assistant", "test"))}
        )
        assert query_in(told) == Query("bank", "`f` is wrong\nissue in here")
        bare = told.model_copy(update={"messages": (("user", "How do I test?"), ("assistant", "test"))})
        assert query_in(bare) == Query("x", "How do I test?")


def _greedy(adapter: Path | None) -> list[str]:
    return answers(PocketModel(), adapter)
