"""The layouts an adapter is written in: PEFT (the store's own), MLX and GGUF. What all of them need.

They hold float32, float16 and bfloat16, one rank and one alpha for all layers. What comes from outside is looked at
before a library reads it, so that no file can make it allocate or loop more than its own size justifies.
"""

from __future__ import annotations

import json
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from consolidation.errors import AdapterError
from memory.files import sync

if TYPE_CHECKING:
    from agent.adapters import Lora

MAX_BYTES = 4 << 30
"""Largest adapter file that is read: rank 64 on every linear layer of a 32B model in float32 is 2.1 GB."""
MAX_JSON = 1 << 20
MAX_HEADER = 4 << 20
"""Largest list of tensors in a safetensors adapter; each entry becomes an object of its own."""


@contextmanager
def made_whole(path: Path) -> Iterator[Path]:
    """A place to make a file or a folder at, which moves to `path` when the block ends well and vanishes otherwise.

    Raises:
        AdapterError: something is there already, or it cannot be written (such as on a full disk).
    """
    if path.is_file() or path.is_symlink() or (path.is_dir() and any(path.iterdir())):
        raise AdapterError(f"{path} is already there; choose another name, or remove it first")
    private = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        private = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        made = private / path.name
        yield made
        for file in [made, *(made.rglob("*") if made.is_dir() else ())]:
            sync(file)
        made.rename(path)
        sync(path.parent)
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or str(error)[:300]
        raise AdapterError(
            f"{path}: cannot be written ({why}); nothing was left there; free some space, or choose another place"
        ) from error
    finally:
        if private is not None:
            shutil.rmtree(private, ignore_errors=True)


def look_over(path: Path, limit: int = MAX_BYTES) -> int:
    """Size (bytes) of a file that may be opened.

    Raises:
        AdapterError: it is missing, no regular file (opening a pipe or a device can hang), or too large.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise AdapterError(f"{path}: {error.strerror}; name a folder or file with an adapter") from error
    if not stat.S_ISREG(found.st_mode):
        raise AdapterError(f"{path} is no regular file; copy the adapter itself there")
    if found.st_size > limit:
        raise AdapterError(f"{path}: {found.st_size:,} bytes; more than {limit:,} is no adapter")
    return found.st_size


def look_over_safetensors(path: Path) -> None:
    """Refuse a file whose list of tensors is too long for an adapter; the library checks the rest itself.

    Raises:
        AdapterError: see `look_over`.
    """
    look_over(path)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > MAX_HEADER:
        raise AdapterError(f"{path}: a list of tensors of {length:,} bytes is not that of an adapter")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a small JSON file.

    Raises:
        AdapterError: it is missing, too large, or holds no object.
    """
    look_over(path, MAX_JSON)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterError(f"{path}: no readable configuration ({str(error)[:300]})") from error
    if not isinstance(found, dict):
        raise AdapterError(f"{path}: no readable configuration (it is no object)")
    return found


def number(value: object, what: str, where: object) -> float:
    """A positive finite number from a file.

    Raises:
        AdapterError: it is not.
    """
    try:
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < float(value) < float("inf"):
            return float(value)
    except OverflowError:
        pass
    raise AdapterError(f"{where}: {what} must be a positive number, not {str(value)[:100]}")


def check(lora: Lora, where: object) -> None:
    """Refuse what not every layout holds, and what can do nothing.

    Raises:
        ModelError: see `Lora.check`.
        AdapterError: the numbers are of another kind.
    """
    import torch

    for path, f in lora.layers.items():
        if not re.fullmatch(r"[A-Za-z0-9_.]{1,200}", path):
            raise AdapterError(f"{where}: {path[:200]!r} is no name of a layer")
        for tensor in (f.a, f.b):
            if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16):
                raise AdapterError(f"{where}: {path} is of {tensor.dtype}; an adapter is of float32, float16 or bfloat16")
    lora.check(where)


def check_same(written: Lora, found: Lora, where: object) -> None:
    """Refuse what was not written as it was given, bit for bit.

    Raises:
        AdapterError: naming the first difference.
    """
    if (written.rank, written.alpha, sorted(written.layers)) != (found.rank, found.alpha, sorted(found.layers)):
        raise AdapterError(f"{where}: rank, alpha or layers were not written as they are; report this")
    for path, f in written.layers.items():
        for one, two in zip((f.a, f.b), (found.layers[path].a, found.layers[path].b), strict=True):
            if one.dtype != two.dtype or not one.equal(two):
                raise AdapterError(f"{where}: {path} was not written as it is; check the disk")
