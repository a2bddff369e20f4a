"""The router of a mixture: what it learns, how it is measured, and what it asks of the experts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from consolidation.mixture.query import Query, vectors_of
from consolidation.mixture.router import NONE, Router
from consolidation.mixture.school import split, taught_router
from consolidation.mixture.serving import Served
from tests.consolidation.mixing import EMBEDDER, issue, issues, mixture, routing

torch.set_num_threads(1)


class TestRouter:
    def test_learns_what_can_be_told_apart_and_the_same_each_time(self) -> None:
        options: dict[str, Any] = {"held": 0.25, "seed": 3, "steps": 60, "learning_rate": 1e-2}
        one, notes = taught_router(routing(), issues(12), EMBEDDER.embed, **options)
        two, again = taught_router(routing(), issues(12), EMBEDDER.embed, **options)
        other, _ = taught_router(routing(), issues(12), EMBEDDER.embed, **{**options, "seed": 4})
        assert notes == again == {"router_accuracy": 1.0, "router_usual": 0.25, "router_held": 12.0, "router_none": 12.0}
        assert all((one.tensors[name] == two.tensors[name]).all() for name in one.tensors)
        assert not (one.tensors["out.weight"] == other.tensors["out.weight"]).all()

    def test_is_measured_on_issues_it_never_saw_of_every_class(self) -> None:
        doubled = [*issues(5), *issues(5)]
        learnt, asked = split(doubled, 0.2, 0)
        assert len(learnt) + len(asked) == len(doubled)
        assert not {query for query, _ in learnt} & {query for query, _ in asked}
        assert sorted(label for _, label in asked) == [NONE, NONE, 0, 0, 1, 1, 2, 2]
        assert split(issues(2), 0.5, 0)[1] == []

    def test_accuracy_tells_when_nothing_can_be_told_apart(self) -> None:
        draw = np.random.default_rng(0)
        blind = [(query, int(draw.integers(3))) for query, _ in issues(30)]
        _, notes = taught_router(routing(), blind, EMBEDDER.embed, held=0.3, seed=0, steps=60, learning_rate=1e-2)
        assert notes["router_accuracy"] < 0.6

    @pytest.mark.parametrize("top_k", [1, 2, 3])
    def test_weights_are_quarters_of_the_likeliest_and_add_up_to_one(self, top_k: int) -> None:
        seen = set()
        for seed in range(30):
            made = Router(routing(top_k, 0.0), _random_tensors(seed))
            for number in range(10):
                vector = vectors_of([issue(number % 3, number)], EMBEDDER.embed)[0]
                quarters, odds = made.quarters(vector), made.odds(vector)
                if quarters is None:
                    assert odds.argmax() == 3
                    continue
                assert sum(quarters) == 4
                assert min(quarters) >= 0
                assert sum(q > 0 for q in quarters) <= top_k
                best = np.sort(odds[:3])[::-1][:top_k].sum()
                assert all(abs(q / 4 - o / best) < 0.25 for q, o in zip(quarters, odds, strict=False) if q)
                seen.add(sum(q > 0 for q in quarters))
        assert seen == set(range(1, top_k + 1))

    def test_what_is_not_sure_enough_goes_to_the_base(self) -> None:
        vector = vectors_of([issue(0, 1)], EMBEDDER.embed)[0]
        tensors = {name: t * 0 for name, t in _random_tensors(0).items()}  # everything is in reach of 0
        tensors["out.bias"] = np.log(np.array([4, 3, 1, 2], np.float32))
        assert Router(routing(1, 0.39), tensors).quarters(vector) == (4, 0, 0)
        assert Router(routing(1, 0.41), tensors).quarters(vector) is None
        assert Router(routing(2, 0.69), tensors).quarters(vector) == (2, 2, 0)

    def test_what_is_like_nothing_that_was_lived_goes_to_the_base_though_the_network_is_sure(self) -> None:
        known = [(query, label) for query, label in issues(8) if label != NONE]
        options: dict[str, Any] = {"held": 0.2, "seed": 0, "steps": 60, "learning_rate": 1e-2}
        made, notes = taught_router(routing(), known, EMBEDDER.embed, **options)
        strange = vectors_of([Query("pump", "valves leak under pressure")], EMBEDDER.embed)[0]
        assert made.odds(strange)[:3].max() > made.routing.floor
        assert made.quarters(strange) is None
        assert made.choice(strange) == NONE
        assert (notes["router_none"], notes["router_accuracy"]) == (0, 1.0)

    def test_does_not_depend_on_what_else_is_asked(self, tmp_path: Path) -> None:
        folder, asked = mixture(tmp_path / "m", routing(2)), [query for query, _ in issues(3)]
        forward, backward = Served(), Served()
        one = {query: forward.choose(folder, query) for query in asked}
        assert one == {query: backward.choose(folder, query) for query in reversed(asked)}
        assert len(set(one.values())) >= 4


def _random_tensors(seed: int) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    found = {name: draw.normal(size=shape).astype(np.float32) for name, shape in routing().shapes.items()}
    return found | {"reach": np.array([-9], np.float32)}
