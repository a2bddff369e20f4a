"""Guards as the gate sees them: the base skills, which guards apply, whom an item examines, in which order."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from agent.errors import SandboxError
from agent.model import Completion, Message, Sampling, Speech
from agent.models.scripted import ScriptedModel
from agent.sandbox.base import Sandbox
from agent.sandbox.ladder import probe
from agent.turns import render_call
from agent.workspace import Workspace
from consolidation.guards import Answer, Guard, Routes
from consolidation.synthesis.merged_fix import calls_for
from eval.errors import EvalError
from eval.exams import at_seat, seat_of, seats, stratified, summarise
from eval.guards import BaseSkillGuard
from eval.open_guards import GuardConfig, open_guards
from eval.play import Player

REPOS = ("bank", "garden")
GOOD, HASTY = Path("good"), Path("hasty")


class Skilled(ScriptedModel):
    """Knows the fixes of a guard's tasks; the adapter `hasty` submits them untested, `lost` changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.adapter = ""
        self.lines: dict[str, list[str]] = {}
        self.batches: list[int] = []

    @property
    def fingerprint(self) -> str:
        return f"skilled{self.adapter}"

    def use(self, adapter: Path | None) -> None:
        self.adapter = adapter.name if adapter else ""

    def learn(self, guard: BaseSkillGuard) -> None:
        for task in guard.tasks:
            calls = calls_for(guard.stream.merged_fix(task))
            self.lines[task.issue] = [render_call(call) for call in calls]

    def complete(
        self, conversations: Sequence[Sequence[Message]], sampling: Sampling, keys: Sequence[str] = ()
    ) -> list[Completion]:
        self.batches.append(len(conversations))
        answers = []
        for messages in conversations:
            script = self.lines[messages[0].content.partition("\n")[2]]
            script = {"hasty": [*script[:3], "submit"], "lost": [*script[:2], "what now?", "submit"]}.get(self.adapter, script)
            answers.append(Completion(script[sum(m.role == "assistant" for m in messages)], 0, 0))
        return answers


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return probe(trusted_generated=True)


@pytest.fixture
def guard(sandbox: Sandbox) -> BaseSkillGuard:
    model = Skilled()
    made = BaseSkillGuard(Player(model, sandbox), REPOS, count=8, seed=5)
    model.learn(made)
    return made


def test_every_beginning_of_the_items_has_all_repositories(sandbox: Sandbox) -> None:
    guard = BaseSkillGuard(Player(Skilled(), sandbox), REPOS, count=40, seed=5)
    items = list(guard.items({}))
    assert len(set(items)) == 40
    assert set(items) < guard.held_out
    assert items == list(BaseSkillGuard(guard.player, REPOS, 40, 5).items({})), "the order is the seed's"
    assert items != [task.id for task in guard.tasks]
    early = Counter(item.split("-")[0] for item in items[:12])
    assert min(early[repo] for repo in REPOS) >= 4
    assert len({guard.category(item) for item in items}) > 1


def test_an_adapter_from_outside_is_examined_in_all_repositories_and_each_only_once(guard: BaseSkillGuard) -> None:
    own = list(guard.items({}))
    bank = guard.items({"bank": GOOD})
    assert len(bank) == len(own), "where it serves, and nowhere else, lest ties hide what it does"
    assert all(task.startswith("bank") for task in bank)
    assert list(guard.items({"*": GOOD})) == own
    outside = guard.items({"a/b": GOOD, "a/c": GOOD, "a/d": HASTY})
    assert sorted(outside) == sorted(f"{repo}:{task}" for repo in ("a/b", "a/d") for task in own)
    both = guard.items({"a/b": GOOD, "bank": HASTY})
    assert sorted(both) == sorted([*bank, *(f"a/b:{task}" for task in own)])
    assert {guard.repo(item) for item in both} == {"bank", "a/b"}
    assert guard.category(both[0]) == guard.category(both[0].rpartition(":")[2])


def test_answers_tell_what_was_done_by_what_is_served_there(guard: BaseSkillGuard) -> None:
    model = guard.player.model
    assert isinstance(model, Skilled)
    items = guard.items({})
    base = guard.answer(items, {})
    assert list(base) == list(items)
    assert model.batches == [8] * 5, "all tasks are played at once"
    assert {answer.score for answer in base.values()} == {1.0}
    assert {(a.facts["steps"], a.facts["tests"], a.facts["edits"], a.facts["untested"]) for a in base.values()} == {
        (5, 1, 1, 0)
    }
    routed = guard.answer(items, {"bank": HASTY})
    assert all(routed[i].facts["untested"] == i.startswith("bank") for i in items)
    assert all((routed[i].said == base[i].said) != i.startswith("bank") for i in items)
    everywhere = guard.answer(items, {"*": Path("lost"), "bank": HASTY})
    assert {i: everywhere[i].score for i in items} == {i: float(i.startswith("bank")) for i in items}
    assert all(everywhere[i].facts["malformed"] == 1 for i in items if i.startswith("garden"))


