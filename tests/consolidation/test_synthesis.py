"""The formats A to E without a model: every call that is taught was carried out, whatever was played."""

import pytest

from agent.turns import parse_call
from consolidation.pairs import Format, pairs_of
from tests.consolidation.attempts import FORMATS, OFFLINE, check, day, everything, read, told


@pytest.mark.parametrize("how", FORMATS)
def test_every_format_teaches_only_calls_that_were_carried_out_within_its_budget_and_again_the_same(how: Format) -> None:
    for lived in everything():
        most = OFFLINE.pairs(lived, how, 50)
        check(lived, how, most)
        assert most or (how in "CD" and not lived.failed)
        for budget in (0, 1, 3, 5, 10, 20):
            pairs = OFFLINE.pairs(lived, how, budget)
            assert len(pairs) == min(budget, len(most))
            assert {pair.content for pair in pairs} <= {pair.content for pair in most}
            assert pairs == OFFLINE.pairs(lived, how, budget)


def test_t_is_the_attempt_word_for_word() -> None:
    for lived in day():
        (mine,), (theirs,) = OFFLINE.pairs(lived, "T", 3), pairs_of(lived.taught, lived.source)
        assert (mine.content, mine.untaught) == (theirs.content, theirs.untaught)


def test_questions_begin_with_the_change_then_take_what_led_to_it_then_ask_in_other_ways() -> None:
    lived = day()[0]

    def tools(budget: int) -> list[str]:
        return [parse_call(pair.messages[-1][1]).tool for pair in OFFLINE.pairs(lived, "A", budget)]

    assert tools(1) == ["edit"]
    assert tools(3) == ["search", "view", "edit"]
    assert tools(5) == ["search", "view", "edit", "test", "submit"]
    assert tools(50).count("edit") == 3
    (edit,) = OFFLINE.pairs(lived, "A", 1)
    assert edit.messages[-1][1] == lived.taught.steps[2].said
    assert edit.messages[0][1].startswith(lived.taught.prompt)
    assert edit.messages[0][1].endswith(lived.taught.steps[1].observation)  # the file as it was last seen


def test_reasons_stand_before_the_fenced_call_and_name_the_old_and_the_new_lines() -> None:
    lived = day()[0]
    (plain,), (reasoned,) = OFFLINE.pairs(lived, "A", 1), OFFLINE.pairs(lived, "B", 1)
    assert plain.messages[:-1] == reasoned.messages[:-1]
    prose, _, call = reasoned.messages[-1][1].partition("\n```\n")
    assert call == f"{plain.messages[-1][1]}\n```"
    edit = parse_call(plain.messages[-1][1])
    old = lived.taught.steps[1].observation.split("\n")[(edit.start or 1) - 1].partition("|")[2]
    assert old.strip() in prose
    assert edit.body.split("\n")[0].strip() in prose


def test_a_failures_first_wrong_change_is_rejected_for_the_one_that_held() -> None:
    lived = next(one for one in day() if one.failed)
    (pair,) = OFFLINE.pairs(lived, "C", 20)
    (failed,) = lived.failed
    assert pair.rejected == failed.steps[2].said
    assert pair.messages[-1][1] == lived.taught.steps[2].said
    assert pair.messages[-2] == ("tool", failed.steps[1].observation)


def test_a_failure_is_read_and_its_diagnosis_and_remedy_are_learnt() -> None:
    lived = next(one for one in day() if one.failed)
    (pair,) = OFFLINE.pairs(lived, "D", 20)
    (failed,) = lived.failed
    assert pair.messages[-2] == ("tool", failed.steps[3].observation)
    assert pair.untaught == (0, 1, 2, 3)
    assert failed.steps[3].observation.split("\n")[0][:80] in pair.messages[-1][1]
    assert "return 0" in pair.messages[-1][1]


def test_the_project_is_told_from_what_the_attempt_saw_alone() -> None:
    for lived in everything():
        (pair,), (plain,) = OFFLINE.pairs(lived, "E", 20), OFFLINE.pairs(lived, "T", 20)
        at = 1 if lived.taught.system else 0
        about, _, prompt = pair.messages[at][1].partition("\n\nissue in ")
        assert f"issue in {prompt}" == lived.taught.prompt
        assert (pair.messages[at + 1 :], pair.untaught) == (plain.messages[at + 1 :], plain.untaught)
        seen = str([step.observation for step in lived.taught.steps]) + lived.taught.prompt
        head, *rest = about.split("\n")
        assert "a/bank" not in about, "a diff names its sides, not files"
        assert head == f"repository {lived.taught.repo}"
        assert [line.partition(" ")[0] for line in rest][:2] == ["files", "names"]
        assert all(word in seen for line in rest for word in line.partition(" ")[2].split(", "))


def test_changes_that_were_taken_back_and_searches_in_vain_are_no_answer() -> None:
    lived = told()
    calls = [read(lived, pair.messages[-1][1]) for pair in OFFLINE.pairs(lived, "A", 50)]
    bodies = {call.body for call in calls if call.tool == "edit"}
    assert bodies == {read(lived, lived.taught.steps[7].said).body}
    assert not {"undo", "nowhere_at_all"} & {word for call in calls for word in (call.tool, call.target)}
    assert [call.tool for call in calls if call.tool in ("undo", "test", "submit")] == ["test", "test", "submit", "submit"]
    assert not any("25|        return 0" in text for pair in OFFLINE.pairs(lived, "B", 50) for _, text in pair.messages)
