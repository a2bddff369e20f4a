"""Which weights a folder holds: a hash of their bytes, computed once."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from agent.errors import ModelError
from memory.files import write_whole

CHUNK = 1 << 22
TELLING = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "vocab.json", "merges.txt")


def folder_hash(folder: Path) -> str:
    """Hash over everything in a model folder that decides an answer, 16 hex digits.

    Large files are read once: their hashes are remembered below the user's cache folder, by inode, size and time of change.

    Raises:
        ModelError: if there are no weights.
    """
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise ModelError(f"{folder}: no safetensors weights there; name the folder of a downloaded model")
    parts = [(path.name, file_hash(path)) for path in [*weights, *(folder / name for name in TELLING)] if path.is_file()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def file_hash(path: Path) -> str:
    """sha256 of a file's content; of a large one from the cache, if the file is the same."""
    found = path.stat()
    key = hashlib.sha256(f"{found.st_dev}/{found.st_ino}/{found.st_size}/{found.st_mtime_ns}".encode()).hexdigest()[:32]
    note = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sleepy" / "hashes" / key
    if found.st_size > CHUNK and note.is_file():
        return note.read_text(encoding="ascii")
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            digest.update(block)
    if found.st_size > CHUNK:
        try:
            note.parent.mkdir(parents=True, exist_ok=True)
            write_whole(note, digest.hexdigest())
        except OSError:
            pass  # it is only computed again
    return digest.hexdigest()
