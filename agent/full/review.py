"""The last look before the work ends: the whole change, and what is easily forgotten."""

from __future__ import annotations

import re

from agent.full.files import rank
from agent.tools import bounded

MAX_DIFF_CHARS = 9_000
_LEFTOVER = re.compile(
    r"\+(?!\+\+ ).*?(\b(print|breakpoint|console\.log)\(|\bpdb\b|\bdbg!|\bprintln!|\b(TODO|FIXME|XXX)\b|[<>]{7} )"
)
_SCRATCH = re.compile(r"(^|/)[^/]*(repro|scratch|debug|tmp|temp|try_)[^/]*$", re.IGNORECASE)
_NEW_NAME = re.compile(r'^\+\+\+ (?:"?b/(?P<new>.*?)"?|/dev/null)(?:\t.*)?$')
_OLD_NAME = re.compile(r'^--- (?:"?a/(?P<old>.*?)"?|(?P<none>/dev/null))(?:\t.*)?$')


def review(diff: str, tested: bool | None, fresh: bool) -> str:
    """The change with a checklist. `tested` says how the last tests ended, `fresh` whether nothing was edited since."""
    notes: list[str] = []
    if tested is None:
        notes.append("no tests were run")
    elif not fresh:
        notes.append("no tests were run since the last edit")
    else:
        notes.append("the last tests passed" if tested else "the last tests did not pass")
    changed, new = _files(diff)
    tests = [path for path in changed if rank(path) == 1]
    if tests and len(tests) == len(changed):
        notes.append("only tests are changed: what mends the issue is missing")
    elif edited := [path for path in tests if path not in new]:
        notes.append(f"tests that were there are changed ({', '.join(edited[:4])}): only to add to them?")
    if scratch := [path for path in new if _SCRATCH.search(path)]:
        notes.append(f"new files that may be scratch: {', '.join(scratch[:4])}")
    elif new:
        notes.append(f"new files: {', '.join(new[:6])}")
    left = [line[1:].strip()[:100] for line in diff.split("\n") if _LEFTOVER.match(line)]
    notes += [f"is this left over? {line}" for line in left[:5]]
    return "\n".join(
        [
            "This is the whole change; it is not submitted yet.",
            bounded(diff, MAX_DIFF_CHARS),
            *(f"- {note}" for note in notes),
            "- does it mend the cause, all of it, and nothing else?",
            "Submit again to end the work with this, or go on.",
        ]
    )


def _files(diff: str) -> tuple[list[str], list[str]]:
    """Paths that a diff changes, and those of them that are new."""
    changed: list[str] = []
    new: list[str] = []
    old: re.Match[str] | None = None
    for line in diff.split("\n"):
        if line.startswith("--- "):
            old = _OLD_NAME.match(line)
        elif old and (found := _NEW_NAME.match(line)):
            path = found.group("new") or old.group("old") or ""
            if path:
                changed.append(path)
                new += [path] if old.group("none") else []
            old = None
    return changed, new
