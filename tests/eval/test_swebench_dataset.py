"""SWE-Bench-CL files: nothing that solves a task is in a `Task`, and what is wrong with a file is told by task and field."""

from __future__ import annotations

import copy
import itertools
import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import rich.pretty
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eval.errors import EvalError
from eval.swebench.dataset import LARGEST, PUBLISHED, Base, Contents, Dataset, Order, read
from eval.swebench.schema import DIFFICULTIES
from memory.tasks import Task

DATA = Path(os.environ.get("SLEEPYD_DATA", Path(__file__).parents[3] / "shared" / "data")) / "swe-bench-cl.json"
SECRET = "what-nobody-may-see"
SCORES = {"acme/lathe": (1, 1, 2), "acme/mill": (1, 2, 3, 4)}
here = settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def row(repo: str, number: int, score: int) -> dict[str, Any]:
    """A task; the later in its sequence, the older, so that the two orders differ."""
    made = datetime(2020, 1, 1, tzinfo=UTC) - timedelta(days=number, hours=len(repo))
    return {
        "metadata": {
            "instance_id": f"{repo.replace('/', '__')}-{number}",
            "repo": repo,
            "base_commit": f"{number:040x}",
            "created_at": made.isoformat(),
            "difficulty": DIFFICULTIES[score - 1],
            "version": "1.0",
        },
        "task": {"problem_statement": f"part {number} does not fit", "hints_text": f"hint {SECRET}"},
        "evaluation": {
            "patch": f"diff --git a/{SECRET}.py b/{SECRET}.py\n",
            "test_patch": f"diff --git a/tests/{SECRET}.py b/tests/{SECRET}.py\n",
            "FAIL_TO_PASS": [f"test_{SECRET}"],
            "PASS_TO_PASS": [f"test_other_{SECRET}"],
        },
        "continual_learning": {
            "sequence_position": number,
            "difficulty_score": score,
            "dependencies": [f"depends-{SECRET}"],
            "modified_files": [f"{SECRET}.py"],
        },
    }


def whole(scores: dict[str, tuple[int, ...]] | None = None) -> dict[str, Any]:
    sequences = [
        {
            "id": f"{repo.replace('/', '_')}_sequence",
            "repo": repo,
            "num_tasks": len(each),
            "statistics": {"difficulty_distribution": {str(s): each.count(s) for s in sorted(set(each))}},
            "tasks": [row(repo, number, score) for number, score in enumerate(each, 1)],
        }
        for repo, each in (SCORES if scores is None else scores).items()
    ]
    count = sum(len(s["tasks"]) for s in sequences)
    about = {"name": "Made", "version": "1.0.0", "num_sequences": len(sequences), "total_tasks": count}
    return {"metadata": about, "evaluation_metrics": {}, "sequences": sequences}


def written(folder: Path, content: object) -> Path:
    path = folder / "tasks.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def refused(folder: Path, content: object) -> str:
    with pytest.raises(EvalError) as error:
        read(written(folder, content))
    assert SECRET not in str(error.value)
    assert error.value.__context__ is None or isinstance(error.value.__context__, OSError)  # it would quote the file
    return str(error.value)


@pytest.fixture
def made(tmp_path: Path) -> Dataset:
    return read(written(tmp_path, whole()))


# What the agent may see


def test_a_task_holds_nothing_that_solves_or_decides_it(made: Dataset) -> None:
    tasks = made.tasks()
    assert len(tasks) == 7
    assert SECRET not in "".join(task.model_dump_json() + repr(task) for task in tasks)
    assert set(json.loads(tasks[0].model_dump_json())) == set(Task.model_fields)
    assert tasks[0].issue == "part 1 does not fit"
    assert tasks[0].dependencies == ()  # they are read off the gold patches


def test_the_secret_has_it_all_and_shows_nothing(made: Dataset) -> None:
    secret = made.secret("acme__lathe-1")
    assert secret.fail_to_pass == (f"test_{SECRET}",)
    assert secret.pass_to_pass == (f"test_other_{SECRET}",)
    assert all(SECRET in text for text in (secret.patch, secret.test_patch, secret.hints, *secret.modified_files))
    assert secret.dependencies == (f"depends-{SECRET}",)
    shown = f"{secret} {secret!r} {rich.pretty.pretty_repr(secret)} {made!r} {rich.pretty.pretty_repr(made.__dict__)}"
    assert "acme__lathe-1" in shown
    assert SECRET not in shown


