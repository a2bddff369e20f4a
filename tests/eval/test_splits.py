"""The splits of the pre-registered experiments: exactly what was registered, and halves at every length."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.errors import EvalError
from eval.swebench.splits import SPLITS, split

NUMBERS = tuple(range(1, 51))  # as the experiments count
DRAWN = {  # pinned: another generator, or another use of it, is another experiment
    "D": {2, 3, 6, 7, 8, 9, 14, 15, 16, 18, 21, 23, 28, 29, 31, 33, 35, 37, 38, 41, 43, 45, 47, 48, 50},
    "E": {1, 3, 4, 6, 7, 9, 11, 14, 16, 18, 20, 22, 25, 27, 29, 35, 36, 37, 39, 40, 42, 43, 44, 49, 50},
}


@pytest.mark.parametrize(
    ("name", "train"),
    [
        ("A", set(range(1, 26))),
        ("B", set(range(26, 51))),
        ("C", set(range(1, 51, 2))),
        *DRAWN.items(),
    ],
)
def test_fifty_tasks_are_split_as_registered(name: str, train: set[int]) -> None:
    halves = split(name, NUMBERS)
    assert set(halves.train) == train
    assert set(halves.test) == set(NUMBERS) - train
    assert len(halves.train) == len(halves.test) == 25


@pytest.mark.parametrize("length", [19, 22, 32, 34, 44])
def test_b_is_a_reversed_and_a_random_split_depends_on_length_and_seed_alone(length: int) -> None:
    numbers, letters = range(length), [f"task-{i}" for i in range(length)]
    assert (split("A", numbers).train, split("A", numbers).test) == (split("B", numbers).test, split("B", numbers).train)
    assert split("D", letters).train == tuple(letters[i] for i in split("D", numbers).train)
    assert split("D", numbers) != split("E", numbers)


@given(st.sampled_from("ABCDE"), st.lists(st.text(), min_size=2, max_size=120, unique=True))
def test_halves_are_disjoint_complete_in_order_and_as_even_as_can_be(name: str, tasks: list[str]) -> None:
    halves = split(name, tasks)
    assert sorted(halves.train + halves.test) == sorted(tasks)
    assert [t for t in tasks if t in halves.train] == list(halves.train)
    assert [t for t in tasks if t in halves.test] == list(halves.test)
    assert len(halves.train) - len(halves.test) == (0 if len(tasks) % 2 == 0 else -1 if name == "B" else 1)


@pytest.mark.parametrize(
    ("name", "tasks", "says"), [("F", "xy", "A, B, C, D, E"), ("a", "xy", "no split 'a'"), ("A", "x", "1 task")]
)
def test_what_cannot_be_split_is_refused(name: str, tasks: str, says: str) -> None:
    with pytest.raises(EvalError, match=says):
        split(name, tasks)


def test_every_split_has_a_name() -> None:
    assert "".join(SPLITS) == "ABCDE"
