"""Tasks are played by what their routes give: an adapter, a mixture of experts, or the bare base."""

from dataclasses import replace
from pathlib import Path

import pytest

from agent.loop import Budget
from agent.pocket.model import PocketModel
from agent.sandbox.ladder import probe
from consolidation.adapters import artefact_hash
from consolidation.errors import AdapterError
from consolidation.mixture.serving import Served
from consolidation.skill import ALL, adapter_for
from eval.play import Player
from eval.pocket.stream import PocketStream
from memory.tasks import Task
from tests.consolidation.mixing import issues, mixture, routing
from tests.eval.test_play import Knowing

STREAM = PocketStream(seed=4, repos=("bank",), count=4)


class Topics(PocketStream):
    """The same repositories, with issues that the mixture's router knows."""

    def tasks(self) -> list[Task]:
        known = [query for query, _ in issues(1)]
        return [
            task.model_copy(update={"repo": query.repo, "issue": query.issue})
            for task, query in zip(super().tasks(), known, strict=True)
        ]

    def checkout(self, task: Task) -> dict[str, str]:
        return super().checkout(task.model_copy(update={"repo": "bank"}))


TOPICS = Topics(seed=4, repos=("bank",), count=4)


def test_a_repository_has_its_own_adapter_or_that_of_all() -> None:
    routes = {"bank": Path("a"), ALL: Path("b")}
    assert (adapter_for(routes, "bank"), adapter_for(routes, "farm")) == (Path("a"), Path("b"))
    assert adapter_for({"bank": "x"}, "farm") is None


def test_every_task_is_answered_by_the_route_for_all(tmp_path: Path) -> None:
    model = Knowing({})
    played = list(Player(model, probe(trusted_generated=True)).play(STREAM, STREAM.tasks(), {ALL: tmp_path / "abc"}))
    assert {t.adapter for t in played} == {"abc"}
    assert set(model.used) == {None, tmp_path / "abc"}


def test_attempts_name_the_admitted_mixture_and_their_hash_what_answered(tmp_path: Path) -> None:
    folder = mixture(tmp_path / "m")
    folder = folder.rename(tmp_path / artefact_hash(folder))
    player = Player(PocketModel(threads=1), probe(trusted_generated=True), budget=Budget(steps=1))
    player = replace(player, mixtures=tmp_path / "made")
    tasks = TOPICS.tasks()
    routed = {t.task_id: t for t in player.play(TOPICS, tasks, {ALL: folder})}
    base = {t.task_id: t for t in player.play(TOPICS, tasks)}
    turned = {t.task_id: t for t in player.play(TOPICS, tasks[::-1], {ALL: folder})}
    assert [routed[task.id].adapter for task in tasks] == [folder.name] * 3 + [None]
    assert len({t.config_hash for t in routed.values()}) == 4
    assert {i: t.config_hash for i, t in routed.items()} == {i: t.config_hash for i, t in turned.items()}
    last = tasks[-1].id
    assert routed[last].config_hash == base[last].config_hash
    assert _said(routed, last) == _said(base, last)
    assert any(_said(routed, task.id) != _said(base, task.id) for task in tasks[:3])
    for task in tasks[:3]:  # what answered is the folder that the route gives, to the word
        made = Served(tmp_path / "made").route(folder, task)
        assert made is not None
        assert made.parent == tmp_path / "made"
        (alone,) = player.play(TOPICS, [task], {ALL: made})
        assert (alone.config_hash, [s.said for s in alone.steps]) == (routed[task.id].config_hash, _said(routed, task.id))


def test_a_damaged_mixture_stops_the_day_before_anything_is_played(tmp_path: Path) -> None:
    folder, model = mixture(tmp_path / "m", routing(2)), Knowing({})
    (folder / "router.json").unlink()
    with pytest.raises(AdapterError, match=r"router\.json"):
        list(Player(model, probe(trusted_generated=True)).play(STREAM, STREAM.tasks(), {ALL: folder}))
    assert model.used == []


def _said(played: dict[str, object], task: str) -> list[str]:
    return [step.said for step in played[task].steps]  # type: ignore[attr-defined]
