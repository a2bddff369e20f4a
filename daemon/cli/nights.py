"""Commands about nights: the list, and the sheet on which people mark a night's pairs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.cli.options import HomeOption, Json, Last, print_json, print_table
from daemon.cli.reading import read

if TYPE_CHECKING:
    from consolidation.pairs import Pair
    from daemon.home import Home

nights = typer.Typer(invoke_without_command=True, help="Nights, each with its verdict and why.")
Which = Annotated[str, typer.Argument(metavar="NIGHT", help="Its number or id, as listed, or `last`.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(nights, name="nights")


@nights.callback()
def listed(context: typer.Context, home: HomeOption = None, last: Last = 20, as_json: Json = False) -> None:
    """Nights, each with its verdict and why."""
    if context.invoked_subcommand is not None:
        context.obj = home
        return
    rows = night_rows(home)
    first, rows = max(1, len(rows) - last + 1), rows[-last:]
    if as_json:
        print_json(rows)
        return
    words = {True: "promoted", False: "rejected", None: "open"}
    table = [
        (number, r["id"], r["started_at"][:19], r["pairs"], words[r["promoted"]], r["why"] or ", ".join(r["steps"]))
        for number, r in enumerate(rows, first)
    ]
    print_table(("#", "night", "began", "pairs", "verdict", "why"), table, "there was no night yet")


@nights.command("show")
def nights_show(context: typer.Context, night: Which, home: HomeOption = None, as_json: Json = False) -> None:
    """Explain a night: data in, what was left out and why, what was trained, each guard's numbers, the decision, hashes."""
    from daemon.night_view import NightShown, night_shown, told

    place = home or context.obj
    identity = found_night(place, night)["id"]
    shown = read(place, f"/nights/{identity}", lambda _, store: night_shown(store, identity))
    if as_json:
        print_json(shown)
        return
    for line in told(NightShown.model_validate(shown)):
        typer.echo(line)


@nights.command("sheet")
def nights_sheet(
    context: typer.Context,
    night: Which,
    out: Annotated[Path, typer.Option(help="The file that is written: CSV, for any spreadsheet.")],
    pairs: Annotated[int, typer.Option(min=1, help="At most so many.")] = 200,
    seed: Annotated[int, typer.Option(help="Decides which ones are drawn.")] = 0,
    home: HomeOption = None,
) -> None:
    """Write a sheet of a night's training pairs, drawn by chance, on which people mark each as correct or not."""
    from consolidation.annotation import read_pairs, sheet
    from consolidation.night_files import PAIRS
    from daemon.errors import DaemonError
    from daemon.home import Home
    from memory.files import write_whole

    place = Home.at(home or context.obj)
    text = sheet(read_pairs(place.nights / found_night(place.root, night)["id"] / PAIRS), pairs, seed)
    try:
        write_whole(out, "\ufeff" + text)
    except OSError as error:
        raise DaemonError(f"{out} cannot be written ({error.strerror}); name a file in a folder that is there") from error
    typer.echo(f"wrote {out}; fill in `correct` with yes or no, save it as CSV, then: sleepyctl nights score {out}")


@nights.command("score")
def nights_score(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A sheet that was filled in, saved as CSV.")],
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """What share of the pairs on a sheet is wrong, with a 95 % interval; by format and by what made them."""
    from consolidation.annotation import ids_in, read_scores
    from daemon.errors import DaemonError
    from daemon.home import Home

    try:
        data = file.read_bytes()
    except OSError as error:
        raise DaemonError(f"{file} cannot be read ({error.strerror}); `sleepyctl nights sheet` writes one") from error
    found = read_scores(data, _pairs_named(Home.at(home or context.obj), set(ids_in(data)))).model_dump(mode="json")
    if as_json:
        print_json(found)
        return
    parts = [("all", found["all"]), *((f"format {n}", r) for n, r in found["by_format"].items())]
    parts += [(f"by {n}", r) for n, r in found["by_synthesiser"].items()]
    table = [(name, r["scored"], r["wrong"], _percent(r["ratio"]), _interval(r)) for name, r in parts]
    print_table(("pairs", "scored", "wrong", "noise", "95 % interval"), table, "")
    typer.echo(f"{found['unscored']} not scored")


def night_rows(home: Path | None) -> list[dict[str, Any]]:
    """Every night, oldest first; the first has number 1."""
    from daemon.views import night_rows as rows

    return list(read(home, "/nights", lambda _, store: rows(store)))


def found_night(home: Path | None, name: str) -> dict[str, Any]:
    """The night with this number or id, or the `last` one.

    Raises:
        DaemonError: there is none.
    """
    from daemon.errors import DaemonError

    rows = night_rows(home)
    if named := [row for row in rows if row["id"] == name]:
        return named[0]
    if name == "last" and rows:
        return rows[-1]
    if name.isdecimal() and len(name) < 10 and 0 < int(name) <= len(rows):
        return rows[int(name) - 1]
    there = f"there are 1 to {len(rows)}; `sleepyctl nights` lists them" if rows else "there was none yet"
    raise DaemonError(f"no night {name!r}: {there}")


def _pairs_named(home: Home, ids: set[str]) -> list[Pair]:
    """The pairs of these ids, of whichever nights still have them, latest first."""
    from consolidation.annotation import read_pairs, sheet_id
    from consolidation.night_files import PAIRS

    found: dict[str, Pair] = {}
    files = sorted(home.nights.glob(f"*/{PAIRS}"), key=lambda path: (path.stat().st_mtime, path), reverse=True)
    for path in files:
        if found.keys() >= ids:
            break
        found |= {identity: pair for pair in read_pairs(path) if (identity := sheet_id(pair)) in ids}
    return list(found.values())


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _interval(row: dict[str, Any]) -> str:
    return f"{row['low']:.1%} to {row['high']:.1%}" if row["scored"] else ""
