"""An issue's text out of a commit message: what was wanted, without a way to look up what was done.

The message is somebody else's text. It is cut to size, stripped of characters that hide or mimic
structure, and shown to the agent as data; what it says is not believed anywhere else.
"""

from __future__ import annotations

import re
import unicodedata

MAX_CHARS = 4_000
MAX_LINE = 1_000  # also what keeps the patterns below from taking long over a line made for that
MIN_WORDS = 3
_TRAILER = re.compile(
    r"^\s*([A-Za-z]+(-[A-Za-z]+)*-(by|to|for|on|id)|change-id|cc|bug|issue|pr|ref|refs|see|link|fix(es|ed)?|close[sd]?|resolve[sd]?"
    r"|backport(ed)?|reverts?|part of|co-authored-by)\s*:.*$|^\s*\(?cherry[- ]picked from.*$|^\s*this reverts commit.*$",
    re.IGNORECASE,
)
_LINK = re.compile(r"://|^\W*www\.|@\S*[.:]", re.IGNORECASE)
_WORD = re.compile(r"\S+")
_HASH = re.compile(r"\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f]|\d{12,})[0-9a-f]{7,64}\b", re.IGNORECASE)
_DIFF = re.compile(r"^(diff --git |Index: |--- \S|@@ )")
_TOKENS = re.compile(r"<(?=[|/]?\s*(\||im_|start|end|system|user|assistant|tool|think|bos|eos|s>))|\[(?=/?INST\])|`{3,}|~{3,}")
_HIDDEN = {"Cc", "Cf", "Co", "Cs", "Cn"}


def issue_text(message: str) -> str:
    """The issue, empty if the message says nothing.

    Dropped: trailers, links, addresses, hashes, quoted diffs, control and invisible characters, and
    what could end a prompt's turn or a fenced block. Issue numbers stay: nothing here can look them up.
    """
    text = unicodedata.normalize("NFC", message[: 2 * MAX_CHARS].replace("\r\n", "\n"))
    text = "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in _HIDDEN)
    kept: list[str] = []
    for line in text.split("\n"):
        if _DIFF.match(line):
            break
        line = line[:MAX_LINE]
        if _TRAILER.match(line):
            continue
        line = _TOKENS.sub(" ", _HASH.sub("", _WORD.sub(_unlinked, line)))
        kept.append(line.rstrip())
    return _whole("\n".join(kept))


def _unlinked(word: re.Match[str]) -> str:
    return "" if _LINK.search(word.group()) else word.group()


def without_answers(issue: str, patch: str, test_ids: tuple[str, ...], test_paths: tuple[str, ...]) -> str:
    """The issue without its lines that name a hidden test or quote a line that the fix adds."""
    names = {test.rpartition("::")[2].partition("[")[0] for test in test_ids}
    names |= {path.rpartition("/")[2] for path in test_paths}
    added = {row[1:].strip() for row in patch.split("\n") if row.startswith("+") and len(row.strip()) > 12}
    return _whole(
        "\n".join(
            line
            for line in issue.split("\n")
            if not any(name in line for name in names) and not any(row in line for row in added)
        )
    )


def _whole(text: str) -> str:
    text = re.sub(r"\n{3,}", "\n\n", text).strip()[:MAX_CHARS]
    return text if len(re.findall(r"\w{2,}", text)) >= MIN_WORDS else ""
