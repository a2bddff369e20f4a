"""The adapter store: content-addressed folders in PEFT layout, each with a manifest."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from consolidation.errors import AdapterError
from memory.files import sync, write_whole

MANIFEST = "manifest.json"
ARTEFACTS = ("adapter_config.json", "adapter_model.safetensors")


class Manifest(BaseModel):
    """Where an adapter comes from. `scope` lists the repositories it serves; others get the base."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    created_at: datetime
    base: str
    strategy: str
    seed: int
    data: str
    """Content hash of the training pairs."""
    scope: tuple[str, ...]
    parents: tuple[str, ...] = ()
    config_hash: str
    loss_first: float
    loss_last: float


class Adapter(BaseModel):
    """A stored adapter: `id` is the hash of its artefacts."""

    model_config = ConfigDict(frozen=True)

    id: str
    folder: Path
    manifest: Manifest


def artefact_hash(folder: Path) -> str:
    """Hash over the bytes of configuration and weights, 16 hex digits.

    Raises:
        AdapterError: if one of them is missing.
    """
    digest = hashlib.sha256()
    for name in ARTEFACTS:
        try:
            digest.update(name.encode() + b"\0" + (folder / name).read_bytes())
        except OSError as error:
            raise AdapterError(f"{folder / name}: {error.strerror}; train again or roll back") from error
    return digest.hexdigest()[:16]


class AdapterStore:
    """Adapters below one folder; an adapter is there whole or not at all, and never changes."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def admit(self, trained: Path, manifest: Manifest) -> Adapter:
        """Copy a trained adapter's artefacts into the store under their content hash."""
        identity = artefact_hash(trained)
        folder = self.root / identity
        if not folder.exists():
            self.root.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=".admit-", dir=self.root))
            for name in ARTEFACTS:
                shutil.copyfile(trained / name, temporary / name)
                sync(temporary / name)
            write_whole(temporary / MANIFEST, manifest.model_dump_json(indent=2))
            temporary.rename(folder)
            sync(self.root)
        return self.get(identity)

    def get(self, identity: str) -> Adapter:
        """A stored adapter, its bytes checked against its name.

        Raises:
            AdapterError: if it is not there, damaged, or was changed.
        """
        folder = self.root / identity
        if not folder.is_dir():
            raise AdapterError(f"no adapter {identity!r} in {self.root}; `sleepyctl adapters list` shows what there is")
        found = artefact_hash(folder)
        if found != identity:
            raise AdapterError(f"{folder} was changed: its content is {found}; delete the folder and roll back")
        try:
            manifest = Manifest.model_validate_json((folder / MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValidationError) as error:
            raise AdapterError(f"{folder / MANIFEST}: not a manifest ({error})") from error
        return Adapter(id=identity, folder=folder, manifest=manifest)

    def list(self) -> list[Adapter]:
        """All adapters, oldest first."""
        if not self.root.is_dir():
            return []
        found = [self.get(path.name) for path in self.root.iterdir() if path.is_dir() and not path.name.startswith(".")]
        return sorted(found, key=lambda adapter: adapter.manifest.created_at)
