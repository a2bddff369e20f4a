"""The sheet on which people mark pairs as right or wrong, and what share was wrong.

The sheet is CSV as spreadsheets read and write it. What a model wrote stands in it, so no cell can be taken for a formula.
"""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from agent.tools import bounded
from consolidation.encoding import taught_turns
from consolidation.errors import ConsolidationError
from consolidation.pairs import Pair

COLUMNS = ("id", "task", "trajectory", "format", "source", "made_by", "asked", "taught", "correct", "note")
MAX_CELL_CHARS = 8_000
MAX_SHEET_BYTES = 64 << 20
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_YES, _NO = frozenset({"yes", "y", "true", "1"}), frozenset({"no", "n", "false", "0"})


class Noise(BaseModel):
    """How many of the pairs that were scored are wrong; `low` and `high` are a 95 % Wilson interval of `ratio`."""

    model_config = ConfigDict(frozen=True)

    scored: int
    wrong: int
    ratio: float | None
    low: float
    high: float


class Scores(BaseModel):
    """What people found: in all, by format, by synthesiser; `notes` by the id of the pair."""

    model_config = ConfigDict(frozen=True)

    all: Noise
    unscored: int
    by_format: dict[str, Noise]
    by_synthesiser: dict[str, Noise]
    wrong: list[str]
    notes: dict[str, str]


