"""Attempts to make pairs of: played for real on pocket tasks, or written by hand; and what holds of all pairs."""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from typing import Any, get_args

from agent.errors import CallError
from agent.model import Completion, Message, Sampling
from agent.models.scripted import ScriptedModel
from agent.sandbox.ladder import probe
from agent.session import NOT_DONE
from agent.turns import Call, parse_call, parse_full, render_call, render_full, render_issue
from consolidation.pairs import Format, Pair
from consolidation.synthesis.merged_fix import calls_for
from consolidation.synthesis.offline import OfflineSynthesiser
from consolidation.synthesis.seam import Lived
from eval.experience import lived_of_day
from eval.play import Player
from eval.pocket.stream import PocketStream
from memory.tasks import MergedFix, Task
from memory.trajectories import Outcome, Step, Trajectory
from tests.eval.gold import ByIssue

FORMATS: tuple[Format, ...] = get_args(Format)
OFFLINE = OfflineSynthesiser()
STREAM = PocketStream(seed=4, repos=("bank", "garden"), count=3)


class Erring(ScriptedModel):
    """Returns 0 where the mended lines should be, tests, and submits; on some tasks knows the fix."""

    def __init__(self, fixes: dict[str, MergedFix], known: set[str]) -> None:
        super().__init__()
        self.scripts = {issue: self._script(fix, issue in known) for issue, fix in fixes.items()}

    @staticmethod
    def _script(fix: MergedFix, known: bool) -> list[str]:
        calls = calls_for(fix)
        right = calls[2]
        old = fix.before.splitlines()[(right.start or 1) - 1 : right.end]
        body = "\n".join(f"{re.match(r' *', line).group()}return 0" for line in old)  # type: ignore[union-attr]
        wrong = replace(right, body=body)
        return [render_call(call) for call in (calls if known else [*calls[:2], wrong, *calls[3:]])]

    def complete(
        self, conversations: Sequence[Sequence[Message]], sampling: Sampling, keys: Sequence[str] = ()
    ) -> list[Completion]:
        scripts = [self.scripts[messages[0].content.partition("\n")[2]] for messages in conversations]
        turns = [sum(m.role == "assistant" for m in messages) for messages in conversations]
        return [Completion(script[turn], 0, 0) for script, turn in zip(scripts, turns, strict=True)]


@cache
def day() -> tuple[Lived, ...]:
    """Two own successes, and the merged fixes of tasks at which an own attempt failed."""
    fixes = {task.issue: STREAM.merged_fix(task) for task in STREAM.tasks()}
    sandbox = probe(trusted_generated=True)
    model = Erring(fixes, {task.issue for task in STREAM.tasks()[:2]})
    played = list(Player(model, sandbox).play(STREAM, STREAM.tasks()))
    lived = tuple(lived_of_day(STREAM, played, sandbox, merged_fixes=True))
    assert [one.source for one in lived].count("agent") == 2
    return lived


@cache
def told() -> Lived:
    """An own success in the full protocol with a detour, and a failure that made only the wrong change."""
    stream = PocketStream(seed=4, repos=("bank",), count=1)
    (task, *_) = stream.tasks()
    fix = stream.merged_fix(task)
    right = calls_for(fix)[2]
    wrong = replace(right, body="        return 0")
    end = [Call("test"), Call("submit"), Call("submit")]
    look = [Call("map"), Call("search", fix.symbol), Call("search", "nowhere_at_all"), Call("view", fix.path)]
    plays = []
    for calls in ([*look, wrong, Call("test"), Call("undo"), right, *end], [*look[1:2], *look[3:], wrong, *end]):
        said = [f"I go on.\n\n{render_full(call)}" for call in calls]
        player = Player(ByIssue({task.issue: said}), probe(trusted_generated=True))
        budget = player.budget.model_copy(update={"steps": 20, "tokens": 10**6, "seconds": 300.0})
        plays += list(replace(player, budget=budget).play(stream, [task]))
    assert [play.outcome for play in plays] == [Outcome.RESOLVED, Outcome.UNRESOLVED]
    return Lived(task, plays[0], "agent", (plays[1],))


def everything() -> list[Lived]:
    return [*day(), told()]


def read(lived: Lived, said: str) -> Call:
    return parse_full(said) if lived.taught.system else parse_call(said)


def taught_by(pair: Pair) -> list[str]:
    said = [text for role, text in pair.messages if role == "assistant"]
    return [text for turn, text in enumerate(said) if turn not in pair.untaught]


def check(lived: Lived, how: Format, pairs: Sequence[Pair]) -> None:
    """What holds of all pairs of all formats."""
    done = {
        read(lived, step.said)
        for step in lived.taught.steps
        if not step.malformed and not step.observation.startswith(NOT_DONE) and call_in(step.said, bool(lived.taught.system))
    }
    for pair in pairs:
        assert (pair.task_id, pair.repo, pair.trajectory_id) == (lived.taught.task_id, lived.taught.repo, lived.taught.id)
        assert (pair.source, pair.format, pair.made_by) == (lived.source, how, OFFLINE.name)
        assert taught_by(pair)
        assert all(read(lived, said) in done for said in taught_by(pair))
        assert [role == "system" for role, _ in pair.messages[:1]] == [bool(lived.taught.system)]
        assert bool(pair.rejected) is (how == "C")
        if how in "ABCD":
            assert len(taught_by(pair)) == 1
            assert pair.messages[-1] == ("assistant", taught_by(pair)[0]) != ("assistant", pair.rejected)
    assert len({pair.content for pair in pairs}) == len(pairs)


def call_in(said: str, full: bool) -> Call | None:
    try:
        return parse_full(said) if full else parse_call(said)
    except CallError:
        return None


FILE = "1|def f():\n2|    return 1\n3|\n4|def g():\n5|    return 2"
TASK = Task(id="t", repo="r", issue="`f` is wrong", created_at=datetime.now(UTC), position=0, difficulty="x")


def attempt(*turns: tuple[str, str] | tuple[str, str, Any], identity: str = "1", system: str = "") -> Trajectory:
    """Turns as (what was said, what it showed[, whether tests passed]); `bad` is shown for what was refused.

    Of what is no call it is claimed that it was the tool that its first word names, as a hostile record might.
    """
    steps = []
    for number, (said, observation, *passed) in enumerate(turns):
        call = call_in(said, bool(system))
        tool = call.tool if call is not None else next(iter(said.split()), "malformed")
        refused = observation == "bad"
        steps.append(
            Step(
                number=number,
                said=said,
                observation=observation,
                tool="malformed" if refused else tool,
                malformed=refused,
                tests_passed=passed[0] if passed else None,
            )
        )
    return Trajectory(
        id=identity,
        task_id="t",
        repo="r",
        prompt=render_issue("r", TASK.issue),
        system=system,
        model="m",
        started_at=datetime.now(UTC),
        config_hash="",
        steps=steps,
    )


SUCCESS = attempt(
    ("search f", "m.py:1: def f():"),
    ("view m.py", FILE),
    ("edit m.py 2\n    return 7", "now\n2|    return 7"),
    ("test", "0 failed, 1 passed", True),
    ("submit", ""),
)
WRONG = ("edit m.py 2\n    return 0", "now\n2|    return 0")
ELSEWHERE = ("edit m.py 5\n    return 0", "now\n5|    return 0")
FAILS = ("test", "FAILED test_f: f() == 7 but was 0\n1 failed", False)
LOOK = (("view m.py", FILE),)
