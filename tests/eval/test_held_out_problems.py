"""Problems of the programming benchmarks are held out: who quotes one is found out, and nobody else."""

import os
from pathlib import Path

import pytest

from consolidation.filters import FilterConfig, Filters
from consolidation.pairs import Pair
from eval.coding.problems import Benchmark, has, problems
from eval.held_out import held_out_problems

DATA = Path(os.environ.get("SLEEPYD_DATA", "../shared/data"))


@pytest.mark.parametrize("name", ["humaneval", "mbpp"])
def test_a_pair_that_quotes_a_problem_leaks_and_no_other_problem_is_taken_for_it(name: Benchmark) -> None:
    if not has(name, DATA):
        pytest.skip(f"no {name} file in {DATA}; set SLEEPYD_DATA")
    all_of_them = problems(name, DATA)
    held = held_out_problems(all_of_them[::2])
    filters = Filters(
        FilterConfig(unparseable=False, shortcuts=False), lambda messages: ([1, 2, 3], [False, True, True]), 10, held
    )

    def leaks(code: str, number: int) -> bool:
        pair = Pair(
            task_id=f"mine-{number}",
            repo="mine",
            trajectory_id=f"t{number}",
            source="agent",
            messages=(("user", f"say {number}"), ("assistant", f"write it\n{code}")),
        )
        return filters.filtered([pair]).dropped.get("leak_overlap", 0) == 1

    quoted = [leaks(problem.canonical, n) for n, problem in enumerate(all_of_them[::2])]
    others = [leaks(problem.canonical, n) for n, problem in enumerate(all_of_them[1::2])]
    assert sum(quoted) / len(quoted) > 0.9  # the others are too short to be anyone's
    assert sum(others) / len(others) < 0.02
