"""The gate: it must never let a regression through, promote on thin evidence, or judge what is not served."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.errors import ModelUnavailable
from consolidation.adapters import artefact_hash
from consolidation.answers import Answers, artefact_key, artefacts
from consolidation.claims import interleaved
from consolidation.errors import ConsolidationError
from consolidation.gate import Gate, GateConfig, Look, Paired, Ruling, judge, pair_up
from consolidation.gate_config import FormatTolerance
from consolidation.guards import Answer, Routes
from consolidation.sequential import Decision
from memory.nights import Verdict
from tests.consolidation.exam import BASE, WEIGHTS, Written, adapter, losing, right

CONFIG = GateConfig()


def results(n: int, base: int, lost: int, gained: int) -> Paired:
    return Paired(n=n, base=base, candidate=base - lost + gained, lost=lost, gained=gained)


def ruled(tmp_path: Path, *guards: Written, speaks: str = "night", config: GateConfig = CONFIG) -> Ruling:
    return Gate(config).judge(guards, adapter(tmp_path / "adapter", speaks), Answers(tmp_path / "answers"))


def test_pairing_counts_by_task() -> None:
    base = {"a": True, "b": True, "c": False, "d": False}
    candidate = {"a": True, "b": False, "c": True, "d": False}
    assert pair_up(base, candidate) == Paired(n=4, base=2, candidate=2, lost=1, gained=1)


@pytest.mark.parametrize(("base", "candidate"), [({"a": True}, {"b": True}), ({"a": True}, {}), ({}, {})])
def test_different_tasks_are_never_compared(base: dict[str, bool], candidate: dict[str, bool]) -> None:
    with pytest.raises(ConsolidationError, match="same tasks"):
        pair_up(base, candidate)


def test_bonett_price_by_hand() -> None:
    # n = 98, lost 7, gained 1: p = 8/100 and 2/100, difference 0.06, error sqrt((0.10 - 0.0036) / 100)
    error = (0.0964 / 100) ** 0.5
    assert results(98, 60, 7, 1).interval() == pytest.approx((-0.06 - 1.959964 * error, -0.06 + 1.959964 * error), abs=1e-6)


@pytest.mark.parametrize(
    ("paired", "decision"),
    [
        (results(120, 100, 0, 0), Decision.ACCEPTED),
        (results(120, 100, 0, 10), Decision.ACCEPTED),
        (results(591, 500, 30, 30), Decision.ACCEPTED),
        (results(120, 100, 2, 2), Decision.UNDECIDED),
        (results(300, 200, 24, 24), Decision.UNDECIDED),
        (results(60, 30, 0, 0), Decision.UNDECIDED),
        (results(120, 100, 6, 2), Decision.REJECTED),
        (results(120, 100, 100, 0), Decision.REJECTED),
        (results(591, 500, 5, 0), Decision.REJECTED),
    ],
)
def test_what_is_promoted_of_results_that_are_all_there(paired: Paired, decision: Decision) -> None:
    verdict = judge({"base_skills": paired}, CONFIG, differs=True)
    assert verdict.promoted is (decision == Decision.ACCEPTED)
    assert verdict.numbers["base_skills.decision"] == decision
    assert decision == Decision.ACCEPTED or decision.name.lower() in verdict.why
    assert verdict.numbers["base_skills.tasks"] == paired.n


def test_one_failed_guard_is_enough() -> None:
    verdict = judge({"good": results(200, 180, 0, 3), "bad": results(200, 180, 30, 0)}, CONFIG, differs=True)
    assert not verdict.promoted
    assert "bad" in verdict.why
    assert "good" not in verdict.why


def test_no_guard_no_effect_and_too_few_tasks_are_refused() -> None:
    assert not judge({}, CONFIG, differs=True).promoted
    assert "no effect" in judge({"g": results(200, 180, 0, 0)}, CONFIG, differs=False).why
    lax = GateConfig(margin=0.9, limit=0.95, chance=9)
    assert not judge({"g": results(39, 30, 0, 0)}, lax, differs=True).promoted
    assert judge({"g": results(40, 30, 0, 0)}, lax, differs=True).promoted


def test_a_real_regression_of_five_points_passes_at_most_rarely() -> None:
    """1,000 simulated examinations of a candidate that is truly 5.9 points worse (seeded)."""
    rng, passed = random.Random(0), 0
    for _ in range(1000):
        base = {str(i): rng.random() < 0.8 for i in range(591)}
        candidate = {task: rng.random() < (0.91 if right else 0.065) for task, right in base.items()}
        passed += judge({"g": pair_up(base, candidate)}, CONFIG, differs=True).promoted
    assert passed <= 10


# Over guards


def test_a_harmless_candidate_passes_before_everything_is_asked(tmp_path: Path) -> None:
    guard, looks = Written(losing(3), count=591), list[Look]()
    routes = adapter(tmp_path / "a", "night")
    ruling = Gate(CONFIG).judge([guard], routes, Answers(tmp_path), looks.append)
    assert ruling.verdict.promoted
    assert ruling.asked < 0.5 * 591
    assert guard.of(BASE) == guard.of("night")
    assert ruling.asked == len(guard.of("night")) == looks[-1].tasks == ruling.verdict.numbers["code.tasks"]
    assert looks[-1].bound < 0.05
    assert ruling.artefacts == {"shop": artefact_hash(routes["shop"])}


def test_a_harmful_candidate_is_stopped_early(tmp_path: Path) -> None:
    guard = Written(losing(*range(0, 591, 6)), count=591)
    ruling = ruled(tmp_path, guard)
    assert not ruling.verdict.promoted
    assert "rejected" in ruling.verdict.why
    assert ruling.asked < 0.5 * 591


def test_guards_of_one_claim_are_judged_together_and_in_proportion(tmp_path: Path) -> None:
    guards = [Written(losing(1), count=164, name="small"), Written(losing(1), count=427, name="large")]
    assert ruled(tmp_path, *guards).verdict.numbers["code.of"] == 591
    order = interleaved(guards, {}, 0)
    assert len(set(order)) == 591
    for done in (60, 180, 400):
        assert sum(name == "small" for name, _ in order[:done]) == pytest.approx(done * 164 / 591, abs=2)
        assert sum(guards[0].category(item) == "odd" for _, item in order[:done]) == pytest.approx(done / 2, abs=2)
    assert order != interleaved(guards, {}, 1)
    assert order == interleaved(guards, {}, 0)


def test_a_candidate_that_says_what_the_base_says_has_no_effect(tmp_path: Path) -> None:
    guard = Written(lambda who, item: Answer(score=1, said="the same"))
    ruling = ruled(tmp_path, guard)
    assert "no effect" in ruling.verdict.why
    assert len(guard.of("night")) == guard.count
    assert "no effect" in Gate(CONFIG).judge([guard], {}, Answers(tmp_path)).verdict.why


def test_an_effect_is_looked_for_beyond_the_early_end(tmp_path: Path) -> None:
    order = interleaved([Written()], {}, 0)
    last = int(order[-1][1].split("/")[1])
    guard = Written(lambda who, item: Answer(score=1, said=who if item == last else ""))
    assert ruled(tmp_path, guard).verdict.promoted
    assert len(guard.of("night")) == guard.count


def _raise(error: BaseException) -> None:
    raise error


def _not_finite(found: dict[str, Answer]) -> Mapping[str, Answer]:
    return {item: Answer.model_construct(score=math.nan, said="", facts={}, seconds=0.0) for item in found}


@pytest.mark.parametrize(
    ("guard", "why"),
    [
        (
            Written(on_answer=lambda call: _raise(OSError("the disk is full"))),
            "skills could not be held: OSError: the disk is full",
        ),
        (Written(spoil=lambda found: dict(list(found.items())[1:])), "where 40 were asked"),
        (Written(spoil=lambda found: found | {"another": right("x", 0)}), "another"),
        (Written(spoil=lambda found: {item[:-1] + "x": answer for item, answer in found.items()}), "first differences"),
        (Written(spoil=_not_finite), "not finite"),
        (
            Written(spoil=lambda found: {i: a.model_copy(update={"facts": {"steps": math.inf}}) for i, a in found.items()}),
            "finite",
        ),
        (Written(count=39), "only 39 items, at least 40"),
        (Written(count=0), "only 0 items"),
        (Written(count=60), "undecided"),
        (Written(role="format"), "no guard of a capability"),
    ],
)
def test_a_bad_examination_is_a_refusal_that_says_so(tmp_path: Path, guard: Written, why: str) -> None:
    ruling = ruled(tmp_path, guard, config=GateConfig(looks=5))
    assert not ruling.verdict.promoted
    assert why in ruling.verdict.why


def test_unclear_guards_are_refused(tmp_path: Path) -> None:
    assert ruled(tmp_path).verdict.why == "no guard was run"
    assert "same name" in ruled(tmp_path, Written(), Written()).verdict.why
    assert "different roles" in ruled(tmp_path, Written(), Written(name="other", role="format")).verdict.why
    twice = Written()
    twice.items = lambda routes: ["skills/1"] * 50  # type: ignore[method-assign]
    assert "twice" in ruled(tmp_path, twice).verdict.why


@pytest.mark.parametrize("call", [2, 4])
def test_an_adapter_that_is_swapped_while_it_is_examined_is_refused(tmp_path: Path, call: int) -> None:
    routes = adapter(tmp_path / "a", "night")

    def swap(number: int) -> None:
        if number == call:
            (routes["shop"] / WEIGHTS).write_text("other")

    guard, answers, key = Written(on_answer=swap), Answers(tmp_path), artefact_key(artefacts(routes))
    ruling = Gate(CONFIG).judge([guard], routes, answers)
    assert "changed while it was examined" in ruling.verdict.why
    assert not answers.known(guard.digest, key, guard.asked[call - 1][1])  # they are the other's


def test_a_missing_adapter_is_refused(tmp_path: Path) -> None:
    ruling = Gate(CONFIG).judge([Written()], {"shop": tmp_path / "nowhere"}, Answers(tmp_path))
    assert "train again" in ruling.verdict.why


# The other roles


def test_retention_and_behaviour_are_compared_with_what_is_live(tmp_path: Path) -> None:
    learnt = Written(
        lambda who, item: Answer(score=float(who == "before" or item % 2), said=who), 80, "learnt", "kept", "retention"
    )
    guards = [Written(losing(0)), learnt]
    candidate, live = adapter(tmp_path / "a", "night"), adapter(tmp_path / "b", "before")
    gate, answers = Gate(CONFIG), Answers(tmp_path)
    assert gate.judge(guards, candidate, answers).verdict.promoted
    forgets = gate.judge(guards, candidate, answers, live=live).verdict
    assert forgets.why.startswith("kept: rejected")


def test_half_right_answers_count_by_half_against_their_own_margin(tmp_path: Path) -> None:
    form = Written(
        lambda who, item: Answer(score=1 if who == BASE or item % 10 else 0.5, said=who), 200, "calls", "calls", "format"
    )
    ruling = ruled(tmp_path, Written(losing(0)), form, config=GateConfig(looks=1))
    assert ruling.verdict.numbers["calls.lost"] == 10
    assert ruling.verdict.numbers["calls.drop"] == 0.05
    lax = GateConfig(looks=1, format=FormatTolerance(margin=0.06, limit=0.2, chance=9))
    assert ruled(tmp_path, Written(losing(0)), form, config=lax).verdict.promoted


def test_behaviour_is_judged_in_the_gate(tmp_path: Path) -> None:
    def quick(who: str, item: int) -> Answer:
        return Answer(score=1, said=who, facts={"tests": 3.0 if who == BASE else 1.0, "edits": 3.0, "untested": 0.0})

    hasty = Written(quick, 60, "play", "work", "behaviour")
    ruling = ruled(tmp_path, Written(losing(0)), hasty)
    assert ruling.verdict.why.startswith("work: the tests run per edit fell")
    assert ruling.verdict.numbers["work.tests_now"] == 0.3333
    assert len(hasty.of("night")) == 60
    few = ruled(tmp_path, Written(losing(0)), Written(quick, 39, "play", "work", "behaviour"))
    assert few.verdict.promoted
    assert few.verdict.numbers["work.too_few"] == 1


def test_a_killed_examination_goes_on_where_it_stood(tmp_path: Path) -> None:
    routes, answers = adapter(tmp_path / "a", "night"), Answers(tmp_path)

    def stop(call: int) -> None:
        if call == 4:
            raise KeyboardInterrupt

    broken = Written(losing(3), on_answer=stop)
    with pytest.raises(KeyboardInterrupt):
        Gate(CONFIG).judge([broken], routes, answers)
    done = {(who, item) for who, items in broken.asked[:3] for item in items}
    guard = Written(losing(3))
    again = Gate(CONFIG).judge([guard], routes, answers)
    asked = [(who, item) for who, items in guard.asked for item in items]
    assert not done & set(asked)
    assert again == ruled(tmp_path / "undisturbed", Written(losing(3)))


def test_a_model_that_is_away_decides_nothing(tmp_path: Path) -> None:
    away = Written(on_answer=lambda call: _raise(ModelUnavailable("no server")))
    with pytest.raises(ModelUnavailable):
        ruled(tmp_path, away)


@dataclass
class Served(Written):
    """Items of two repositories, each answered by what serves it."""

    def items(self, routes: Routes) -> Sequence[str]:
        return [f"{repo}/{n}" for repo in ("bank", "shop") for n in range(self.count) if not routes or repo in routes]

    def repo(self, item: str) -> str:
        return item.split("/")[0]

    def answer(self, items: Sequence[str], routes: Routes) -> Mapping[str, Answer]:
        def of(item: str) -> Answer:
            repo, _, number = item.partition("/")
            who = (routes[repo] / WEIGHTS).read_text() if repo in routes else BASE
            return self.script(who, int(number))

        return {item: of(item) for item in items}


def skilled(who: str, item: int) -> Answer:
    """The base is right in half of the cases; `better` in more, `worse` in fewer, `same` says what the base says."""
    right = {BASE: item % 2 == 0, "same": item % 2 == 0, "better": item % 4 != 3, "worse": item % 4 == 0}[who]
    return Answer(score=float(right), said=BASE if who == "same" else who)


def judged(tmp_path: Path, live: dict[str, str], new: dict[str, str]) -> Verdict:
    def routes(table: dict[str, str]) -> dict[str, Path]:
        return {repo: adapter(tmp_path / f"{repo}-{who}", who)["shop"] for repo, who in table.items()}

    gate = Gate(GateConfig(limit=0.2))
    return gate.judge([Served(skilled, 300)], routes(live | new), Answers(tmp_path), live=routes(live)).verdict


def test_what_is_live_already_neither_hides_harm_nor_lends_an_effect(tmp_path: Path) -> None:
    live = {"bank": "better"}
    assert judged(tmp_path, {}, {"bank": "better"}).promoted
    assert "rejected" in judged(tmp_path, live, {"shop": "worse"}).why
    assert "no effect" in judged(tmp_path, live, {"shop": "same"}).why
    assert judged(tmp_path, live, {"shop": "better"}).numbers["code.of"] == 300, "what stays as it is dilutes nothing"


def test_one_adapter_s_gain_does_not_pay_for_another_s_harm(tmp_path: Path) -> None:
    verdict = judged(tmp_path, {}, {"bank": "better", "shop": "worse"})
    assert not verdict.promoted
    assert "the adapter of shop lost" in verdict.why
