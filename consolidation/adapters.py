"""The adapter store: content-addressed folders in PEFT layout, each with a manifest, and what was judged of it beside."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

from consolidation.errors import AdapterError
from consolidation.layouts import made_whole
from memory.files import write_whole

MANIFEST = "manifest.json"
STANDING = "state.json"
ARTEFACTS = ("adapter_config.json", "adapter_model.safetensors")
ROUTER = ("router.json", "router.safetensors")
"""What a mixture of experts has besides: who answers which task. It decides what is served, so it is part of the identity."""
ATTACHED = "attached"
State = Literal["candidate", "rejected", "passed"]


class Manifest(BaseModel):
    """Where an adapter comes from. `scope` lists the repositories it serves; others get the base.

    What was not known when it was written is empty: older manifests name no rank, alpha and targets, and an imported
    adapter has no losses (0 is no loss that training could end with).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    created_at: AwareDatetime
    base: str
    """Hash of the base model it was trained on."""
    strategy: str
    seed: int
    data: str
    """Content hash of the training pairs."""
    scope: tuple[str, ...]
    parents: tuple[str, ...] = ()
    config_hash: str
    loss_first: float
    loss_last: float
    rank: int = 0
    alpha: float = 0.0
    """As it is served; the weight change is alpha / rank * B @ A."""
    targets: tuple[str, ...] = ()
    """Kinds of layers that are adapted, such as `q_proj`."""
    attachments: dict[str, str] = {}
    """What the next night of the same strategy needs, such as Fisher information: names and sha256."""


