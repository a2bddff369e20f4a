"""The seal of an embedded Chroma's folder, and what else is done to its files.

A damaged file can crash Chroma and the process with it. A folder is *sealed* if its files are as the last complete change
left them.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from memory.files import sync, write_whole

SEAL = "seal.json"
WRITTEN = "index_metadata.pickle"
"""The file that Chroma writes last of a collection."""
UNWRITTEN = ("data_level0.bin", "length.bin")
"""Until then these hold whatever was in the process's memory, vectors that were forgotten too."""


def files_of(folder: Path) -> dict[str, list[int]]:
    """Size and time of every file that counts. A collection that Chroma never wrote in full is begun anew by each reading."""
    found: dict[str, list[int]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != SEAL and (path.parent == folder or (path.parent / WRITTEN).exists()):
            about = path.stat()
            found[path.relative_to(folder).as_posix()] = [about.st_size, about.st_mtime_ns]
    return found


def is_sealed(folder: Path) -> bool:
    """Whether it is as the last complete change left it, or not there."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return True
    try:
        return bool(json.loads((folder / SEAL).read_text(encoding="utf-8")) == files_of(folder))
    except (OSError, ValueError):
        return False


def seal(folder: Path, before: dict[str, list[int]]) -> None:
    """Note its files as they are, once those that changed are on the disk."""
    files = files_of(folder)
    for name, about in files.items():
        if before.get(name) != about:
            sync(folder / name)
    write_whole(folder / SEAL, json.dumps(files))


def unseal(folder: Path) -> None:
    """Take the seal away."""
    (folder / SEAL).unlink(missing_ok=True)


def blank(folder: Path, known: dict[Path, int]) -> None:
    """Clear the files that are begun and not written; `known` holds the times of those that were cleared before."""
    for name in UNWRITTEN:
        for path in folder.glob(f"*/{name}"):
            about = path.stat()
            if about.st_mtime_ns != known.get(path) and not (path.parent / WRITTEN).exists():
                with path.open("r+b") as file:
                    file.write(bytes(about.st_size))
                known[path] = path.stat().st_mtime_ns


def sweep(folder: Path) -> None:
    """Remove the files of collections that are gone, which Chroma leaves behind."""
    address = f"{(folder / 'chroma.sqlite3').as_uri()}?mode=ro"
    with suppress(sqlite3.Error), closing(sqlite3.connect(address, uri=True)) as database:
        kept = {str(row[0]) for row in database.execute("SELECT id FROM segments")}
        for place in folder.iterdir():
            if place.is_dir() and place.name not in kept:
                shutil.rmtree(place)


def move_aside(folder: Path) -> None:
    """Move a folder to where damaged ones lie, in place of the one there."""
    aside = beside(folder, "damaged")
    remove(aside)
    folder.rename(aside)


def beside(folder: Path, what: str) -> Path:
    """Where a folder goes that is `what`."""
    return folder.with_name(f"{folder.name}.{what}")


def remove(path: Path) -> None:
    """Remove a folder or a file; a link, but not what it leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