def test_a_task_starts_from_its_commit_and_the_authors_file_has_no_version(made: Dataset, tmp_path: Path) -> None:
    assert made.base("acme__mill-2") == Base("2".zfill(40), "1.0")
    content = whole()
    for each in content["sequences"][1]["tasks"]:
        del each["metadata"]["version"]
    assert read(written(tmp_path, content)).base("acme__mill-2").version is None


# Order and choice


def test_the_dataset_order_is_the_files_and_positions_count_from_zero(made: Dataset) -> None:
    tasks = made.tasks(order=Order.DATASET)
    assert [t.id for t in tasks] == [f"acme__{r}-{i}" for r, n in (("lathe", 3), ("mill", 4)) for i in range(1, n + 1)]
    assert [t.position for t in tasks] == list(range(7))


def test_the_chronological_order_is_by_date_across_sequences(made: Dataset) -> None:
    tasks = made.tasks(order=Order("chronological"))
    assert [t.id for t in tasks] == [f"acme__{r}" for r in "mill-4 lathe-3 mill-3 lathe-2 mill-2 lathe-1 mill-1".split()]
    assert [t.position for t in tasks] == list(range(7))
    assert all(a.created_at < b.created_at for a, b in itertools.pairwise(tasks))


def test_dates_are_compared_as_moments_and_equal_ones_by_id(tmp_path: Path) -> None:
    content = whole({"acme/lathe": (1, 1, 1)})
    dates = ("2020-01-01T01:00:00+01:00", "2020-01-01T00:30:00Z", "2020-01-01T00:00:00+00:00")
    for each, date in zip(content["sequences"][0]["tasks"], dates, strict=True):
        each["metadata"]["created_at"] = date
    tasks = read(written(tmp_path, content)).tasks(order=Order.CHRONOLOGICAL)
    assert [t.id[-1] for t in tasks] == ["1", "3", "2"]
    assert {t.created_at.tzinfo for t in tasks} == {UTC}


def test_repositories_are_chosen_by_either_name_and_counted(made: Dataset) -> None:
    assert {t.repo for t in made.tasks(["mill"])} == {t.repo for t in made.tasks(["acme/mill"])} == {"acme/mill"}
    assert [t.position for t in made.tasks(["mill"])] == [0, 1, 2, 3]
    assert made.contents()[1] == Contents("acme_mill_sequence", "acme/mill", 4, easy=1, medium=1, hard=2)
    for ask in (lambda: made.tasks(["saw"]), lambda: made.secret("acme__saw-1"), lambda: made.base("acme__saw-1")):
        with pytest.raises(EvalError, match=r"no (repository|task) '(acme__)?saw"):
            ask()


# Files that are not sound


