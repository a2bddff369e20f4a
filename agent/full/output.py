"""Test output within its limit: how it begins, how it ends, and above all what failed."""

from __future__ import annotations

import re

MAX_CHARS = 8_000
MAX_WIDTH = 400
HEAD, TAIL = 4, 14
_BLOCK = 14
_FAILED = r"(FAILED|ERROR) \S|(FAIL|ERROR): |E {2,}\S|error(\[\w+\])?: |---- .* stdout|\s*thread '.*' panicked|panic: |--- FAIL"
_RAISED = r"_{3,} .* _{3,}$|Traceback \(|\w[\w.]*(Error|Exception|Failure|Warning)\b|> {2,}\S|\s*(assert|left|right)\b"
_PLACE = r"\S+\.\w+:\d+: |\s*File \".*\", line \d+|\s+--> \S+:\d+"
_WEIGHTS = tuple((weight, re.compile(pattern)) for weight, pattern in ((4, _FAILED), (3, _RAISED), (2, _PLACE)))


def shortened(text: str, at_most: int = MAX_CHARS) -> str:
    """The output in at most about `at_most` characters; what is left out is counted in its place."""
    lines = [
        line if len(line) <= MAX_WIDTH else f"{line[:MAX_WIDTH]}… [{len(line)} characters]"
        for line in text.rstrip().split("\n")
    ]
    if sum(len(line) + 1 for line in lines) <= at_most:
        return "\n".join(lines)
    kept = {*range(min(HEAD, len(lines))), *range(max(0, len(lines) - TAIL), len(lines))}
    left = at_most - sum(len(lines[number]) + 1 for number in kept)
    for number in _wanted(lines):
        if number not in kept:
            left -= len(lines[number]) + 1
            if left < 0:
                break
            kept.add(number)
    shown: list[str] = []
    before = -1
    for number in sorted(kept):
        if number > before + 1:
            shown.append(f"[{number - before - 1} lines]")
        shown.append(lines[number])
        before = number
    return "\n".join(shown)


def _wanted(lines: list[str]) -> list[int]:
    """Line numbers, the most telling first: what failed, of each failure the error itself, then what stands around."""
    weights = [next((weight for weight, pattern in _WEIGHTS if pattern.match(line)), 0) for line in lines]
    first: list[int] = []
    for least in (4, 3, 2):
        first += [number for number, weight in enumerate(weights) if weight == least]
    near = [n + d for n in first[:40] for d in (*range(-_BLOCK // 2, 0), *range(1, _BLOCK)) if 0 <= n + d < len(lines)]
    strong = [number for number in first if weights[number] == 4]
    return list(dict.fromkeys([*strong[:60], *near, *first]))
