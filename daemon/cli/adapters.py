"""Commands about adapters: what there is, what is live, and their ways in and out."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from daemon.cli.options import HomeOption, Json, note, print_json, print_table
from daemon.cli.reading import read

if TYPE_CHECKING:
    from daemon.home import Home

adapters = typer.Typer(no_args_is_help=True, help="What was trained, and what of it is live.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(adapters, name="adapters")


@adapters.command("list")
def adapters_list(home: HomeOption = None, as_json: Json = False) -> None:
    """Every adapter: live, previous, pinned."""
    from daemon.views import adapter_rows

    rows = read(home, "/adapters", adapter_rows)
    if as_json:
        print_json(rows)
        return

    def row(r: dict[str, Any]) -> tuple[object, ...]:
        marks = [r["state"], *(name for name in ("previous", "pinned") if r[name]), *(["DAMAGED"] if r["damaged"] else [])]
        return r["id"], r["created_at"][:19], ", ".join(r["scope"]), r["strategy"], r["bytes"], ", ".join(marks)

    table = [row(r) for r in rows]
    print_table(("adapter", "made", "for", "strategy", "bytes", "state"), table, "there is no adapter yet")


@adapters.command("show")
def adapters_show(adapter: str, home: HomeOption = None) -> None:
    """Where an adapter comes from, as JSON; its bytes are checked."""
    from consolidation.adapters import AdapterStore

    found = read(home, f"/adapters/{quote(adapter, safe='')}", lambda place, _: AdapterStore(place.adapters).get(adapter))
    typer.echo(json.dumps(found, indent=2))


@adapters.command("export")
def adapters_export(
    adapter: str,
    layout: Annotated[
        str, typer.Option("--format", help="peft, mlx, gguf, or fused: the base with the adapter in its weights.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write to; it must be new or empty.")],
    bits: Annotated[int, typer.Option(help="For fused: quantise to 4, 5, 6 or 8 bits (MLX); 0 keeps the base's weights.")] = 0,
    home: HomeOption = None,
) -> None:
    """Write an adapter for another engine."""
    from consolidation.adapters import AdapterStore
    from consolidation.portable import caution, export
    from daemon.home import Home

    if layout == "fused":
        _fused(Home.at(home), adapter, out.expanduser(), bits)
        return
    found = AdapterStore(Home.at(home).adapters).get(adapter)
    for path in export(found, layout, out.expanduser()):
        typer.echo(path)
    if text := caution(found, layout):
        note(text)


def _fused(home: Home, adapter: str, out: Path, bits: int) -> None:
    from agent.models.engines import open_weights
    from consolidation.adapters import AdapterStore
    from consolidation.fuse import fuse, quantise_mlx
    from consolidation.portable import caution
    from daemon.run import read_config

    weights = open_weights(read_config(home).model)
    found = AdapterStore(home.adapters).get(adapter, weights.hash)
    if not bits:
        fuse(weights.folder, found, out)
    else:
        with tempfile.TemporaryDirectory(dir=out.absolute().parent, prefix=".fused-") as between:
            fuse(weights.folder, found, Path(between) / "whole")
            quantise_mlx(Path(between) / "whole", out, bits)
    typer.echo(f"{out}: a model of its own; the gate has examined the adapter, not this, so examine it before it serves")
    if text := caution(found, "fused"):
        note(text)


@adapters.command("import")
def adapters_import(
    path: Annotated[Path, typer.Argument(help="A folder in PEFT's or MLX's layout, or a GGUF file.")],
    repos: Annotated[str, typer.Option(help="Comma-separated repositories that it is for.")] = "",
    home: HomeOption = None,
) -> None:
    """Take in an adapter as a candidate; it must have been trained on the configured model's weights."""
    from agent.models.engines import open_weights
    from consolidation.adapters import AdapterStore
    from consolidation.portable import import_adapter
    from daemon.home import Home
    from daemon.run import read_config

    place = Home.at(home)
    place.make()
    weights = open_weights(read_config(place).model)
    scope = tuple(name for name in repos.split(",") if name)
    added = import_adapter(AdapterStore(place.adapters), path.expanduser(), weights.hash, weights.folder, scope)
    typer.echo(f"{added.id} is a candidate; a night must examine it before it can be put to work")


@adapters.command("promote")
def adapters_promote(adapter: str, home: HomeOption = None, as_json: Json = False) -> None:
    """Serve an adapter again that once passed the gate."""
    _changed(home, "/adapters/promote", {"adapter": adapter}, as_json)


@adapters.command("rollback")
def adapters_rollback(home: HomeOption = None, as_json: Json = False) -> None:
    """Serve what was live before; again undoes it."""
    _changed(home, "/adapters/rollback", None, as_json)


@adapters.command("pin")
def adapters_pin(
    adapter: str,
    home: HomeOption = None,
    off: Annotated[bool, typer.Option("--off", help="Keep it no longer.")] = False,
) -> None:
    """Keep an adapter for ever, whatever the disk budget says."""
    from daemon.client import ask
    from daemon.home import Home

    typer.echo(ask(Home.at(home).socket, "POST", "/adapters/pin", {"adapter": adapter, "keep": not off})["what"])


def _changed(home: Path | None, target: str, body: dict[str, Any] | None, as_json: bool) -> None:
    from daemon.client import ask
    from daemon.home import Home

    answer = ask(Home.at(home).socket, "POST", target, body)
    live = ", ".join(f"{repo} {identity}" for repo, identity in answer["live"].items()) or "the bare base model"
    print_json(answer) if as_json else typer.echo(f"live: {live}")
