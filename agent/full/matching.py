"""Where quoted lines stand in a file: exactly, else but for white space, else nearly.

Models quote from memory. The order is from what is surely meant to what is most likely meant; a place is taken
only if it is the one place, and what is put there is moved to the indentation that the file has.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher, get_close_matches
from functools import lru_cache

from agent.errors import CallError
from agent.tools import numbered

NEARLY = 0.85
MARGIN = 0.05
EDGES = 0.5
MIN_LETTERS = 12
LEAST = 0.4
CANDIDATES = 24
REFINED = 4
MAX_WIDTH = 500
SLACK = 2
MAX_QUOTED = 400
_NUMBER = re.compile(r"\s*\d+\|")


@dataclass(frozen=True)
class Match:
    """Lines `start` to `end` (1-based, inclusive) become `new`; `how` they were found."""

    start: int
    end: int
    new: list[str]
    how: str


def match(lines: Sequence[str], old: Sequence[str], new: Sequence[str]) -> Match:
    """The one place of `old` in `lines`, and `new` as it fits there.

    Raises:
        CallError: there is none, or more than one; with where, or with the nearest lines.
    """
    if starts := _places(lines, old, str):
        return Match(_only(starts, old), starts[0] + len(old), list(new), "exactly")
    old, new = _without_numbers(old, new)
    before, after = _blank_ends(old)
    old = old[before : len(old) - after]
    new = new[min(before, _blank_ends(new)[0]) : len(new) - min(after, _blank_ends(new)[1])]
    if starts := _places(lines, old, _squeezed):
        start = _only(starts, old)
        if fitted := _fitted(lines, start, start + len(old) - 1, old, new, "but for white space"):
            return fitted
    if len(old) == len(new) == 1 and (part := _part(lines, old[0], new[0])):
        return part
    return _nearly(lines, old, new)


def _places(lines: Sequence[str], old: Sequence[str], key: Callable[[str], str]) -> list[int]:
    wanted, keys = [key(line) for line in old], [key(line) for line in lines]
    return [i for i in range(len(keys) - len(wanted) + 1) if keys[i] == wanted[0] and keys[i : i + len(wanted)] == wanted]


def _only(starts: list[int], old: Sequence[str]) -> int:
    if len(starts) > 1:
        where = ", ".join(f"{start + 1}-{start + len(old)}" for start in starts[:6])
        raise CallError(f"the old lines occur {len(starts)} times (lines {where}); quote more lines, or name them by number")
    return starts[0] + 1


def _squeezed(line: str) -> str:
    return " ".join(line.split())


def _blank_ends(lines: Sequence[str]) -> tuple[int, int]:
    """Blank lines at the beginning and at the end, never all of a text that has none else."""
    full = [number for number, line in enumerate(lines) if line.strip()]
    return (full[0], len(lines) - 1 - full[-1]) if full else (0, 0)


def _without_numbers(old: Sequence[str], new: Sequence[str]) -> tuple[list[str], list[str]]:
    """Both without the numbers that `view` shows before each line, if they were quoted too."""
    if not all(_NUMBER.match(line) for line in old if line.strip()):
        return list(old), list(new)
    return [_NUMBER.sub("", line, count=1) for line in old], [_NUMBER.sub("", line, count=1) for line in new]


def _part(lines: Sequence[str], old: str, new: str) -> Match | None:
    """A quoted part of a line, if it is there only once in the file."""
    old, new = (old.strip(), new.strip()) if old.strip() not in new or new.strip() else (old, new)
    found = [number for number, line in enumerate(lines, start=1) if old in line]
    if len(found) != 1 or len(old) < 4 or lines[found[0] - 1].count(old) != 1:
        return None
    return Match(found[0], found[0], [lines[found[0] - 1].replace(old, new)], "as part of a line")


def _nearly(lines: Sequence[str], old: Sequence[str], new: Sequence[str]) -> Match:
    if len(old) > MAX_QUOTED:
        raise CallError(f"the old lines are not in the file, and too many ({len(old)}) to look for like ones; quote fewer")
    keys, wanted = [_squeezed(line) for line in lines], [_squeezed(line) for line in old]
    begins = sorted(_begins(keys, wanted), key=lambda begin: -_likeness(keys[begin : begin + len(wanted)], wanted))
    spans = {
        (start, min(len(keys), start + size))
        for begin in begins[:REFINED]
        for start in range(max(0, begin - SLACK), min(len(keys), begin + SLACK + 1))
        for size in range(max(1, len(wanted) - SLACK), len(wanted) + SLACK + 1)
    }
    scored = sorted(
        ((_likeness(keys[start:end], wanted), start, end) for start, end in spans),
        key=lambda place: (-place[0], abs(place[2] - place[1] - len(wanted)), place[1]),
    )
    best = scored[0] if scored else (0.0, 0, 0)
    others = [place for place in scored if place[1] >= best[2] or place[2] <= best[1]]
    letters = sum(map(len, wanted))
    alone = not others or others[0][0] < best[0] - MARGIN
    sure = best[0] >= NEARLY and letters >= MIN_LETTERS and alone
    how = f"nearly ({best[0]:.0%} alike)"
    if sure and (fitted := _fitted(lines, best[1] + 1, best[2], old, new, how)):
        return fitted
    near = [place for place in (best, *others[:1]) if place[0] > LEAST]
    shown = "\n".join(numbered([line.removesuffix("\r") for line in lines[a:b][:20]], a + 1) for _, a, b in near)
    hint = f"the nearest are\n{shown}" if near else "view it first"
    raise CallError(f"the old lines are not in the file; {hint}")


def _begins(keys: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Where the quoted lines may begin: where many of them stand as they are, or like ones do."""
    votes: Counter[int] = Counter()
    where: dict[str, list[int]] = {}
    for number, key in enumerate(keys):
        where.setdefault(key, []).append(number)
    for number, key in enumerate(wanted):
        if len(key) > 3 and len(where.get(key, ())) <= 50:
            votes.update(at - number for at in where.get(key, ()))
    if len(votes) < 2:
        longest = max(range(len(wanted)), key=lambda number: len(wanted[number]))
        heads = {key[:MAX_WIDTH]: key for key in where}
        for like in get_close_matches(wanted[longest][:MAX_WIDTH], heads, n=4, cutoff=0.6):
            votes.update(at - longest for at in where[heads[like]][:8])
    return [max(0, begin) for begin, _ in votes.most_common(CANDIDATES)]


