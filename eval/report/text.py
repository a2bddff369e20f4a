"""Text that others wrote, made harmless: for HTML (jinja2 escapes it), for Markdown, for SVG."""

from __future__ import annotations

import re
import unicodedata

_MARKUP = re.compile(r"([\\`*\[\]|~$])")
_EDGE = re.compile(r"(?<!\w)_|_(?!\w)")
_BLOCK = re.compile(r"^(#|[-+=](?=[\s=-]|$)|>|\d{1,9}(?=[.)](\s|$)))")
_LINK = re.compile(r"(?i)(?<=:)/(?=/)|(?<=\bwww)\.")
ELLIPSIS = "…"


def plain(text: str, longest: int = 0) -> str:
    """One line: white space is one space, control characters and those that turn the direction of text are shown as U+FFFD.

    `longest` cuts it, and an ellipsis says so (0: never).
    """
    line = " ".join(_visible(text).split())
    return line if not longest or len(line) <= longest else line[: longest - 1].rstrip() + ELLIPSIS


def typed(text: str) -> str:
    """Lines as they are typed, blanks and all; control characters are shown as U+FFFD, as in `plain`."""
    return "\n".join(_visible(line.expandtabs(4)).rstrip() for line in re.split(r"\r?\n", text.strip("\r\n")))


def _visible(text: str) -> str:
    return "".join(c if c.isspace() or _printable(c) else "\ufffd" for c in text)


def _printable(character: str) -> bool:
    # Cc and Cf: control and format characters; Cs: half of a pair; Cn ends in what XML may not hold.
    return unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Cn", "Co"}


def markdown(text: str) -> str:
    """The text as one line of Markdown that shows it as it is: no markup, no HTML, no link, no further table cell."""
    line = plain(text)
    line = _LINK.sub(lambda found: "\\" + found[0], _EDGE.sub(r"\\_", _MARKUP.sub(r"\\\1", line)))
    line = line.replace("&", "&amp;").replace("<", "&lt;")
    return _BLOCK.sub(lambda found: f"{found[0]}\\" if found[0].isdigit() else f"\\{found[0]}", line)


def paragraphs(text: str) -> list[str]:
    """The paragraphs of a text, each in one line."""
    return [line for part in re.split(r"\n\s*\n", text) if (line := plain(part))]


def fenced(text: str) -> str:
    """The text as a block of code, whose fence nothing in it can close."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{typed(text)}\n{fence}"