def test_the_same_task_of_the_same_artefact_is_played_once(guard: BaseSkillGuard) -> None:
    model = guard.player.model
    assert isinstance(model, Skilled)
    routes = {"a/b": HASTY, "bank": GOOD}
    items = list(guard.items(routes))
    assert len(items) == 16
    base = guard.answer(items, {})
    assert sum(model.batches) == 5 * len({item.rpartition(":")[2] for item in items}) < 5 * 16
    candidate = guard.answer(items, routes)
    assert all(candidate[i].facts["untested"] == i.startswith("a/b:") for i in items)
    assert all(answer.facts["untested"] == 0 for answer in base.values())


def test_what_was_lost_to_the_infrastructure_is_no_answer(guard: BaseSkillGuard) -> None:
    class Broken:
        name = "broken"

        def run(self, argv: Sequence[str], workspace: Workspace, limits: object) -> object:
            raise SandboxError("no bwrap")

    model = guard.player.model
    broken = BaseSkillGuard(Player(model, Broken()), REPOS, count=2, seed=5)  # type: ignore[arg-type]
    assert isinstance(model, Skilled)
    model.learn(broken)
    with pytest.raises(EvalError, match="no bwrap"):
        broken.answer(broken.items({}), {})
    with pytest.raises(EvalError, match="no item 'bank-1'"):
        guard.answer(["bank-1"], {})


def test_digests_are_the_exams_and_not_the_candidates(guard: BaseSkillGuard) -> None:
    model, sandbox = guard.player.model, guard.player.sandbox
    model.use(GOOD)
    digest = BaseSkillGuard(Player(model, sandbox), REPOS, 8, 5).digest
    assert digest == guard.digest
    other = [BaseSkillGuard(Player(model, sandbox), REPOS, 8, 6), BaseSkillGuard(Player(ScriptedModel(), sandbox), REPOS, 8, 5)]
    assert len({digest, *(one.digest for one in other)}) == 3


@pytest.mark.parametrize(
    ("routes", "expected"),
    [
        ({}, ("",)),
        ({"*": GOOD}, ("",)),
        ({"b": GOOD, "a": GOOD, "c": HASTY}, ("a", "c")),
        ({"a": HASTY, "*": GOOD, "b": GOOD}, ("", "a")),
    ],
)
def test_every_adapter_has_one_seat(routes: Routes, expected: tuple[str, ...]) -> None:
    assert seats(routes) == expected
    assert [seat_of(at_seat(seat, "q#1")) for seat in expected] == [(seat, "q#1") for seat in expected]


def test_every_beginning_of_a_stratified_order_has_the_shares_of_the_whole() -> None:
    items = [("rare", i) for i in range(10)] + [("common", i) for i in range(90)]
    ordered = stratified(items, lambda item: item[0], 1)
    assert sorted(ordered) == sorted(items)
    for n in (20, 50, 80):
        assert abs(sum(kind == "rare" for kind, _ in ordered[:n]) - n / 10) <= 1
    assert ordered != stratified(items, lambda item: item[0], 2)


class Speaking(ScriptedModel):
    def __init__(self, speaks: Speech) -> None:
        super().__init__(speaks=speaks)


def test_a_terse_model_is_examined_in_the_pocket_world_and_any_other_on_what_is_at_hand(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    try:
        probe(trusted_generated=False)
    except SandboxError as error:
        pytest.skip(str(error))
    pocket = open_guards(GuardConfig(tasks=8), Player(Speaking("terse"), sandbox), tmp_path, REPOS)
    assert [guard.name for guard in pocket.guards] == ["base_skills", "tool_format"]
    assert pocket.left_out == ()
    bare = open_guards(GuardConfig(), Player(Speaking("text"), sandbox), tmp_path, REPOS)
    assert [guard.name for guard in bare.guards] == ["tool_format"]
    assert ["sleepyctl data fetch" in why for why in bare.left_out] == [True, True]
    (tmp_path / "HumanEval.jsonl.gz").write_bytes(b"")
    (tmp_path / "sanitized-mbpp.json").write_bytes(b"")
    whole = open_guards(GuardConfig(), Player(Speaking("native"), sandbox), tmp_path, REPOS)
    assert [(guard.name, guard.claim, guard.role) for guard in whole.guards] == [
        ("humaneval", "code", "capability"),
        ("mbpp", "code", "capability"),
        ("tool_format", "tool_format", "format"),
    ]
    with pytest.raises(EvalError, match="no guard 'mbpp' here; there are tool_format; humaneval: no file"):
        bare.named("mbpp")
    held: Guard = whole.named("mbpp")
    with pytest.raises(EvalError, match="no item was asked"):
        summarise(held, {})
    assert summarise(held, {"a": Answer(score=1, said=""), "b": Answer(score=0, said="")}).score == 0.5