class Standing(BaseModel):
    """What the gate found. Whether a passed adapter is live or retired is for the routing table to say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    state: State = "candidate"
    why: str = ""
    scores: dict[str, float] = {}
    judged_at: datetime | None = None
    barred: bool = False
    """Taken out of service for good: no later judgement changes that."""


class Adapter(BaseModel):
    """A stored adapter: `id` is the hash of its artefacts. `damaged` says why it cannot be used; empty if it can."""

    model_config = ConfigDict(frozen=True)

    id: str
    folder: Path
    manifest: Manifest
    standing: Standing = Standing()
    damaged: str = ""

    def attachment(self, name: str) -> Path | None:
        """A file that the strategy left for its next night, its bytes checked; None if there is none of this name.

        Raises:
            AdapterError: it is missing or was changed.
        """
        if name not in self.manifest.attachments:
            return None
        path = self.folder / ATTACHED / name
        try:
            found = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise AdapterError(f"{path}: {error.strerror}; roll back, or begin again with full replay") from error
        if found != self.manifest.attachments[name]:
            raise AdapterError(f"{path} was changed; roll back, or begin again with full replay")
        return path


def artefacts_of(folder: Path) -> tuple[str, ...]:
    """The files that decide what an adapter folder serves."""
    return (*ARTEFACTS, *(ROUTER if any((folder / name).exists() for name in ROUTER) else ()))


def artefact_hash(folder: Path) -> str:
    """Hash over the bytes of configuration and weights (and of a mixture's router), 16 hex digits.

    Raises:
        AdapterError: if one of them is missing.
    """
    digest = hashlib.sha256()
    for name in artefacts_of(folder):
        try:
            digest.update(name.encode() + b"\0" + (folder / name).read_bytes())
        except OSError as error:
            raise AdapterError(f"{folder / name}: {error.strerror}; train again or roll back") from error
    return digest.hexdigest()[:16]


class AdapterStore:
    """Adapters below one folder; an adapter is there whole or not at all, and never changes. Its standing can."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def admit(self, trained: Path, manifest: Manifest, attachments: Mapping[str, Path] | None = None) -> Adapter:
        """Copy a trained adapter's artefacts into the store under their content hash; a candidate, if it is new.

        Attachments are copied beside them, and named in the manifest; they are no part of the identity.

        Raises:
            AdapterError: it is not there, changes while it is copied, or cannot be written.
        """
        identity = artefact_hash(trained)
        folder = self.root / identity
        if not folder.exists():
            with made_whole(folder) as made:
                made.mkdir()
                for name in artefacts_of(trained):
                    shutil.copyfile(trained / name, made / name)
                if artefact_hash(made) != identity:
                    raise AdapterError(f"{trained} was changed while it was copied; try again")
                digests = {name: _attached(path, made / ATTACHED / name) for name, path in (attachments or {}).items()}
                write_whole(made / MANIFEST, manifest.model_copy(update={"attachments": digests}).model_dump_json(indent=2))
        return self.get(identity)

    def get(self, identity: str, base: str = "") -> Adapter:
        """A stored adapter, its bytes checked against its name, and the base it was trained on against `base` (a hash).

        Raises:
            AdapterError: if it is not there, damaged, was changed, or belongs to another base.
        """
        folder = self.root / identity
        if not folder.is_dir() or folder.parent != self.root or identity in ("", ".", ".."):
            raise AdapterError(f"no adapter {identity!r} in {self.root}; `sleepyctl adapters list` shows what there is")
        found = artefact_hash(folder)
        if found != identity:
            raise AdapterError(f"{folder} was changed: its content is {found}; delete the folder and roll back")
        adapter = Adapter(id=identity, folder=folder, manifest=_manifest(folder), standing=_standing(folder))
        if base and adapter.manifest.base != base:
            raise AdapterError(
                f"adapter {identity} was trained on base model {adapter.manifest.base}, not on {base}; "
                "serve its own base, or train again on this one"
            )
        return adapter

    def judge(
        self, identity: str, state: State, why: str = "", scores: Mapping[str, float] | None = None, barred: bool = False
    ) -> Adapter:
        """Record what the gate found; the last judgement counts, unless one was for good (`barred`).

        Raises:
            AdapterError: see `get`.
        """
        adapter = self.get(identity)
        if adapter.standing.barred:
            return adapter
        folder = adapter.folder
        standing = Standing(state=state, why=why, scores=dict(scores or {}), judged_at=datetime.now(UTC), barred=barred)
        write_whole(folder / STANDING, standing.model_dump_json(indent=2))
        return self.get(identity)

    def list(self) -> list[Adapter]:
        """All adapters, oldest first. A damaged one says so; what is not known of it is empty."""
        if not self.root.is_dir():
            return []
        names = [path.name for path in self.root.iterdir() if path.is_dir() and not path.name.startswith(".")]
        return sorted((self._any(name) for name in names), key=lambda adapter: (adapter.manifest.created_at, adapter.id))

    def _any(self, identity: str) -> Adapter:
        try:
            return self.get(identity)
        except AdapterError as error:
            folder, why = self.root / identity, str(error)
        try:
            manifest = _manifest(folder)
        except AdapterError:
            try:
                made = datetime.fromtimestamp(folder.stat().st_mtime, UTC)
            except OSError:  # it was removed meanwhile
                made = datetime.now(UTC)
            unknown = {"base": "", "strategy": "unknown", "seed": 0, "data": "", "scope": (), "config_hash": ""}
            manifest = Manifest.model_validate({"created_at": made, **unknown, "loss_first": 0.0, "loss_last": 0.0})
        return Adapter(id=identity, folder=folder, manifest=manifest, damaged=why)


def _attached(path: Path, target: Path) -> str:
    target.parent.mkdir(exist_ok=True)
    try:
        shutil.copyfile(path, target)
        return hashlib.sha256(target.read_bytes()).hexdigest()
    except OSError as error:
        raise AdapterError(f"{path}: cannot be kept ({error.strerror})") from error


def _manifest(folder: Path) -> Manifest:
    try:
        return Manifest.model_validate_json((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AdapterError(f"{folder / MANIFEST}: not a manifest ({error})") from error


def _standing(folder: Path) -> Standing:
    path = folder / STANDING
    if not path.exists():
        return Standing()
    try:
        return Standing.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AdapterError(f"{path}: not a judgement ({error}); delete it, and the adapter is a candidate again") from error
