"""A report as files: the same bytes every time, nothing that is missing a number, nothing that others wrote more than text."""

import re
import xml.etree.ElementTree as Tree
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import pytest

from eval.report.document import (
    Bars,
    Bullets,
    Commands,
    Figure,
    Heat,
    Lines,
    Mark,
    Missing,
    Panel,
    Point,
    Prose,
    Report,
    Section,
    Series,
    Table,
)
from eval.report.plots import INK, SERIES, drawn
from eval.report.render import Notes, in_markdown, themed, write
from eval.report.text import fenced, markdown, plain

HOSTILE = "<script>alert(1)</script> | `x` ](http://evil.example) \x1b[31m \u202e ## *a* _b_ ${c} \ud800"
LINES = Lines("night", "rate", (Series("naive", (Point(0, 0.1, 0, 0.2), Point(1, None, why="lost"))),), "share")
BARS = Bars("gain", ("a", "b"), (Series("base", (Point(0, 0.1), Point(1, None))), Series("skill", (Point(0, 0.5),))), "share")
HEAT = Heat("night", "block", ("0", "1"), ("a", "b"), (Panel("naive", ((0.1, None), (0.9, 0.2))),))


def report(text: str = "plain") -> Report:
    table = Table(
        text, ("what", text), (("one", 0.12345), (text, Missing(text)), ("two", Missing(text)), ("x", Mark(text, "bad")))
    )
    figures = tuple(Figure(name, text, text, plot) for name, plot in (("lines", LINES), ("bars", BARS), ("heat", HEAT)))
    section = Section(text, (Prose(f"{text}\n\nsecond"), Commands(f"run {text}"), table, *figures))
    return Report(text, (section,), (Bullets((text,), "bad"),))


class Page(HTMLParser):
    """Tags and attributes of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_same_report_is_the_same_bytes_and_small(tmp_path: Path) -> None:
    first, second = (write(report(), tmp_path / name, "exp") for name in ("one", "two"))
    assert [path.name for path in first] == ["exp.md", "exp-lines.svg", "exp-bars.svg", "exp-heat.svg", "exp.html"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert max(path.stat().st_size for path in first if path.suffix == ".svg") < 40_000


def test_the_page_needs_nothing_else_and_runs_nothing(tmp_path: Path) -> None:
    page = Page(write(report(HOSTILE), tmp_path, "exp")[-1].read_text())
    assert not {"script", "link", "img", "iframe", "object", "embed"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in ("src", "href", "action")]
    assert [value for _, value in page.attributes if "http" in value and not value.startswith("http://www.w3.org/")] == [
        *(value for _, value in page.attributes if "evil.example" in value)  # a label, which is text
    ]
    assert {name for name, value in page.attributes if "evil.example" in value} <= {"aria-label"}
    assert page.tags.count("th") == 2 + 4
    assert ("scope", "row") in page.attributes
    assert ("scope", "col") in page.attributes
    assert "<script>alert(1)</script>" in page.text
    assert re.findall(r"url\((?!#)", (tmp_path / "exp.html").read_text()) == []


def test_plots_stand_by_themselves_and_are_told(tmp_path: Path) -> None:
    for path in write(report(HOSTILE), tmp_path, "exp"):
        if path.suffix == ".svg":
            root = Tree.fromstring(path.read_bytes())
            told = {child.tag.rpartition("}")[2]: child.text for child in root if child.tag.endswith(("title", "desc"))}
            assert told == {"title": plain(HOSTILE), "desc": plain(HOSTILE)}


def test_what_is_missing_is_no_number_and_its_reason_is_told_once() -> None:
    text = in_markdown(Report("t", (Section("s", (report("why not").sections[0].blocks[2],)),)), "exp")
    assert "| one | 0.123 |" in text
    assert text.count("none (a)") == 2
    assert text.count("(a) why not") == 1


@pytest.mark.parametrize("number", [0, 25, 26, 27, 52])
def test_every_reason_has_a_letter_of_its_own(number: int) -> None:
    notes = Notes()
    marks = [notes.told(Missing(str(n))) for n in range(number + 1)]
    assert len(set(marks)) == number + 1
    assert marks[-1] == f"none ({ {0: 'a', 25: 'z', 26: 'aa', 27: 'ab', 52: 'ba'}[number] })"


def test_what_others_wrote_adds_no_cell_no_line_and_no_fence() -> None:
    text = in_markdown(report(HOSTILE), "exp")
    rows = [line for line in text.split("\n") if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3}
    written = re.sub(r"(?ms)^`{3,}$.*?^`{3,}$", "", text)
    assert "<script>" not in written
    assert "](http:" not in written.replace("\\]", "")
    assert fenced("a\n```\nb").startswith("````\n")
    assert markdown("# no heading\n- no list") == "\\# no heading - no list"


def test_figures_that_are_gone_are_removed_and_nothing_else(tmp_path: Path) -> None:
    write(report(), tmp_path, "exp")
    (tmp_path / "other-lines.svg").write_text("mine")
    write(report(), tmp_path, "exp-long")
    longer = sorted(path.name for path in tmp_path.glob("exp-long*"))
    write(Report("t", ()), tmp_path, "exp")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*longer, "exp.html", "exp.md", "other-lines.svg"])


def test_a_page_that_turns_dark_takes_its_plots_along() -> None:
    svg = drawn(Figure("lines", "c", "d", LINES))
    page = themed(svg)
    assert INK in svg
    assert INK not in page
    assert "var(--ink)" in page
    assert "var(--series-0)" in page
    written = f'a style="fill: {INK}"'
    assert themed(drawn(Figure("f", written, written, LINES))).count(INK) == 2  # what is text stays what it says


def test_a_line_is_broken_where_a_value_is_missing() -> None:
    points = (Point(0, 0.1), Point(1, 0.2), Point(2, None), Point(3, 0.4), Point(4, 0.5))
    svg = drawn(Figure("f", "c", "d", Lines("x", "y", (Series("s", points),))))
    (line,) = re.findall(rf'<path d="([^"]*)"[^>]*clip-path[^>]*stroke: {SERIES[0]}', svg)
    assert re.findall("[ML]", line) == ["M", "L", "M", "L"]


def test_the_settings_of_this_machine_change_nothing() -> None:
    figure = Figure("f", "c", "d", LINES)
    before = drawn(figure)
    with matplotlib.rc_context({"lines.markeredgewidth": 3, "axes.grid": True}):
        assert drawn(figure) == before


def test_commands_keep_their_blanks(tmp_path: Path) -> None:
    typed = "python - <<'E'\nif x:\n    print('a  b')\nE"
    markdown, page = write(Report("t", (), (Commands(typed),)), tmp_path, "exp")
    assert typed in markdown.read_text()
    assert typed in Page(page.read_text()).text


@pytest.mark.parametrize("name", ["a/b", "", "../x", "a.b"])
def test_a_name_that_is_none_is_refused_before_anything_is_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be part of a file's name"):
        write(report(), tmp_path / "out", name)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="same name"):
        write(Report("t", (Section("s", (Figure("f", "c", "d", LINES),) * 2),)), tmp_path, "exp")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OSError, match="out"):
        write(report(), tmp_path / "out", "exp")