def fields(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield (*path, key)
        yield from fields(inner, (*path, key))


FIELDS = [path for path in fields(row("acme/mill", 3, 1)) if path[-1] != "version"]


WRONG = {"missing": ..., "null": None, "number": 7.5, "object": {"x": SECRET}, "empty": ""}
BROKEN = [(path, wrong) for path in FIELDS for wrong in WRONG if (path[-1], wrong) != ("hints_text", "empty")]  # may be


@pytest.mark.parametrize(("path", "wrong"), BROKEN, ids=[f"{'.'.join(path)} {wrong}" for path, wrong in BROKEN])
def test_a_malformed_field_is_told_with_its_task(path: tuple[str, ...], wrong: str, tmp_path: Path) -> None:
    content = whole()
    place = content["sequences"][1]["tasks"][2]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = WRONG[wrong]
    if wrong == "missing":
        del place[path[-1]]
    text = refused(tmp_path, content)
    named = path not in (("metadata",), ("metadata", "instance_id"))
    assert f"{'acme__mill-3 (no. 3' if named else 'no. 3'} of sequence no. 2" in text
    assert ".".join(path) in text


def change(*path: str | int, to: object) -> Callable[[dict[str, Any]], None]:
    def apply(content: dict[str, Any]) -> None:
        place: Any = content
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = to

    return apply


def drop_a_task(content: dict[str, Any]) -> None:
    del content["sequences"][1]["tasks"][-1]


def drop_a_sequence(content: dict[str, Any]) -> None:
    del content["sequences"][1]


def twice_the_same_task(content: dict[str, Any]) -> None:
    content["sequences"][1]["tasks"][1]["metadata"]["instance_id"] = "ACME__lathe-2"


def twice_the_same_sequence(content: dict[str, Any]) -> None:
    content["sequences"][1] = copy.deepcopy(content["sequences"][0])


TASK = ("sequences", 1, "tasks", 2)
FAULTS = [
    (drop_a_task, r"metadata.total_tasks is 7, but there are 6.*sequence no. 2: num_tasks is 4, but there are 3"),
    (drop_a_sequence, "metadata.num_sequences is 2, but there are 1"),
    (twice_the_same_task, "task ACME__lathe-2: metadata.instance_id: another task has it"),
    (twice_the_same_sequence, "sequence no. 2: repo: acme/lathe has a sequence already"),
    (change(*TASK, "continual_learning", "sequence_position", to=2), "mill-3: .*sequence_position is 2, but it is no. 3"),
    (change(*TASK, "continual_learning", "difficulty_score", to=4), "mill-3: continual_learning.difficulty_score 4"),
    (change(*TASK, "continual_learning", "dependencies", to=["acme__mill-3"]), "mill-3: .*dependencies: it names itself"),
    (change(*TASK, "metadata", "repo", to="acme/saw"), "mill-3: metadata.repo is acme/saw, but the sequence is of acme/mill"),
    (change(*TASK, "metadata", "instance_id", to="../../etc"), r"\.\./\.\./etc .*metadata.instance_id: .*pattern"),
    (change(*TASK, "metadata", "base_commit", to="--upload-pack=x"), "mill-3 .*metadata.base_commit: .*pattern"),
    (change(*TASK, "metadata", "created_at", to="2020-01-01T00:00:00"), "mill-3 .*metadata.created_at: .*timezone"),
    (change(*TASK, "metadata", "difficulty", to="hard"), "mill-3 .*metadata.difficulty: .*<15 min fix"),
    (change(*TASK, "metadata", "version", to="1/../.."), "mill-3 .*metadata.version: .*pattern"),
    (change(*TASK, "evaluation", "FAIL_TO_PASS", to=[]), "mill-3 .*evaluation.FAIL_TO_PASS: .*at least 1"),
    (change(*TASK, "evaluation", "FAIL_TO_PASS", to=f'["{SECRET}"]'), "mill-3 .*evaluation.FAIL_TO_PASS: .*array"),
    (change(*TASK, "evaluation", "PASS_TO_PASS", to=[f"test_{SECRET}"]), "mill-3 .*evaluation: .*listed twice"),
    (change(*TASK, "solution", to=SECRET), "mill-3 .*solution: Extra inputs"),
    (change("sequences", 1, "statistics", "difficulty_distribution", to={"1": 4}), "sequence no. 2: .*difficulty_distribution"),
    (change("sequences", 1, "num_tasks", to=10**400), "sequence no. 2: num_tasks"),
    (change("metadata", "version", to="2.0"), "file: metadata.version"),
    (change("sequences", to=[]), "file: sequences: there are none"),
    (change("sequences", 1, "tasks", to=[]), "one without tasks"),
    (change("sequences", 1, "tasks", to=None), "sequence no. 2: tasks"),
]


@pytest.mark.parametrize(("fault", "says"), FAULTS, ids=[says[:40] for _, says in FAULTS])
def test_a_file_at_odds_with_itself_is_told_where(fault: Callable[[dict[str, Any]], None], says: str, tmp_path: Path) -> None:
    content = whole()
    fault(content)
    text = refused(tmp_path, content)
    with pytest.raises(EvalError, match=says):
        raise EvalError(text)


@here
@given(st.integers(min_value=0, max_value=len(json.dumps(whole())) - 1))
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, length: int) -> None:
    assert "cut short or no JSON" in refused(tmp_path, json.dumps(whole()).encode()[:length])


