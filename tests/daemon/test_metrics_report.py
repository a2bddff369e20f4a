"""A daemon's life as a document: what did not go well stands first, nothing that is missing is a number."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.cli.metrics import report
from daemon.config import Config
from daemon.metrics_view import measured
from daemon.report import life_report, write_life
from daemon.views import night_rows
from eval.report.document import Bullets, Figure, Heat, Mark, Missing, Prose, Report, Table
from memory.store import Store
from tests.daemon.test_metrics_stored import PASS, Book, two_nights

SECTIONS = (
    *("What it measures by", "Learning curve", "What serves, asked of past days", "Day by day", "Before and after"),
    *("How attempts failed", "Nights and their verdicts", "Configurations", "How to have it again"),
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "sleepy.db") as store:
        yield store


def document(store: Store) -> Report:
    return life_report(measured(store, Config()), night_rows(store))


def tables(report: Report, heading: str) -> list[Table]:
    return [
        block
        for section in report.sections
        if section.heading == heading
        for block in section.blocks
        if isinstance(block, Table)
    ]


def test_bad_news_stand_at_the_top(store: Store) -> None:
    two_nights(Book(store), promoted=False)
    found = document(store)
    assert tuple(section.heading for section in found.sections) == SECTIONS
    (intro, news) = found.lead
    assert isinstance(intro, Prose)
    assert "pocket world; they are no SWE-bench results" in intro.text
    assert isinstance(news, Bullets)
    assert "Night 2 was not promoted: because" in news.items
    assert any(item.startswith("forgetting_chaudhry_net is 100.0%") for item in news.items)


def test_the_matrix_is_drawn_and_what_is_missing_says_why(store: Store) -> None:
    book = Book(store)
    two_nights(book)
    book.night("n3")
    found = document(store)
    (heat,) = (figure.plot for figure in found.figures if isinstance(figure.plot, Heat))
    assert [panel.name for panel in heat.panels] == ["what was live", "frozen control"]
    assert heat.panels[0].values[2] == (0.5, 1.0, 1.0)  # the day after, at all its tasks: none were asked again
    assert heat.panels[1].values[2] == (0.5, 0.5, None)
    (table,) = tables(found, "What serves, asked of past days")
    assert all(isinstance(cell, Missing) and cell.why for cell in table.rows[3][1:])


def test_nights_stand_with_their_verdicts(store: Store) -> None:
    book = Book(store)
    two_nights(book, promoted=False)
    book.night("n3", promoted=False, error="the disk was full")
    (table,) = tables(document(store), "Nights and their verdicts")
    assert [row[5] for row in table.rows] == [Mark("promoted", "good"), *[Mark("not promoted", "bad")] * 2]


def test_a_life_that_has_not_begun_makes_a_report(store: Store, tmp_path: Path) -> None:
    assert not document(store).figures
    assert write_life(measured(store, Config()), [], tmp_path / "out")


def test_it_is_written_whole_and_the_same_each_time(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    book = Book(store)
    two_nights(book, promoted=False)
    book.day(h=PASS)
    (tmp_path / "out").mkdir()
    report(home=tmp_path, out=tmp_path / "out")
    told = capsys.readouterr().out.split()
    assert {Path(path).name for path in told} == {"life.md", "life.html"}
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    report(home=tmp_path, out=tmp_path / "out")
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    page = (tmp_path / "out" / "life.html").read_text()
    assert "forgetting_chaudhry_net" in page
    assert not re.search(r"<script|https?://(?!www\.w3\.org)", page)
    assert len([path for path in before if path.suffix == ".svg"]) == len(document(store).figures) >= 4


def test_figures_describe_what_they_show(store: Store) -> None:
    two_nights(Book(store))
    for figure in document(store).figures:
        assert isinstance(figure, Figure)
        assert re.search(r"\d", figure.description), figure.name
