"""Words for a point of an attempt: what is asked there, from what it can be answered, and why the answer is right."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agent.tools import bounded
from agent.turns import Call
from consolidation.synthesis.points import CHANGES, Deed, Lines, path_of

MAX_CONTEXT = 4_000
MAX_QUOTED = 160
MAX_LINES = 3
MAX_LISTED = 8
NEAR = 2
WIDE = 20
SCANNED = 20_000
_DEFINES = re.compile(r"(\s*)(?:async +def|def|class) +(\w+)")
_FAILED = re.compile(r"\s*(?:FAILED|FAIL|ERROR|E  )|.*\w(?:Error|Exception)\b")
_PATH = re.compile(r"(?<![\w./-])(?:[\w-][\w.-]*/)+[\w.-]+\.[A-Za-z]\w{0,3}\b")
_TESTS = re.compile(r"(^|/)tests?/|(^|/)test_[^/]*$|_test\.\w+$")


@dataclass(frozen=True)
class Point:
    """A deed that is worth asking for. `asked` are the texts below the issue that it can be answered from, one for each way
    of asking; `rank` says how much it decides (0: most)."""

    deed: Deed
    rank: int
    asked: tuple[str, ...]
    reason: str


def brief(text: str, most: int = MAX_QUOTED) -> str:
    """A text in one line of at most `most` characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * most]).split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def failure(observation: str) -> str:
    """What went wrong, in one line: the first that says so, or else the first."""
    lines = [line for line in observation[:SCANNED].split("\n") if line.strip()]
    return brief(next((line for line in lines if _FAILED.match(line)), lines[0] if lines else ""))


def head(call: Call) -> str:
    """The first line of a call, as it is told of."""
    return " ".join(word for word in (call.tool, call.target, "in" if call.within else "", call.within) if word)


def listing(path: str, lines: Lines, first: int = 1, last: int = 10**7, how: str = "reads") -> str:
    """A file as far as it is known, with line numbers; empty if nothing is, or it is too long to be shown."""
    known = [f"{n}|{line}" for n, (line, _) in sorted(lines.items()) if first <= n <= last]
    text = "\n".join([f"{path} {how}", *known])
    return text if known and len(text) <= MAX_CONTEXT else ""


def definition(lines: Lines, number: int) -> tuple[str, int, int]:
    """Name, first and last known line of the function or class around a line; an empty name if there is none."""
    for start in sorted((n for n in lines if n <= number), reverse=True):
        if (match := _DEFINES.match(lines[start][0])) is None:
            continue
        depth, last = len(match.group(1)), start
        for n in sorted(n for n in lines if n > start):
            text = lines[n][0]
            if text.strip() and len(text) - len(text.lstrip()) <= depth:
                break
            last = n if text.strip() else last
        if number <= last:
            return match.group(2), start, last
    return "", 0, 0


def block(deed: Deed) -> str:
    """What a deed showed, below its call."""
    return f"{head(deed.call)}\n{bounded(deed.observation, MAX_CONTEXT)}"


def points_of(prompt: str, deeds: Sequence[Deed], right: Sequence[Deed]) -> list[Point]:
    """What of an attempt is worth asking for, in order: the changes that stand, and what was needed for them.

    Left out is what cannot be answered from what was known: a path or name that had not been shown by then.
    """
    points: list[Point] = []
    paths = {path_of(deed.call) for deed in right}
    for number, deed in enumerate(deeds):
        before = deeds[:number]
        tool = deed.call.tool
        if tool in CHANGES and deed in right:
            point = _change(deed, before)
        elif tool in ("view", "search", "map"):
            point = _look(prompt, deed, before, paths)
        elif tool in ("test", "submit"):
            point = _check(deed, before, right)
        else:
            continue
        words = (deed.call.target if tool != "search" else "", deed.call.within, *deed.call.targets)
        asked = tuple(dict.fromkeys(text for text in point.asked if all(word in prompt + text for word in words)))
        if asked:
            points.append(Point(deed, point.rank, asked, point.reason))
    return points


def _last(deeds: Iterable[Deed], *words: str) -> Deed | None:
    """The last deed that showed all of these words."""
    return next((d for d in reversed(list(deeds)) if all(w in d.observation for w in words) and d.call.tool != "diff"), None)


def _failing(before: Sequence[Deed]) -> Deed | None:
    """The last test run that failed with the files as they are."""
    since = itertools.takewhile(lambda deed: deed.call.tool not in (*CHANGES, "undo"), reversed(before))
    return next((deed for deed in since if deed.passed is False), None)