OTHER_SCHEMAS = [
    b"[]",
    b"null",
    b'"x"',
    b"{}",
    b'[{"instance_id": "a-1", "patch": "' + SECRET.encode() + b'"}]',
    b"\xff\xfe",
    b"[" * 10**6,
]


@pytest.mark.parametrize("content", OTHER_SCHEMAS, ids=range(len(OTHER_SCHEMAS)))
def test_a_file_of_another_schema_is_refused(tmp_path: Path, content: bytes) -> None:
    assert "no sound SWE-Bench-CL file (schema 1.x)" in refused(tmp_path, content)


def test_many_faults_are_counted_not_all_told(tmp_path: Path) -> None:
    content = whole()
    for sequence in content["sequences"]:
        for each in sequence["tasks"]:
            del each["evaluation"]
    text = refused(tmp_path, content)
    assert text.count("Field required") == 5
    assert "and 2 more" in text


def test_control_characters_of_a_file_reach_no_terminal(tmp_path: Path) -> None:
    content = whole()
    content["sequences"][0]["tasks"][0]["metadata"]["instance_id"] = "\x1b[2J\n"
    content["sequences"][0]["tasks"][0]["\x1b[2J"] = 1
    assert refused(tmp_path, content).isprintable()


def test_a_missing_or_monstrous_file_is_refused_unread(tmp_path: Path) -> None:
    with pytest.raises(EvalError, match=r"No such file.*data fetch swe-bench-cl"):
        read(tmp_path / "nothing.json")
    monster = tmp_path / "monster.json"
    with monster.open("wb") as file:
        file.truncate(LARGEST + 1)
    with pytest.raises(EvalError, match="too many"):
        read(monster)


@here
@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,8}/[a-z]{1,8}", fullmatch=True), st.lists(st.integers(1, 4), min_size=1, max_size=5)
    )
)
def test_every_sound_file_is_read_whole_in_both_orders(tmp_path: Path, scores: dict[str, list[int]]) -> None:
    if not scores:
        return
    made = read(written(tmp_path, whole({repo: tuple(each) for repo, each in scores.items()})))
    there, sorted_ = made.tasks(), made.tasks(order=Order.CHRONOLOGICAL)
    assert {t.id for t in there} == {t.id for t in sorted_}
    assert len(there) == sum(map(len, scores.values())) == sum(c.tasks for c in made.contents())
    assert [c.easy + c.medium + c.hard for c in made.contents()] == [len(each) for each in scores.values()]
    assert [t.created_at for t in sorted_] == sorted(t.created_at for t in there)


# The benchmark itself


@pytest.fixture(scope="module")
def real() -> Dataset:
    if not DATA.is_file():
        pytest.skip(f"needs {DATA} (SLEEPYD_DATA names another folder); the project may not carry benchmark data")
    return read(DATA)


def test_the_table_of_contents_is_the_published_one(real: Dataset) -> None:
    assert real.contents() == PUBLISHED
    assert len(real.tasks()) == len({t.id for t in real.tasks()}) == 273
    assert [c.tasks for c in PUBLISHED] == [50, 50, 44, 34, 32, 22, 22, 19]


def test_the_dataset_order_is_difficulty_first_date_second(real: Dataset) -> None:
    for repo in real.repos:
        tasks = real.tasks([repo])
        assert tasks == sorted(tasks, key=lambda t: (DIFFICULTIES.index(t.difficulty), t.created_at))
    assert real.tasks(["sympy"]) != real.tasks(["sympy"], Order.CHRONOLOGICAL)


def test_no_secret_of_the_benchmark_is_in_its_tasks(real: Dataset) -> None:
    leaks: list[str] = []  # ids, so that a failure prints no benchmark text
    for task in real.tasks():
        secret, seen = real.secret(task.id), task.model_dump_json()
        hidden = [secret.patch, secret.test_patch, *(text for text in [secret.hints] if len(text) > 80)]
        leaks += [task.id for text in hidden if json.dumps(text)[1:-1] in seen or json.dumps(text.strip())[1:-1] in seen]
    assert leaks == []
