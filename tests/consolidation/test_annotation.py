"""The sheet for people: what is on it, that no cell is a formula, and what comes back from spreadsheets."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consolidation.annotation import COLUMNS, MAX_CELL_CHARS, ids_in, read_pairs, read_scores, sheet, sheet_id
from consolidation.errors import ConsolidationError
from consolidation.pairs import Format, Pair, Source


def pair(number: int, how: Format = "T", source: Source = "agent", by: str = "offline", said: str = "search x") -> Pair:
    return Pair(
        task_id=f"task-{number}",
        repo="r",
        trajectory_id=f"{number}",
        source=source,
        format=how,
        made_by=by,
        messages=(
            ("system", "rules"),
            ("user", f"issue {number}"),
            ("assistant", said),
            ("tool", "seen"),
            ("assistant", "submit"),
        ),
        untaught=(1,),
    )


PAIRS = [
    *(pair(n) for n in range(60)),
    *(pair(n, "B", by="model") for n in range(60, 90)),
    *(pair(n, source="merged_fix") for n in range(90, 99)),
    pair(99, "D", by="model"),
    *(pair(n, source="rehearsal") for n in range(100, 200)),
]


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def filled(text: str, answers: dict[str, str], delimiter: str = ",", end: str = "\r\n") -> str:
    """The sheet as a spreadsheet saves it, with answers by id."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, delimiter=delimiter, lineterminator=end)
    writer.writeheader()
    writer.writerows({**row, "correct": answers.get(row["id"], "")} for row in rows(text))
    return out.getvalue()


def test_a_sheet_draws_fairly_from_each_kind_by_seed_and_leaves_out_what_nobody_made() -> None:
    text = sheet(PAIRS, 20, seed=1)
    drawn = rows(text)
    assert Counter((row["format"], row["source"]) for row in drawn) == {
        ("T", "agent"): 12,
        ("B", "agent"): 6,
        ("T", "merged_fix"): 1,
        ("D", "agent"): 1,
    }
    assert sheet(PAIRS, 20, seed=1) == text != sheet(PAIRS, 20, seed=2)
    assert len(rows(sheet(PAIRS, 200))) == 100
    assert len(rows(sheet([*PAIRS, *PAIRS], 200))) == 100
    assert len(rows(sheet(PAIRS, 2))) == 2
    assert rows(sheet([], 5)) == []


def test_a_row_says_what_is_asked_and_what_is_taught() -> None:
    (row,) = rows(sheet([pair(1)]))
    assert tuple(row) == COLUMNS
    assert (row["task"], row["trajectory"], row["made_by"]) == ("task-1", "1", "offline")
    assert (row["asked"], row["taught"], row["correct"], row["note"]) == ("user: issue 1", "1. search x", "", "")
    preferred = pair(2, "C").model_copy(update={"messages": pair(2).messages[:3], "untaught": (), "rejected": "view y"})
    assert rows(sheet([preferred]))[0]["taught"] == "1. search x\n\nrather than: view y"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", " =", "\n@", "\x00=", "\u200b-"])
def test_what_a_model_wrote_is_never_a_formula(start: str) -> None:
    evil = pair(1).model_copy(update={"task_id": f"{start}cmd|' /C calc'!A0", "made_by": f"{start}1+1"})
    text = sheet([evil])
    for cell in next(csv.reader(io.StringIO(text.split("\r\n", 1)[1], newline=""))):
        assert cell.strip()[:1] not in {"=", "+", "-", "@"}, cell
        assert "\x00" not in cell
    assert sheet_id(evil).startswith("p-")
    assert ids_in(text.encode()) == [sheet_id(evil)]


@given(st.lists(st.text(max_size=40), min_size=1, max_size=4, unique=True))
@settings(max_examples=50, deadline=None)
def test_whatever_was_said_the_sheet_reads_back(texts: list[str]) -> None:
    made = [pair(n, said=text) for n, text in enumerate(texts)]
    assert ids_in(sheet(made).encode()) == [sheet_id(p) for p in made]


