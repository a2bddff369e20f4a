"""Strings that look drawn at random, and what looks like that but is none: words, paths, commit ids, checksums."""

from __future__ import annotations

import re
from itertools import pairwise
from math import log2

_LONG = re.compile(r"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{24,}={0,2}")
# Removed from a longer string before it is judged: UUIDs, and commit ids in addresses.
_UUID = re.compile(
    r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}|(?:(?<=/blob/)|(?<=/tree/)|(?<=/commit/))[0-9a-f]{40}"
)
_WORDS = re.compile(
    r"(?=[A-Z]?[a-z]*[aeiou]|[A-Z]*[AEIOU])(?:[A-Z]?[a-z]{4,}|[A-Z]{5,})"
    r"|(?<![A-Za-z0-9])(?:[A-Z]?[a-z]+|[A-Z]+)(?![A-Za-z0-9])"
)
_ALONE = re.compile(r"(?<![A-Za-z0-9])\d+(?![A-Za-z0-9])")
# What git writes before a commit id. `to`, `from` and `at` are words of everybody's: they count only in git's own phrases.
_GIT = re.compile(
    r"(?:\b(?:commit|tree|parent|object|merge|merge-base|revision|rev|ref|HEAD|oid|sha|sha1|Updating"
    r"|moving (?:from(?: \S{1,60} to)?|to)|(?:now|was|detached) (?:at|from))[\"']?[:=]?[ \"']*|(?-i:^From )"
    r"|(?:^|[\s.])[0-9a-f]{7,40}(?:\.\.\.?| ))$",
    re.IGNORECASE | re.MULTILINE,
)
_AFTER = re.compile(r"\.\.\.?[0-9a-f]|\s+refs/")
_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
# What stands before a checksum: `sha256:` of images and lock files; and before one that may be in base64, or in it.
_CHECKSUM = re.compile(
    r"(?:\b(?:sha|md)\d{1,3}[\"']?(?:[-:= ]|: )[ \"']*|\b(?:digest|hash|md5)[\"']?\s?[:=]\s?[\"']?)$", re.IGNORECASE
)
_ANNOUNCED = re.compile(
    r"(?:\bsha(?:1|224|256|384|512)[:=]|\bh1:|\b(?:checksum|integrity)[\"']?(?:\s?[:=]\s?| )[\"']?)$", re.IGNORECASE
)
_SUM = re.compile(r"(?:[0-9a-fA-F]{32}|[0-9a-fA-F]{40}|[0-9a-fA-F]{56}|[0-9a-fA-F]{64}|[0-9a-fA-F]{96}|[0-9a-fA-F]{128})")
# The lengths are those of SHA-1, 224, 256, 384, 512; Yarn puts the version of its cache before one in hexadecimal digits.
_IN_BASE64 = re.compile(
    rf"(sha\d{{1,3}}-)?(?:[\w+/-]{{27}}|[\w+/-]{{38}}|[\w+/-]{{43}}|[\w+/-]{{64}}|[\w+/-]{{86}})={{0,2}}|\d+c\d/{_SUM.pattern}"
)
_OF_A_FILE = re.compile(r"^[0-9a-f]{32,128} [ *](?=\S*[./]\S*\r?$)", re.MULTILINE)


def high_entropy(text: str) -> list[tuple[int, int]]:
    """Where strings stand that look drawn at random: 24 characters or more of base64's or hexadecimal alphabet.

    Words, identifiers, paths, numbers, UUIDs are none; nor are commit ids and checksums where git or a lock file puts them.
    Of strings drawn at random, 4 % of 24 base64 characters and 1 % of 32 pass as words, and hardly one of hexadecimal digits.
    """
    found = []
    for match in _LONG.finditer(text):
        start, end = match.span()
        token = match.group()
        token = _UUID.sub("", token)
        if len(token) >= 24 and _drawn(token) and not _known_hash(text, start, end):
            found.append((start, end))
    return found


def _known_hash(text: str, start: int, end: int) -> bool:
    """Whether it has the shape of a commit id or of a checksum, and stands where git or a lock file puts one."""
    before, token = text[max(0, start - 96) : start], text[start:end]
    if _ID.fullmatch(token) and (_GIT.search(before) or _AFTER.match(text, end)):
        return True
    if _SUM.fullmatch(token) and (_CHECKSUM.search(before) or _ANNOUNCED.search(before) or _OF_A_FILE.match(text, start)):
        return True
    coded = _IN_BASE64.fullmatch(token)
    return coded is not None and (coded[1] is not None or _ANNOUNCED.search(before) is not None)


def _drawn(token: str) -> bool:
    letters = [character for character in token if character.isalnum()]
    if len(letters) < 20 or _entropy("".join(letters)) < 3.0:
        return False
    classes = [character.isdigit() + 2 * character.islower() for character in letters]
    if len(set(classes)) < 2:
        return False
    words = sum(len(match.group()) for match in _WORDS.finditer(token)) + sum(len(m.group()) for m in _ALONE.finditer(token))
    digits = [one == 1 for one in classes]
    switches = sum(a != b for a, b in pairwise(digits))  # a name has its few digits together
    return words < len(letters) * (0.5 if switches > 2 else 0.25) or switches > len(letters) * 0.27


def _entropy(text: str) -> float:
    """Shannon entropy in bits a character."""
    return -sum(share * log2(share) for share in (text.count(one) / len(text) for one in set(text)))
