"""The pocket world: what its tasks promise."""

import random
import time
from pathlib import Path

import pytest

from agent.workspace import write_tree
from eval.errors import EvalError
from eval.pocket.conventions import HOUSES
from eval.pocket.functions import BASE_SKILLS
from eval.pocket.names import Namer, Split, split_of
from eval.pocket.runner import run_tests
from eval.pocket.stream import PocketStream
from eval.pocket.templates import TEMPLATES
from eval.pocket.world import CONVENTION_KIND, Module, build_problem, execute


@pytest.fixture(scope="module")
def stream() -> PocketStream:
    return PocketStream(seed=0, count=50)


def test_eight_repositories_with_fifty_tasks_in_order(stream: PocketStream) -> None:
    tasks = stream.tasks()
    assert len({t.repo for t in tasks}) == 8
    assert [t.position for t in tasks] == list(range(400))
    for repo in HOUSES:
        own = [t for t in tasks if t.repo == repo]
        assert len(own) == 50
        assert [t.created_at for t in own] == sorted(t.created_at for t in own)
        assert len({t.id for t in own}) == 50
    assert {t.difficulty for t in tasks} == {"<15 min fix", "15 min - 1 hour", "1-4 hours"}
    ids = {t.id: t for t in tasks}
    assert any(t.dependencies for t in tasks)
    assert all(ids[d].position < t.position for t in tasks for d in t.dependencies)


def test_every_repository_has_base_skills_and_its_convention(stream: PocketStream) -> None:
    kinds: dict[str, set[str]] = {repo: set() for repo in HOUSES}
    for task in stream.tasks():
        kinds[task.repo].add(stream.secret(task).kind)
    assert all(CONVENTION_KIND in found and len(found) >= 4 for found in kinds.values())
    assert set.union(*kinds.values()) == {*BASE_SKILLS, CONVENTION_KIND}


def test_every_task_fails_before_and_passes_with_the_merged_fix(stream: PocketStream, tmp_path: Path) -> None:
    for task in stream.tasks()[::3]:
        secret = stream.secret(task)
        files = {**stream.checkout(task), **secret.tests}
        write_tree(tmp_path / "repo", files)
        before = run_tests(tmp_path / "repo")
        assert all(before[t] != "PASSED" for t in secret.fail_to_pass), task
        assert all(before[t] == "PASSED" for t in secret.pass_to_pass), task
        write_tree(tmp_path / "repo", {**files, secret.fix.path: secret.fix.after})
        after = run_tests(tmp_path / "repo")
        assert all(after[t] == "PASSED" for t in (*secret.fail_to_pass, *secret.pass_to_pass)), task


def test_the_plain_repair_does_not_satisfy_a_house_convention(stream: PocketStream, tmp_path: Path) -> None:
    for task in [t for t in stream.tasks() if stream.secret(t).kind == CONVENTION_KIND][::5]:
        secret = stream.secret(task)
        problem = stream._entries[task.id].problem
        plain = problem.module.source({problem.function.name: problem.function.plain})
        write_tree(tmp_path / "repo", {**stream.checkout(task), **secret.tests, secret.fix.path: plain})
        results = run_tests(tmp_path / "repo")
        assert any(results[t] != "PASSED" for t in secret.fail_to_pass), task


def test_the_issue_names_no_convention(stream: PocketStream) -> None:
    for task in stream.tasks():
        assert HOUSES[task.repo].symbol not in task.issue


def test_the_agent_sees_a_failing_visible_test_and_no_hidden_one(stream: PocketStream, tmp_path: Path) -> None:
    for task in stream.tasks()[:40]:
        files, secret = stream.checkout(task), stream.secret(task)
        write_tree(tmp_path / "repo", files)
        assert any(why != "PASSED" for why in run_tests(tmp_path / "repo").values()), task
        assert all(files.get(path) != text for path, text in secret.tests.items())


def test_a_seed_decides_everything(stream: PocketStream) -> None:
    again, other = PocketStream(seed=0, count=50), PocketStream(seed=1, count=50)
    for one, two in zip(stream.tasks(), again.tasks(), strict=True):
        assert one == two
        assert stream.checkout(one) == again.checkout(two)
        assert stream.secret(one) == again.secret(two)
    assert [t.issue for t in other.tasks()] != [t.issue for t in stream.tasks()]


def test_a_second_day_continues_the_first() -> None:
    whole = PocketStream(seed=3, repos=("bank", "garden"), count=10)
    second = PocketStream(seed=3, repos=("bank", "garden"), count=5, start=5)
    ids = [t.id for t in whole.tasks()]
    assert [t.id for t in second.tasks()] == ids[10:]


@pytest.mark.parametrize("seed", [0, 1])
def test_splits_share_no_function(seed: int) -> None:
    names: dict[Split, set[str]] = {}
    for split in Split:
        stream = PocketStream(seed=seed, count=30, split=split)
        names[split] = {f.name for e in stream._entries.values() for f in e.problem.module.functions}
        assert all(split_of(name) is split for name in names[split])
    assert not names[Split.STREAM] & names[Split.HELD_OUT]
    assert not names[Split.PRETRAIN] & (names[Split.STREAM] | names[Split.HELD_OUT])


def test_a_task_costs_milliseconds() -> None:
    began = time.monotonic()
    stream = PocketStream(seed=77, count=25)
    for task in stream.tasks():
        stream.checkout(task)
        stream.secret(task)
    assert (time.monotonic() - began) / 200 < 0.02


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda t: t.__name__)
def test_every_mutation_of_a_template_can_be_told_from_the_truth(template) -> None:  # type: ignore[no-untyped-def]
    told: set[tuple[str, int]] = set()
    wanted: set[tuple[str, int]] = set()
    for seed in range(12):
        rng = random.Random(seed)
        function = template(Namer(rng, Split.PRETRAIN, 0.3))
        module = Module("pkg", "mod", (*function.needs, function), None)
        execute(module, module.source())
        for number, mutation in enumerate(function.mutations):
            assert mutation.kind in BASE_SKILLS
            wanted.add((mutation.kind, number))
            problem = build_problem(rng, module, function, mutation)
            if problem is not None:
                told.add((mutation.kind, number))
                assert problem.before != problem.after
                assert f"`{function.name}`" in problem.symptom
    assert told == wanted


def test_secrets_do_not_show_themselves(stream: PocketStream) -> None:
    secret = stream.secret(stream.tasks()[0])
    for text in (repr(secret), str(secret), f"{secret}"):
        assert secret.fix.after not in text
        assert not any(test in text for test in secret.fail_to_pass)


def test_an_unknown_repository_is_named() -> None:
    with pytest.raises(EvalError, match="no pocket repository 'atlantis'; there are bank"):
        PocketStream(repos=("atlantis",))