def test_a_long_cell_is_cut_and_says_so() -> None:
    (row,) = rows(sheet([pair(1, said="x" * 100_000)]))
    assert len(row["taught"]) < MAX_CELL_CHARS + 100
    assert "characters cut]" in row["taught"]


SAID = {sheet_id(PAIRS[0]): "Yes", sheet_id(PAIRS[1]): "no", sheet_id(PAIRS[60]): "TRUE", sheet_id(PAIRS[61]): "0 "}


@pytest.mark.parametrize("end", ["\r\n", "\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_scores_are_read_as_spreadsheets_save_them(delimiter: str, encoding: str, end: str) -> None:
    saved = filled(sheet(PAIRS), SAID, delimiter, end) + f"{delimiter * 9}{end}"
    found = read_scores(saved.encode(encoding), PAIRS)
    assert (found.all.scored, found.all.wrong, found.all.ratio, found.unscored) == (4, 2, 0.5, 96)
    assert {name: (noise.scored, noise.wrong) for name, noise in found.by_format.items()} == {"T": (2, 1), "B": (2, 1)}
    assert {name: noise.scored for name, noise in found.by_synthesiser.items()} == {"offline": 2, "model": 2}
    assert sorted(found.wrong) == sorted([sheet_id(PAIRS[1]), sheet_id(PAIRS[61])])


def test_the_interval_is_wilsons() -> None:
    ten = filled(sheet(PAIRS), {sheet_id(p): "no" if n == 0 else "yes" for n, p in enumerate(PAIRS[:10])})
    found = read_scores(ten.encode(), PAIRS).all
    z, n, p = 1.959964, 10, 0.1
    centre, spread = p + z**2 / (2 * n), z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    assert found.low == pytest.approx((centre - spread) / (1 + z**2 / n), abs=1e-5)
    assert found.high == pytest.approx((centre + spread) / (1 + z**2 / n), abs=1e-5)
    nothing = read_scores(sheet(PAIRS).encode(), PAIRS).all
    assert (nothing.ratio, nothing.low, nothing.high) == (None, 0.0, 1.0)


def test_notes_come_back_and_columns_may_be_moved_or_left_out() -> None:
    saved = f"note;Correct;ID\nwrong file;no;{sheet_id(PAIRS[3])}\n;;{sheet_id(PAIRS[4])}\n"
    found = read_scores(("sep=;\n" + saved).encode("cp1252"), PAIRS)
    assert (found.notes, found.wrong, found.unscored) == ({sheet_id(PAIRS[3]): "wrong file"}, [sheet_id(PAIRS[3])], 1)


@pytest.mark.parametrize(
    ("saved", "why"),
    [
        ("id,correct\np-0000,yes\n", r"row 1 below the head \(p-0000\): there is no such pair"),
        (f"id,correct\n{sheet_id(PAIRS[0])},yes\n{sheet_id(PAIRS[0])},no\n", "row 2 .*twice"),
        (f"id,correct\n{sheet_id(PAIRS[0])},perhaps\n", "write yes or no"),
        ("a,b\n1,2\n", "no sheet of pairs"),
        ("", "no sheet of pairs"),
        ("id,correct\n\x00", "no sheet of pairs|no such pair"),
        ('id,correct\n"' + "x" * 200_000, "no sheet of pairs|no such pair"),
    ],
)
def test_what_is_no_filled_in_sheet_is_refused(saved: str, why: str) -> None:
    with pytest.raises(ConsolidationError, match=why):
        read_scores(saved.encode(), PAIRS)


def test_pairs_that_are_gone_or_damaged_are_told(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    with pytest.raises(ConsolidationError, match="removed to save space"):
        read_pairs(path)
    path.write_text("".join(f"{p.model_dump_json()}\n" for p in PAIRS[:2]))
    assert read_pairs(path) == PAIRS[:2]
    path.write_text('{"task_id": 1}\n')
    with pytest.raises(ConsolidationError, match="not what a night writes"):
        read_pairs(path)