def read_pairs(path: Path) -> list[Pair]:
    """The pairs that a night wrote down.

    Raises:
        ConsolidationError: they are not there, or damaged.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        return [Pair.model_validate_json(line) for line in lines if line]
    except FileNotFoundError as error:
        raise ConsolidationError(
            f"{path}: the night has no pairs, or they were removed to save space; choose a later night"
        ) from error
    except (OSError, ValueError) as error:
        what = "not what a night writes" if isinstance(error, ValidationError) else str(error)[:200]
        raise ConsolidationError(f"{path}: the pairs cannot be read ({what}); choose another night") from error


def sheet_id(pair: Pair) -> str:
    """What names a pair in a sheet: hexadecimal digits alone would be taken for a number."""
    return f"p-{pair.content}"


def sheet(pairs: Sequence[Pair], count: int = 200, seed: int = 0) -> str:
    """At most `count` of the pairs as CSV, drawn by seed, fairly from each format, source and synthesiser, in their order.

    Second copies are left out, and so is what is rehearsed, for nobody made it.
    """
    fresh = list({pair.content: pair for pair in reversed(pairs) if pair.source != "rehearsal"}.values())[::-1]
    groups: dict[tuple[str, ...], list[int]] = {}
    for number, pair in enumerate(fresh):
        groups.setdefault((pair.format, pair.source, pair.made_by), []).append(number)
    rng = random.Random(seed)
    shares = _shares({key: len(groups[key]) for key in sorted(groups)}, count)
    chosen = sorted(number for key, share in shares.items() for number in rng.sample(groups[key], share))
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    writer.writerows([_cell(text) for text in _row(fresh[number])] for number in chosen)
    return out.getvalue()


def read_scores(csv_bytes: bytes, pairs: Iterable[Pair]) -> Scores:
    """What was filled in, in a sheet of these pairs as a spreadsheet saved it. An empty `correct` counts as unscored.

    Raises:
        ConsolidationError: it is no such sheet, or a row is of no such pair, there twice, or neither yes nor no.
    """
    known = {sheet_id(pair): pair for pair in pairs}
    right: dict[str, bool] = {}
    notes: dict[str, str] = {}
    seen: set[str] = set()
    for number, row in enumerate(_rows(csv_bytes), 1):
        identity, answer = row["id"].strip(), row["correct"].strip().lower()
        where = f"the sheet, row {number} below the head ({ascii(identity)[1:-1][:40]})"
        if identity not in known:
            raise ConsolidationError(f"{where}: there is no such pair; score a sheet of this state directory's nights")
        if identity in seen:
            raise ConsolidationError(f"{where}: the pair is there twice; remove one of the rows")
        seen.add(identity)
        if answer and answer not in _YES | _NO:
            raise ConsolidationError(f"{where}: correct is {ascii(answer)[:40]}; write yes or no, or leave it empty")
        if answer:
            right[identity] = answer in _YES
        if note := row.get("note", "").strip():
            notes[identity] = note
    by_format: dict[str, list[bool]] = {}
    by_synthesiser: dict[str, list[bool]] = {}
    for identity, is_right in right.items():
        by_format.setdefault(known[identity].format, []).append(is_right)
        by_synthesiser.setdefault(known[identity].made_by, []).append(is_right)
    return Scores(
        all=_noise(list(right.values())),
        unscored=len(seen) - len(right),
        by_format={name: _noise(found) for name, found in sorted(by_format.items())},
        by_synthesiser={name: _noise(found) for name, found in sorted(by_synthesiser.items())},
        wrong=[identity for identity, is_right in right.items() if not is_right],
        notes=notes,
    )


def ids_in(csv_bytes: bytes) -> list[str]:
    """The pairs that a sheet names.

    Raises:
        ConsolidationError: it is no sheet.
    """
    return [row["id"].strip() for row in _rows(csv_bytes)]


def _shares(sizes: Mapping[tuple[str, ...], int], count: int) -> dict[tuple[str, ...], int]:
    """How many to draw from each group: one at least while there are enough, then by size (largest remainders)."""
    whole = sum(sizes.values())
    if whole <= count:
        return dict(sizes)
    exact = {key: count * size / whole for key, size in sizes.items()}
    shares = {key: max(1, int(share)) for key, share in exact.items()}
    while sum(shares.values()) > count:
        richest = max(shares, key=lambda key: (shares[key] - exact[key], shares[key], key))
        shares[richest] -= 1
    while sum(shares.values()) < count:
        poorest = max((key for key in shares if shares[key] < sizes[key]), key=lambda key: (exact[key] - shares[key], key))
        shares[poorest] += 1
    return shares


def _row(pair: Pair) -> tuple[str, ...]:
    """The cells of a pair; what was asked is all that was said before the first turn that is learnt."""
    learnt = taught_turns(pair)
    turns = [at for at, (role, _) in enumerate(pair.messages) if role == "assistant"]
    first = turns[learnt[0]] if learnt else len(pair.messages)
    asked = [f"{role}: {text}" for role, text in pair.messages[:first] if role != "system"]
    taught = [f"{number + 1}. {pair.messages[turns[number]][1]}" for number in learnt]
    taught += [f"rather than: {pair.rejected}"] if pair.rejected else []
    told = "\n\n".join(asked), "\n\n".join(taught)
    return sheet_id(pair), pair.task_id, pair.trajectory_id, pair.format, pair.source, pair.made_by, *told, "", ""


def _cell(text: str) -> str:
    """A text that every spreadsheet takes for one."""
    plain = "".join(c for c in bounded(text, MAX_CELL_CHARS) if c.isprintable() or c in "\n\t")
    return f"'{plain}" if plain.lstrip(" \n").startswith(_FORMULA) else plain


def _rows(data: bytes) -> list[dict[str, str]]:
    if len(data) > MAX_SHEET_BYTES:
        raise ConsolidationError(f"the sheet has {len(data):,} bytes, too many for one; save it as CSV, with text alone")
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", "replace")
    if text[:4].lower() == "sep=":
        text = text.partition("\n")[2]
    wanted = {"id", "correct"}
    for delimiter in ",;\t":
        try:
            head, *rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if text else [[]]
        except (csv.Error, ValueError):
            continue
        names = [name.strip().lower() for name in head]
        if wanted <= set(names):
            filled = [row for row in rows if any(cell.strip() for cell in row)]
            return [dict(zip(names, [*row, *[""] * (len(names) - len(row))], strict=False)) for row in filled]
    raise ConsolidationError(f"that is no sheet of pairs; save it as CSV, with the columns {', '.join(COLUMNS)}")


def _noise(right: Sequence[bool]) -> Noise:
    from scipy.stats import binomtest

    scored, wrong = len(right), right.count(False)
    if not scored:
        return Noise(scored=0, wrong=0, ratio=None, low=0.0, high=1.0)
    interval = binomtest(wrong, scored).proportion_ci(method="wilson")
    return Noise(scored=scored, wrong=wrong, ratio=wrong / scored, low=float(interval.low), high=float(interval.high))