def _likeness(there: Sequence[str], wanted: Sequence[str]) -> float:
    """From 0 to 1, by characters; not enough for an edit (`NEARLY`) where the first or the last line is another one."""
    if not there:
        return 0.0
    alike = 0.0
    for kind, a, b, c, d in SequenceMatcher(None, there, wanted, autojunk=False).get_opcodes():
        if kind == "equal":
            alike += sum(map(len, wanted[c:d]))
        elif kind == "replace":
            pairs = zip(there[a:b], wanted[c:d], strict=False)
            alike += sum(_ratio(one, other) * (len(one) + len(other)) / 2 for one, other in pairs)
    share = 2 * alike / max(1, sum(map(len, there)) + sum(map(len, wanted)))
    return share if all(_ratio(there[edge], wanted[edge]) >= EDGES for edge in (0, -1)) else share * 0.75


@lru_cache(maxsize=10_000)
def _ratio(one: str, other: str) -> float:
    if one == other:
        return 1.0
    matcher = SequenceMatcher(None, one[:MAX_WIDTH], other[:MAX_WIDTH], autojunk=False)
    return matcher.ratio() if matcher.real_quick_ratio() >= LEAST and matcher.quick_ratio() >= LEAST else 0.0


def _fitted(lines: Sequence[str], start: int, end: int, old: Sequence[str], new: Sequence[str], how: str) -> Match | None:
    """`new` with the file's own indentation, and the file's own text of lines that the edit does not change.

    Nothing where it cannot be told what becomes of a line: one that was quoted and is not there, or the other way round.
    """
    there = [line.removesuffix("\r") for line in lines[start - 1 : end]]
    keys = [[_squeezed(line) for line in text] for text in (there, old, new)]
    twin = dict(_pairs(keys[1], keys[0]))
    if any(key and (at not in twin or _ratio(key, keys[0][twin[at]]) < EDGES) for at, key in enumerate(keys[1])):
        return None
    origin = dict(_pairs(keys[2], keys[1]))
    for number, key in enumerate(keys[2]):
        if keys[1].count(key) == keys[2].count(key) == 1:
            origin[number] = keys[1].index(key)
    same = {number: at for number, at in origin.items() if keys[2][number] == keys[1][at]}
    behind: dict[int, list[str]] = {}
    for missed in sorted(set(range(len(there))) - set(twin.values())):
        before = max((at for at, here in twin.items() if here < missed), default=-1)
        above = next((n for n, at in same.items() if at == before and same.get(n + 1) == before + 1), None)
        if above is not None:
            behind.setdefault(above, []).append(there[missed])
        elif there[missed].strip():
            return None
    fitted: list[str] = []
    last = next((at for at in range(len(old)) if at in twin and old[at].strip()), None)
    for number, line in enumerate(new):
        mine = origin.get(number)
        if mine is not None and mine in twin and old[mine].strip():
            last = mine
        if number in same and mine is not None and last == mine and _indent(line) == _indent(old[mine]):
            fitted.append(there[twin[mine]])
        else:
            fitted.append(line if last is None else _moved(line, old[last], there[twin[last]]))
        fitted += behind.get(number, [])
    return Match(start, end, fitted, how)


def _pairs(left: Sequence[str], right: Sequence[str]) -> Iterable[tuple[int, int]]:
    """Lines of `left` with those of `right` that they are, or that stand in their place."""
    for kind, a, b, c, d in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        if kind in ("equal", "replace"):
            yield from zip(range(a, b), range(c, d), strict=False)


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip(" \t"))]


def _moved(line: str, quoted: str, actual: str) -> str:
    """A line at the indentation it has relative to `quoted`, seen from `actual`."""
    if not line.strip():
        return line
    own, said, real = _indent(line), _indent(quoted), _indent(actual)
    if said == real:
        return line
    text = line[len(own) :]
    if "\t" in real and "\t" not in said + own:
        unit = max(1, len(said) // len(real)) if said else 4
        return "\t" * max(0, len(real) + (len(own) - len(said)) // unit) + text
    if own.startswith(said):
        return real + own[len(said) :] + text
    if "\t" not in own + said + real:
        return " " * max(0, len(real) + len(own) - len(said)) + text
    return line
