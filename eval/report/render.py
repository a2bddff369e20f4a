"""A report written down: as Markdown with its plots beside it, and as one HTML file that needs nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eval.report.document import Block, Bullets, Commands, Figure, Mark, Missing, Prose, Report, Table, Value
from eval.report.plots import INK, LINE, PAPER, SERIES, drawn
from eval.report.text import fenced, markdown, paragraphs, plain, typed
from memory.files import write_whole

TEMPLATE = "report.html"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_HEADER = re.compile(r"^\s*(<\?xml[^>]*\?>|<!DOCTYPE[^>]*>)\s*", re.DOTALL)


def write(report: Report, out: Path, name: str) -> list[Path]:
    """Write `NAME.md`, a `NAME-FIGURE.svg` for each of its figures, and `NAME.html`; the files, the HTML last.

    The same report gives the same bytes. Figures that an earlier report of this name had, and this one has not, are removed.

    Raises:
        ValueError: the name, or that of a figure, is none for a file; or two figures have the same.
        OSError: the folder cannot be written.
    """
    names = [name, *(figure.name for figure in report.figures)]
    if wrong := [one for one in names if not _NAME.fullmatch(one)]:
        raise ValueError(f"{wrong[0]!r} cannot be part of a file's name; use letters, digits, - and _")
    plots = {figure.name: drawn(figure) for figure in report.figures}
    if len(plots) < len(report.figures):
        raise ValueError(f"{name}: two figures have the same name")
    out.mkdir(parents=True, exist_ok=True)
    written = {out / f"{name}.md": in_markdown(report, name)}
    written |= {out / f"{name}-{figure}.svg": plot for figure, plot in plots.items()}
    written[out / f"{name}.html"] = in_html(report, plots)
    shown = [out / figure for figure in _figures_of(out / f"{name}.md", name)]
    for path, text in written.items():
        write_whole(path, text)
    for stale in shown:
        if stale not in written:
            stale.unlink(missing_ok=True)
    return list(written)


def _figures_of(earlier: Path, name: str) -> list[str]:
    """The figures that a report shows; not those of another one whose name begins as its own does."""
    text = earlier.read_text(encoding="utf-8", errors="replace") if earlier.is_file() else ""
    return re.findall(rf"^!\[.*\]\(({re.escape(name)}-[A-Za-z0-9_-]+\.svg)\)$", text, re.MULTILINE)


# Markdown.


def in_markdown(report: Report, name: str) -> str:
    """The report as Markdown; its figures are files beside it, whose names begin with `name`."""
    parts = [f"# {markdown(report.title)}"]
    parts += [part for block in report.lead for part in _marked_down(block, name)]
    for section in report.sections:
        parts.append(f"## {markdown(section.heading)}")
        parts += [part for block in section.blocks for part in _marked_down(block, name)]
    return "\n\n".join(parts) + "\n"


def _marked_down(block: Block, name: str) -> Iterator[str]:
    match block:
        case Prose():
            yield from map(markdown, paragraphs(block.text))
        case Bullets():
            yield "\n".join(f"- {markdown(item)}" for item in block.items)
        case Commands():
            yield fenced(block.text)
        case Figure():
            told = markdown(block.description)
            yield f"![{told}]({name}-{block.name}.svg)"
            yield f"*{markdown(block.caption)}*"
        case Table():
            notes = Notes()
            yield f"*{markdown(block.caption)}*"
            lines = [_row(map(markdown, block.columns)), _row("---" for _ in block.columns)]
            lines += [_row(markdown(notes.told(value)) for value in row) for row in block.rows]
            yield "\n".join(lines)
            if notes.reasons:
                yield "\n".join(f"- {markdown(line)}" for line in notes.lines())


def _row(cells: Any) -> str:
    return "| " + " | ".join(cell or " " for cell in cells) + " |"


# HTML.


def in_html(report: Report, plots: dict[str, str]) -> str:
    """The report as one HTML file; `plots` are the SVG documents of its figures, by name."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup, escape

    environment = Environment(
        loader=PackageLoader("eval.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: plain(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals |= {
        "kind": lambda block: type(block).__name__,
        "paragraphs": paragraphs,
        "typed": lambda text: escape(typed(text)),
        "notes": Notes,
        "tone": lambda value: value.tone if isinstance(value, Mark) else "none",
        "plot": lambda figure: Markup(themed(plots[figure.name])),  # made here, and escaped where it was made
        "is_number": lambda value: isinstance(value, int | float | Missing),
        "ink": INK,
        "paper": PAPER,
        "line": LINE,
        "series": SERIES,
    }
    return environment.get_template(TEMPLATE).render(report=report, title=plain(report.title))


def themed(svg: str) -> str:
    """A plot as a part of a page: its colours are the page's own (`--ink`, `--paper`, `--line`, `--series-N`), so that it
    turns dark with it. A colour stands in a style and nowhere else."""
    names = {INK: "--ink", PAPER: "--paper", LINE: "--line"} | {colour: f"--series-{n}" for n, colour in enumerate(SERIES)}
    text = _HEADER.sub("", _HEADER.sub("", svg))
    colours = re.compile("|".join(map(re.escape, names)))

    def styled(found: re.Match[str]) -> str:
        return colours.sub(lambda colour: f"var({names[colour[0]]})", found[0])

    # Inside a tag alone: what others wrote stands between tags, where `<` is escaped.
    return re.sub(r"<[^<>]*>", lambda tag: re.sub(r' style="[^"]*"', styled, tag[0]), text)


class Notes:
    """Reasons of values that are missing in one table: each is told once, below it, under a letter."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}

    def told(self, value: Value) -> str:
        """What stands in the cell."""
        if isinstance(value, Missing):
            why = plain(value.why) or "not known"
            return f"none ({self.reasons.setdefault(why, _letters(len(self.reasons)))})"
        if isinstance(value, Mark):
            return plain(value.text)
        if isinstance(value, float):
            return f"{value:z.0f}" if 1000 <= abs(value) < 1e12 else f"{value:z.3g}"
        return plain(str(value))

    def lines(self) -> list[str]:
        """What stands below the table."""
        return [f"({mark}) {why}" for why, mark in self.reasons.items()]


def _letters(number: int) -> str:
    """a, b ... z, aa, ab ..."""
    head, tail = divmod(number, 26)
    return (_letters(head - 1) if head else "") + chr(ord("a") + tail)