def _change(deed: Deed, before: Sequence[Deed]) -> Point:
    """A change: asked by its file, by the error, by the function, by the lines."""
    path, failed = path_of(deed.call), _failing(before)
    blocks: list[str] = []
    if deed.start and all(number in deed.before for number in range(deed.start, deed.end + 1)):
        _, first, last = definition(deed.before, deed.start)
        blocks.append(listing(path, deed.before) or listing(path, deed.before, deed.start - WIDE, deed.end + WIDE))
        blocks.append(listing(path, deed.before, first, last) if first and deed.end <= last else "")
        blocks.append(listing(path, deed.before, deed.start - NEAR, deed.end + NEAR))
    elif deed.call.start is None and (shown := _last(before, path, *(deed.call.old or "").split("\n"))) is not None:
        blocks.append(block(shown))
    if failed is not None and blocks:
        blocks.insert(1, f"{block(failed)}\n\n{blocks[0]}" if blocks[0] else "")
    found = next((d for d in reversed(before) if d.call.tool == "search" and path in d.observation), None)
    reasons = [f"Searching `{brief(found.call.target, 80)}` leads to {path}."] if found is not None else []
    reasons += [f"The tests say: {failure(failed.observation)}."] if failed is not None else []
    return Point(deed, 0, tuple(text for text in blocks if text), " ".join([*reasons, told(deed, deed.before)]))


def told(deed: Deed, lines: Lines) -> str:
    """In words, what a change does to a file that is known so far."""
    path, call = path_of(deed.call), deed.call
    if call.tool == "create":
        return f"The file {path} is missing and has to be made."
    if call.tool == "delete":
        return f"The file {path} has to go."
    old = [lines[n][0] for n in range(deed.start, deed.end + 1) if n in lines] if deed.start else (call.old or "").split("\n")
    where = f"line {deed.start}" if deed.start == deed.end else f"lines {deed.start}-{deed.end}"
    where = f"{where} of {path}" if deed.start else f"a place of {path}"
    if not deed.put:
        return f"In {where} there is {_quoted(old)}, which has to go."
    return f"In {where} there is {_quoted(old)}; it should be {_quoted(deed.put)}."


def _quoted(lines: Sequence[str]) -> str:
    said = [f"`{brief(line)}`" for line in lines if line.strip()][:MAX_LINES]
    more = sum(bool(line.strip()) for line in lines) - len(said)
    return (", ".join(said) or "nothing") + (f" and {more} more" if more > 0 else "")


def _look(prompt: str, deed: Deed, before: Sequence[Deed], paths: set[str]) -> Point:
    """A look at something: asked by what led there."""
    call, path = deed.call, path_of(deed.call)
    leads = path in paths or any(path in deed.observation for path in paths)
    rank = 1 if leads else 4
    if call.tool == "map":
        return Point(deed, rank, ("",), f"What is in {path or 'the repository'} is not known yet.")
    if call.tool == "search":
        source = None if call.target in prompt else _last(before, call.target)
        named = ("",) if call.target in prompt else (block(source),) if source is not None else ()
        reason = f"`{brief(call.target, 80)}` is named; where it is has to be found."
        return Point(deed, rank, named if deed.found else (), reason)
    shown = _last(before, call.target)
    if shown is None:
        return Point(deed, rank, ("",), f"The issue names {path}.")
    hit = next((line for line in shown.observation.split("\n") if call.target in line), "")
    asked = (block(shown), f"{head(shown.call)}\n{bounded(hit, MAX_CONTEXT)}")
    return Point(deed, rank, asked, f"The file to read is {path}: `{head(shown.call)}` shows {brief(hit)}.")


def _check(deed: Deed, before: Sequence[Deed], right: Sequence[Deed]) -> Point:
    """A test run after a change, or the end after a test run that passed."""
    last = next((d for d in reversed(before) if d.call.tool in CHANGES), None)
    if last is None or last not in right:
        return Point(deed, 2, (), "")
    change = block(last)
    if deed.call.tool == "test":
        now = listing(path_of(last.call), last.after)
        return Point(
            deed, 2, (change, *([now] if now else [])), f"{path_of(last.call)} is changed; whether it holds is not known yet."
        )
    ran = next((d for d in reversed(before) if d.passed is not None), None)
    if ran is None or not ran.passed or ran.turn < last.turn:
        return Point(deed, 3, (), "")
    result = block(ran)
    return Point(
        deed, 3, (result, f"{change}\n\n{result}"), f"The change is made, and the tests passed: {brief(ran.observation)}."
    )


def metadata(repo: str, deeds: Sequence[Deed]) -> str:
    """What is known of the project from an attempt at it: files, names, where tests lie."""
    seen: dict[str, None] = {}
    names: dict[str, None] = {}
    for deed in deeds:
        text = "" if deed.call.tool in ("diff", "submit") else deed.observation[:SCANNED]
        seen |= dict.fromkeys([path_of(deed.call)] if deed.call.tool in (*CHANGES, "view") else [])
        seen |= dict.fromkeys(match.group() for match in _PATH.finditer(text))
        names |= dict.fromkeys([deed.call.target] if deed.call.tool == "search" and deed.found else [])
        for line in text.split("\n") if deed.call.tool == "view" else ():
            if (match := _DEFINES.match(line.partition("|")[2])) is not None:
                names[match.group(2)] = None
    told_of = [
        ("files", [path for path in seen if not _TESTS.search(path)]),
        ("names", [brief(name, 80) for name in names]),
        ("tests", [path for path in seen if _TESTS.search(path)]),
    ]
    return "\n".join([f"repository {repo}", *(f"{what} {', '.join(some[:MAX_LISTED])}" for what, some in told_of if some)])
