"""Redaction: what looks like a secret becomes "[redacted:KIND]" before anything is stored.

Own patterns first (`patterns`), then the detectors of detect-secrets, then strings that look drawn at random. It is a net,
not a proof: a password in plain words that nothing announces is not recognised. Nobody is asked whether a key is valid.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from math import isfinite

from memory.ingest.entropy import high_entropy
from memory.ingest.patterns import HOMES, PATTERNS, VALUES

LONGEST = 20_000
"""Characters of one text that is kept."""
MARGIN = 20_000
"""How much more is looked at on either side of the cut, so that no secret's end outlives its beginning."""
_DEEPEST = 20
_PASSES = 8
_LONGEST_LINE = 1_000
_PIECE = re.compile(rf".{{1,{_LONGEST_LINE}}}(?:(?<=\s)|$)|.{{1,{_LONGEST_LINE}}}")
_SECRET_NAME = re.compile(
    r"(?i)(?:^|[_-])(?:api_?key|access_?key|private_?key|token|password|passwd|secret|authorization|credentials?)$"
)
# Addresses are no secrets; for the others there are patterns of our own, which take linear time and match the whole of it.
_LEFT_OUT = frozenset({"Public IP (ipv4)", "Basic Auth Credentials", "JSON Web Token", "Private Key"})


class Redactor:
    """Redacts texts, and counts what it took out, by kind."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def text(self, text: str) -> str:
        """`text` without its secrets. Doing it twice changes nothing more; it never raises."""
        for _ in range(_PASSES):
            before = text
            text = self._pass(text)
            if text == before:
                break
        return text

    def _pass(self, text: str) -> str:
        for kind, pattern in PATTERNS:
            text = pattern.sub(lambda match, kind=kind: self._mark(kind), text)  # type: ignore[misc]
        for kind, pattern in VALUES:
            text = pattern.sub(lambda match, kind=kind: match[1] + self._mark(kind), text)  # type: ignore[misc]
        text = HOMES.sub(self._home, text)
        text = self._library(text)
        for start, end in reversed(high_entropy(text)):
            text = text[:start] + self._mark("high-entropy") + text[end:]
        return text

    def bounded(self, text: str) -> str:
        """`text` without its secrets, at most LONGEST characters: its head and its tail."""
        proper = text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
        return shortened(self.text(shortened(proper, LONGEST + 2 * MARGIN)), LONGEST)

    def value(self, value: object, name: str = "", depth: int = 0) -> object:
        """A JSON value without its secrets; its names stay, what stands under a secret's name does not."""
        if isinstance(value, str):
            if len(value) >= 4 and _SECRET_NAME.search(name) and not value.startswith("[redacted:"):
                return self._mark("secret-value")
            return self.bounded(value)
        if isinstance(value, float) and not isfinite(value):
            return str(value)  # JSON has no such numbers
        if value is None or isinstance(value, bool | float):
            return value
        if isinstance(value, int):
            return value if abs(value) < 2**63 else hex(value)[:100]
        if depth == _DEEPEST:
            return "[too deep]"
        if isinstance(value, dict):
            return {self.bounded(str(key))[:200]: self.value(part, str(key), depth + 1) for key, part in value.items()}
        if isinstance(value, list):
            return [self.value(part, name, depth + 1) for part in value]
        return self.bounded(str(value))

    def _mark(self, kind: str) -> str:
        self.counts[kind] += 1
        return f"[redacted:{kind}]"

    def _home(self, match: re.Match[str]) -> str:
        self.counts["home"] += 1
        return "~" if match.group()[0] != "-" else "-~"

    def _library(self, text: str) -> str:
        patterns, keyword = _detectors()
        lines = text.split("\n")
        for number, line in enumerate(lines):
            if len(line) >= 8:
                lines[number] = "".join(self._line(piece, patterns, keyword) for piece in _PIECE.findall(line))
        return "\n".join(lines)

    def _line(self, line: str, patterns: list[tuple[str, re.Pattern[str]]], keyword: object) -> str:
        for kind, pattern in patterns:
            line = pattern.sub(lambda match, kind=kind: self._mark(kind), line)  # type: ignore[misc]
        for value in set(keyword.analyze_string(line)):  # type: ignore[attr-defined]
            if len(value) >= 4 and "[redacted:" not in value:
                line = line.replace(value, self._mark("secret-value"))
        return line


def shortened(text: str, longest: int) -> str:
    """`text`, or its head and its tail with a note between them if it is longer than `longest` characters."""
    if len(text) <= longest:
        return text
    mark = f"\n[... {len(text) - longest} characters left out ...]\n"
    half = (longest - len(mark)) // 2
    return text[:half] + mark + text[-half:]


@cache
def _detectors() -> tuple[list[tuple[str, re.Pattern[str]]], object]:
    """The library's patterns with their kinds, and its detector of assigned passwords."""
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
    from detect_secrets.plugins.base import RegexBasedDetector
    from detect_secrets.plugins.keyword import KeywordDetector

    patterns = []
    for name, detector in sorted(get_mapping_from_secret_type_to_class().items()):
        if issubclass(detector, RegexBasedDetector) and name not in _LEFT_OUT:
            kind = "-".join(re.findall(r"[a-z0-9]+", name.lower()))
            patterns += [(kind, pattern) for pattern in detector().denylist]
    return patterns, KeywordDetector()
