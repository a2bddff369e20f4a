"""How recalled memories are shown before an issue: as data from past sessions that cannot leave its block."""

from __future__ import annotations

import re

from agent.turns import render_case, render_issue
from memory.knowledge.memories import Entry, Kind, Memory, Recalled
from memory.tasks import Task

QUOTE = "> "
MAX_CHARS = 20_000
_BREAKS = re.compile(r"\r\n|[\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_UNSEEN = re.compile(
    r"[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\xad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff0-\ufffb"
    r"\U000e0000-\U000e0fff]"
)
_MARKS = re.compile(
    r"(?i)<(?=\||\uff5c|/?s>|/?think>|/?tool_call>|/?tool_response>|/?bos>|/?eos>|/?SYS>|/?(?:start|end)_of_turn>)"
    r"|\[(?=/?(?:INST|TOOL_CALLS|TOOL_RESULTS|AVAILABLE_TOOLS)\])"
)

_HEADS = re.compile(r"^(?:issue in |past case$)", re.MULTILINE)


def plain(text: str, most: int = MAX_CHARS) -> str:
    """Proper text of at most `most` characters: no lone surrogates, nothing invisible, line feeds only."""
    text = text[: 2 * most + 2].encode("utf-8", "replace").decode("utf-8")
    text = _UNSEEN.sub("", _BREAKS.sub("\n", text))
    return text if len(text) <= most else f"{text[: max(0, most - 1)].rstrip()}…"


def terse_prompt(task: Task, recalled: Recalled) -> str:
    """The issue as the pocket model was trained to read it, below the best verified case, if there is one."""
    cases = (memory for memory in recalled.memories if memory.kind is Kind.CASE and memory.verified)
    shown = tuple(_HEADS.sub(r" \g<0>", _mute(render_case(case.symptom, case.change))) for case in cases)
    return render_issue(task.repo, task.issue, shown[:1])


def full_prompt(task: Task, recalled: Recalled, header: str) -> str:
    """The issue, below the header and all that was recalled; the issue alone if nothing was."""
    issue = render_issue(task.repo, task.issue)
    if not recalled:
        return issue
    facts = [_fact(entry) for entry in recalled.facts]
    book = ["About this repository:", *facts] if facts else []
    return "\n".join([header, "", *book, *map(_block, recalled.memories), "", "End of the notes. The issue to fix:", issue])


def cost(memory: Memory) -> int:
    """Characters that a memory takes when it is shown in full, its line end included."""
    return len(_block(memory)) + 1


def fact_cost(entry: Entry) -> int:
    """Characters that a fact of the handbook takes when it is shown, its line end included."""
    return len(_fact(entry)) + 1


def _fact(entry: Entry) -> str:
    return QUOTE + " ".join(_mute(entry.fact).split())


def _block(memory: Memory) -> str:
    """A memory under the label that says how far it can be trusted; each of its own lines is quoted."""
    lines = [_LABELS[_standing(memory)]]
    lines += _quoted(memory.symptom)
    lines += _quoted(f"where: {', '.join(memory.where)}" if memory.where else "")
    own = memory.kind in (Kind.CASE, Kind.WARNING)
    lines += _quoted(f"a model said of it: {memory.fact}" if own and memory.fact else memory.fact)
    if memory.change:
        lines += _quoted(f"the change ({memory.shape}):" if memory.shape else "the change:")
        lines += _quoted(memory.change, "    ")
    lines += _quoted("\n".join(f"what failed: {tried}" for tried in memory.tried))
    return "\n".join(lines)


_LABELS = {
    "solved": "Solved before (tests passed):",
    "merged": "Fixed upstream:",
    "imported": "From another agent's session, not verified here:",
    "unverified": "From an earlier attempt, not verified:",
    "warning": "Warning: an earlier attempt failed:",
    "fact": "Seen to hold in this repository:",
}


def _standing(memory: Memory) -> str:
    if memory.origin == "imported":
        return "imported"
    if memory.kind is Kind.WARNING:
        return "warning"
    if not memory.verified:
        return "unverified"
    if memory.kind is not Kind.CASE:
        return "fact"
    return "merged" if memory.origin == "merged_fix" else "solved"


def _quoted(text: str, indent: str = "") -> list[str]:
    return [f"{QUOTE}{indent}{line}" for line in _mute(text).split("\n")] if text.strip() else []


def _mute(text: str) -> str:
    """Proper text in which nothing reads as a mark of a chat template."""
    return _MARKS.sub(lambda mark: f"{mark.group()} ", plain(text))
